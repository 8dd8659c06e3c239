"""Of a model, what decides its answers enters fingerprints, and what only serves it does not."""

from __future__ import annotations

import pytest

from moaa.recipe import Endpoint, Model

PLAIN = Model(source="a/b").identity()


def with_args(*args: str) -> dict[str, object]:
    return Model(source="a/b", engine_args=args).identity()


def test_a_model_without_either_has_the_identity_that_it_always_had() -> None:
    assert set(PLAIN) == {
        "source",
        "revision",
        "dtype",
        "max_model_len",
        "quantization",
        "system_role",
    }
    assert Model(source="a/b", endpoint=Endpoint(url="http://x/v1"), replicas=3).identity() == PLAIN


def test_what_a_model_does_decides_its_answers() -> None:
    assert Model(source="a/b", task="reward").identity() == {**PLAIN, "task": "reward"}


def test_what_a_server_calls_the_model_decides_what_is_answered() -> None:
    one, two = (
        Model(source="a/b", endpoint=Endpoint(url="http://x/v1", model=name)).identity()
        for name in ("gpt-4o", "llama-3")
    )
    moved = Model(source="a/b", endpoint=Endpoint(url="http://y/v1", model="gpt-4o")).identity()
    assert one == moved == {**PLAIN, "endpoint_model": "gpt-4o"}
    assert two != one


@pytest.mark.parametrize(
    ("args", "found"),
    [
        (["--chat-template", "x.jinja"], [["--chat-template", "x.jinja"]]),
        (["--chat-template=x.jinja"], [["--chat-template", "x.jinja"]]),
        (["--chat_template", "x.jinja"], [["--chat-template", "x.jinja"]]),
        (["--lora-modules", "a=1", "b=2", "--enforce-eager"], [["--lora-modules", "a=1", "b=2"]]),
        (["--max-num-seqs", "8", "-q", "awq"], [["-q", "awq"]]),
        (
            ["--hf-overrides.rope_scaling.factor", "-2"],
            [["--hf-overrides.rope_scaling.factor", "-2"]],
        ),
        (['--hf-overrides={"a_b": "c=d"}'], [["--hf-overrides", '{"a_b": "c=d"}']]),
        (
            ["--kv-cache-dtype", "fp8", "--generation-config=auto", "--tokenizer", "t"],
            [["--kv-cache-dtype", "fp8"], ["--generation-config", "auto"], ["--tokenizer", "t"]],
        ),
    ],
)
def test_arguments_that_change_answers_are_in_it_in_either_form(
    args: list[str], found: list[list[str]]
) -> None:
    assert with_args(*args) == {**PLAIN, "engine_args": found}


@pytest.mark.parametrize(
    "args", [(), ("--enforce-eager",), ("--max-num-seqs", "8", "--gpu-memory-utilization=0.9")]
)
def test_arguments_that_only_change_the_pace_are_not(args: tuple[str, ...]) -> None:
    assert with_args(*args) == PLAIN
