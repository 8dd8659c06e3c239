"""vLLM's arguments: which ones change a model's answers, and which ones a recipe may not use."""

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
        "--logits-processors",
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

_OPENS = "it changes who can reach the server; moaa decides that"
_KEY = "keys belong into the environment, not into a command line"
_CODE = "it runs code that the recipe names"
_HIDES = "a file can hold any other argument; write the arguments themselves"
_SENDS = "it sends data to another address"
_TRUSTS = "it lets a request bring its own template, tensors or files"

REFUSED: Final[dict[str, str]] = {
    **dict.fromkeys(
        (
            "--host",
            "--port",
            "--uds",
            "--grpc",
            "--grpc-port",
            "--headless",
            "--root-path",
            "--ssl-keyfile",
            "--ssl-certfile",
            "--ssl-ca-certs",
            "--ssl-cert-reqs",
            "--ssl-ciphers",
            "--enable-ssl-refresh",
            "--allowed-origins",
            "--allowed-methods",
            "--allowed-headers",
            "--allow-credentials",
            "--data-parallel-address",
            "--data-parallel-rpc-port",
            "--data-parallel-supervisor-port",
            "--data-parallel-external-lb",
            "--data-parallel-hybrid-lb",
            "--data-parallel-multi-port-external-lb",
            "--master-addr",
            "--master-port",
            "--nnodes",
            "--node-rank",
            "--profiler-config",
        ),
        _OPENS,
    ),
    "--api-key": _KEY,
    "--hf-token": _KEY,
    **dict.fromkeys(
        (
            "--middleware",
            "--reasoning-parser-plugin",
            "--tool-parser-plugin",
            "--io-processor-plugin",
            "--worker-cls",
            "--worker-extension-cls",
            "--scheduler-cls",
            "--logging-config",
            "--log-config-file",
            "--kv-transfer-config",
            "--ec-transfer-config",
        ),
        _CODE,
    ),
    "--trust-remote-code": "use the field trust_remote_code: true, which the plan, "
    "preflight and the report show",
    "--config": _HIDES,
    **dict.fromkeys(
        ("--kv-events-config", "--otlp-traces-endpoint", "--tool-server"),
        _SENDS,
    ),
    **dict.fromkeys(
        (
            "--allowed-local-media-path",
            "--trust-request-chat-template",
            "--trust-request-mm-kwargs",
            "--enable-prompt-embeds",
            "--enable-mm-embeds",
        ),
        _TRUSTS,
    ),
}
"""Arguments that a recipe may not use, and why. The list was made from vLLM 0.32's own."""

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
    """Return whether these turn on speculative decoding,
    with which a seed does not repeat a text."""
    return any(
        name == "-sc" or (len(name) > 6 and SPECULATIVE.startswith(name.partition(".")[0]))
        for name, _ in named(given)
    )


def tokenizer_of(given: Sequence[str]) -> tuple[str, str | None]:
    """Return the values of `--tokenizer` and `--tokenizer-revision`; empty without them."""
    found = {name: " ".join(values) for name, values in named(given)}
    return found.get("--tokenizer", ""), found.get("--tokenizer-revision")


def refused(given: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield each argument that a recipe may not give, and the reason.

    vLLM accepts a shortened argument (`--hos`) for the whole one, and so does this.
    """
    for name, _ in named(given):
        asked = name.partition(".")[0]
        if asked in REFUSED:
            yield asked, REFUSED[asked]
        elif asked not in ANSWER_ARGS and asked.startswith("--"):
            whole = next((each for each in REFUSED if each.startswith(asked)), None)
            if whole:
                yield f"{asked} (short for {whole})", REFUSED[whole]
