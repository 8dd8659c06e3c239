"""The few numbers of a stage that Kubeflow's UI compares between runs."""

from __future__ import annotations

import math

from moaa.declaration import Declaration
from moaa.recipe.schema import Part
from moaa.report.figures import figures
from moaa.stage import Context, stage
from moaa.task import Task
from tests.support.memory_store import MemoryStore
from tests.support.paths import DEMO

RATE = {"model": "sft", "against": "base", "rate": 0.5, "low": 0.25, "high": 0.75, "n": 8}


def test_a_training_says_where_it_ended() -> None:
    curve = [
        {"step": 1, "loss": 2.0},
        {"step": 2, "loss": 0.5, "rewards/margins": 0.1, "rewards/accuracies": 1.0},
    ]
    assert figures({"curve": curve, "steps": 2, "tokens": 90}) == {
        "loss": 0.5,
        "rewards/margins": 0.1,
        "rewards/accuracies": 1.0,
        "steps": 2.0,
        "tokens": 90.0,
    }
    assert figures({"curve": [{"loss": math.nan}], "steps": 2, "tokens": None}) == {"steps": 2.0}


def test_an_evaluation_says_its_win_rates_with_their_intervals_dpo_first() -> None:
    found = figures({"win_rates": [RATE, {**RATE, "model": "dpo", "rate": 0.625}]})
    assert next(iter(found.items())) == ("dpo win rate", 0.625)
    assert found["sft win rate high"] == 0.75
    assert found["prompts judged"] == 8


def test_a_component_gets_them_whether_the_result_is_new_or_was_there(monkeypatch) -> None:
    store = MemoryStore("s3://moaa/demo")
    monkeypatch.setattr("moaa.stage.Store.of", lambda config, **more: store)

    @stage(
        Declaration(name="scored", purpose="", entry="", kind="numbers"), part=lambda recipe: Part()
    )
    def scored(part: Part, context: Context) -> None:
        context.facts.update(win_rates=[RATE])

    for _ in range(2):
        told: dict[str, float] = {}
        scored.main(Task(DEMO.read_text(), "r1"), metric=told.__setitem__)
        assert told["sft win rate"] == 0.5


def test_names_differ_in_what_the_ui_shows_of_them() -> None:
    """Kubeflow's comparison cuts a name after some 20 characters; before, three were the same."""
    found = figures({"win_rates": [RATE, {**RATE, "model": "dpo"}]})
    assert len({name[:20] for name in found}) == len(found) == 7


def test_held_out_rows_are_told_before_and_after_a_training() -> None:
    measured = [
        {"step": 0, "loss": 0.69, "rewards/accuracies": 0.0, "rewards/margins": 0.0},
        {"step": 4, "loss": 0.5, "rewards/accuracies": 0.75, "rewards/margins": 0.2},
    ]
    assert figures({"validation": {"curve": measured}}) == {
        "before, held-out loss": 0.69,
        "held-out loss": 0.5,
        "held-out accuracy": 0.75,
        "held-out margin": 0.2,
    }
