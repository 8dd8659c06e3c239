"""The recipes that come with moaa: right, and with the numbers of the paper."""

from __future__ import annotations

from pathlib import Path

import pytest

from moaa.recipe.files import MAX_BYTES
from moaa.recipe.load import load_file, load_text
from tests.support.paths import DEMO, EVERY_RECIPE, RECIPES


@pytest.mark.parametrize("path", EVERY_RECIPE, ids=lambda path: path.stem)
def test_shipped_recipes_are_right_and_round_trip(path: Path) -> None:
    loaded = load_file(path)
    assert load_text(loaded.text).recipe == loaded.recipe
    assert loaded.recipe.name == path.stem
    assert len(loaded.text.encode()) < MAX_BYTES / 4


def test_paper_recipes_hold_the_papers_numbers() -> None:
    llama, gemma, small = (
        load_file(RECIPES / f"{name}.yaml").recipe
        for name in ("paper-llama", "paper-gemma", "self-improve")
    )
    assert [llama.models[m.model].source for m in llama.generate.mixture.proposers] == [
        "alpindale/WizardLM-2-8x22B",
        "Qwen/Qwen2-72B-Instruct",
        "google/gemma-2-27b-it",
        "meta-llama/Llama-3.1-70B-Instruct",
    ]
    assert llama.models[llama.generate.mixture.aggregator.model].source == "Qwen/Qwen1.5-110B-Chat"
    assert [m.model for m in llama.label.judge.proposers] == [
        "gemma-2-27b",
        "llama-3-1-70b",
        "qwen2-72b",
    ]
    assert llama.label.judge.aggregator.model == "qwen2-72b"
    assert [s.limit for s in (*llama.prompts.sft, *llama.prompts.preference)] == [
        61_135,
        5_000,
        6_000,
    ]
    for recipe, sft, dpo, epochs in ((llama, 8e-6, 8e-7, 6), (gemma, 8e-6, 3e-7, 5)):
        assert (
            recipe.sft.learning_rate,
            recipe.sft.epochs,
            recipe.sft.global_batch,
            recipe.sft.packing,
        ) == (
            sft,
            epochs,
            128,
            True,
        )
        assert (
            recipe.dpo.learning_rate,
            recipe.dpo.epochs,
            recipe.dpo.global_batch,
            recipe.dpo.beta,
        ) == (dpo, 5, 128, 0.01)
        for training in (recipe.sft, recipe.dpo):
            assert (
                training.scheduler,
                training.warmup,
                training.max_length,
                training.zero_stage,
            ) == ("cosine", 0.1, 4096, 3)
        assert (
            recipe.sample.sampling.n,
            recipe.sample.sampling.temperature,
            recipe.sample.sampling.top_p,
        ) == (5, 0.8, 0.95)
        assert {
            m.sampling.temperature
            for m in (*recipe.label.judge.proposers, recipe.label.judge.aggregator)
        } == {0}
        assert {m.sampling.max_tokens for m in recipe.label.judge.proposers} == {512}
        assert {m.sampling.temperature for m in recipe.generate.mixture.proposers} == {0.7}
    assert gemma.models[gemma.target].source == "google/gemma-2-9b-it"
    assert [small.models[m.model].source for m in small.generate.mixture.proposers] == [
        "google/gemma-2-9b-it",
        "meta-llama/Llama-3.1-8B-Instruct",
        "mistralai/Mistral-7B-Instruct-v0.3",
    ]
    assert small.generate.mixture.aggregator.model == small.target == "gemma-2-9b"


def test_demo_can_be_changed_as_its_readers_are_told_and_keeps_its_sets_apart() -> None:
    recipe = load_file(DEMO).recipe
    assert recipe.dpo.beta != 0.1  # `--set dpo.beta=0.1` must change something
    taken = [
        (source.source, index)
        for sources in (recipe.prompts.sft, recipe.prompts.preference, recipe.prompts.evaluation)
        for source in sources
        for index in range(source.offset, source.offset + (source.limit or 0))
    ]
    assert len(taken) == len(set(taken)) == 8 + 3 + 4
