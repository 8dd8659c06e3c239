"""What is kept of the measurements on held-out rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from moaa.errors import RecipeError
from moaa.recipe.load import load_file
from moaa.recipe.schema import Sft, StoreAddress
from moaa.train.data import Prepared
from moaa.train.job import Job
from moaa.train.ranks import Ranks
from moaa.train.validation import Validation
from tests.support.paths import DEMO


def validation(folder: Path, keep: str, saved: list[str]) -> Validation:
    numbers = Sft.model_validate({"validation": 0.1, "keep": keep})
    store = StoreAddress(root="s3://b")
    job = Job(kind="sft", numbers=numbers, base="b", data="s3://d", output="s3://o", store=store)
    return Validation(job, Prepared(rows=3), Ranks(1, 2, 1, 2), folder, saved.append)


def measured(step: int, loss: float) -> dict[str, Any]:
    return {"step": step, "eval_loss": loss, "eval_runtime": 1.0}


LOG = [measured(0, 2.0), {"step": 1, "loss": 1.9}, measured(4, 1.123456789), measured(8, 1.5)]


@pytest.mark.parametrize(("keep", "step"), [("best", 4), ("last", None)])
def test_the_weights_with_the_lowest_loss_are_kept_if_wanted(
    tmp_path: Path, keep: str, step: int | None
) -> None:
    saved: list[str] = []
    mine = validation(tmp_path, keep, saved)
    for entry in LOG:
        mine.measured(entry["step"], entry)
    found = mine.facts(LOG)["validation"]
    assert found["curve"] == [
        {"step": 0, "loss": 2.0},
        {"step": 4, "loss": 1.12346},
        {"step": 8, "loss": 1.5},
    ]
    assert (found["rows"], found["kept_step"], found["lost_step"]) == (3, step, None)
    folder = tmp_path / "best"
    assert saved == ([str(folder)] * 2 if step else [])
    assert mine.best_model() == (folder if step else None)


def test_better_weights_of_an_attempt_that_was_stopped_are_said_to_be_lost(tmp_path: Path) -> None:
    mine = validation(tmp_path, "best", [])
    mine.measured(8, LOG[-1])  # the attempt began after step 4
    found = mine.facts(LOG)["validation"]
    assert (found["kept_step"], found["lost_step"]) == (8, 4)


def test_the_best_needs_rows_to_be_measured_on() -> None:
    with pytest.raises(RecipeError, match="set `validation`"):
        load_file(DEMO, ["dpo.keep=best"])
    assert load_file(DEMO, ["dpo.keep=best", "dpo.validation=0.1"]).recipe.dpo.keep == "best"


def test_a_training_without_held_out_rows_has_the_fingerprint_of_earlier_versions() -> None:
    assert not {"validation", "keep"} & Sft().model_dump().keys()
    assert Sft(validation=0.1).model_dump()["validation"] == 0.1
