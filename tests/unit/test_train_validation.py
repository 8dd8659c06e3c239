"""What is kept of the measurements on held-out rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moaa.errors import RecipeError
from moaa.recipe.load import load_file
from moaa.recipe.schema import Sft, StoreAddress
from moaa.train.best import Best
from moaa.train.data import Prepared
from moaa.train.job import Job
from moaa.train.ranks import Ranks
from moaa.train.validation import Validation
from tests.support.memory_store import MemoryStore
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


def test_the_best_weights_outlive_the_attempt_that_made_them(tmp_path: Path) -> None:
    """Before, a training that was stopped after its best step ended with worse weights."""
    store = MemoryStore("s3://o")

    def attempt(name: str) -> Validation:
        folder = tmp_path / name
        mine = validation(folder, "best", [])
        mine.kept, mine.ranks = Best(store, "s3://o/sft/1"), Ranks(0, 1, 0, 1)
        return mine

    def saved(weights: bytes) -> Callable[[str], None]:
        def save(folder: str) -> None:
            Path(folder).mkdir(parents=True, exist_ok=True)
            Path(folder, "model.safetensors").write_bytes(weights)
            Path(folder, "training_args.bin").write_bytes(b"a pickle")

        return save

    first = attempt("first")
    for entry, weights in zip((LOG[0], LOG[2]), (b"before", b"best"), strict=True):
        first.save = saved(weights)
        first.measured(entry["step"], entry)
    assert len([name for name in store.objects if name.endswith("manifest.json")]) == 1
    second = attempt("second")
    second.restore()
    assert (second.best_step, second.best_loss) == (4, 1.12346)
    best = second.best_model()
    assert best
    assert [path.name for path in best.iterdir()] == ["model.safetensors"]
    assert (best / "model.safetensors").read_bytes() == b"best"
    second.save = saved(b"worse")
    second.measured(8, LOG[-1])
    assert second.facts(LOG)["validation"]["kept_step"] == 4
    assert second.facts(LOG)["validation"]["lost_step"] is None


@pytest.mark.parametrize("harm", ["changed", "no manifest", "a pickle"])
def test_best_weights_that_are_not_as_written_are_not_taken(tmp_path: Path, harm: str) -> None:
    store, folder = MemoryStore("s3://o"), tmp_path / "best"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    kept = Best(store, "s3://o/sft/1")
    kept.keep(folder, 4, 1.5)
    (manifest,) = [name for name in store.objects if name.endswith("manifest.json")]
    weights = manifest.replace("manifest.json", "model.safetensors")
    if harm == "changed":
        store.objects[weights] = b"others!"
    elif harm == "no manifest":
        store.objects[manifest] = b"{"
    else:
        store.objects[manifest] = store.objects[manifest].replace(b"safetensors", b"bin")
        store.objects[weights.replace("safetensors", "bin")] = b"weights"
    assert kept.restore(tmp_path / "other") is None
    assert not (tmp_path / "other").exists()


def test_the_best_needs_rows_to_be_measured_on() -> None:
    with pytest.raises(RecipeError, match="set `validation`"):
        load_file(DEMO, ["dpo.keep=best"])
    assert load_file(DEMO, ["dpo.keep=best", "dpo.validation=0.1"]).recipe.dpo.keep == "best"


def test_a_training_without_held_out_rows_has_the_fingerprint_of_earlier_versions() -> None:
    assert not {"validation", "keep"} & Sft().model_dump().keys()
    assert Sft(validation=0.1).model_dump()["validation"] == 0.1
