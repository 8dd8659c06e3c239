"""vLLM's arguments in a recipe, and which ones change a model's answers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

ANSWER_ARGS: Final = frozenset(
    {
        "--model",
        "--revision",
        "--dtype",
        "--quantization",
        "-q",
        "--max-model-len",
        "--load-format",
        "--lora-modules",
        "--tokenizer",
        "--tokenizer-mode",
        "--tokenizer-revision",
        "--chat-template",
        "--chat-template-content-format",
        "--default-chat-template-kwargs",
        "--reasoning-parser",
        "--hf-config-path",
        "--hf-overrides",
        "--rope-scaling",
        "--rope-theta",
        "--kv-cache-dtype",
        "--generation-config",
        "--override-generation-config",
        "--logprobs-mode",
        "--runner",
        "--convert",
        "--pooler-config",
    }
)
"""vLLM's arguments that change a model's answers. All others change only the speed."""

SPECULATIVE: Final = "--speculative-config"
SPECULATION: Final = (
    "with speculative decoding the same seed gives another text each time, so a stage that goes on "
    "would not find its answers"
)

_ARG = re.compile(r"--?[A-Za-z]")


def named(given: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield each argument with its values; `--x=v` and `--x v`, `--a_b` and `--a-b` are the same.

    `--hf-overrides.KEY`, which sets one key of an argument, keeps its key.
    """
    name: str | None = None
    values: list[str] = []
    for text in given:
        if not _ARG.match(text):
            values.append(text)
            continue
        if name is not None:
            yield name, values
        name, equals, value = text.partition("=")
        name, dot, key = name.partition(".")
        name, values = name.replace("_", "-") + dot + key, [value] if equals else []
    if name is not None:
        yield name, values


def answer_args(given: Sequence[str]) -> list[list[str]]:
    """Return those of `ANSWER_ARGS` that are given, with their values."""
    return [
        [name, *values] for name, values in named(given) if name.partition(".")[0] in ANSWER_ARGS
    ]


def speculates(given: Sequence[str]) -> bool:
    """Return whether these turn on speculative decoding, with which a seed does not repeat a
    text."""
    asked = {name.partition(".")[0] for name, _ in named(given)}
    return any(
        name == "-sc"
        or name.startswith(("--spec-m", "--spec-t"))  # method, model, tokens
        or (len(name) > 6 and SPECULATIVE.startswith(name))
        for name in asked
    )


def is_template(value: str) -> bool:
    """Return whether a value of `--chat-template` is the template itself and not a path, as vLLM
    decides it."""
    return any(each in value for each in "{}\n")


def tokenizer_of(given: Sequence[str]) -> tuple[str, str | None]:
    """Return the values of `--tokenizer` and `--tokenizer-revision`; empty without them."""
    found = {name: " ".join(values) for name, values in named(given)}
    return found.get("--tokenizer", ""), found.get("--tokenizer-revision")
