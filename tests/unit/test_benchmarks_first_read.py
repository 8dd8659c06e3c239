"""Data whose digest nobody has published: what was read first is noted, and a change is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from moaa.benchmarks import guard
from moaa.benchmarks.alpaca_eval import AlpacaEval
from moaa.benchmarks.data import digest, digest_of
from moaa.benchmarks.first_read import Reading, compared
from moaa.benchmarks.humaneval import HumanEval
from moaa.benchmarks.reward_bench import RewardBench
from moaa.recipe.load import load_file
from moaa.recipe.reasoning import HumanEval as Settings
from moaa.recipe.schema import Source
from tests.support.memory_store import MemoryStore
from tests.support.paths import DEMO

ROW = {"prompt": "Say 1.", "chosen": "1", "rejected": "No.", "subset": "hep-go"}
CODE = {"prompt": "def f():", "test": "def check(c): pass", "entry_point": "f"}


def rows_of(folder: Path, rows: list[dict[str, Any]]) -> str:
    """A file with these rows; the setting that names it."""
    file = folder / "rows.json"
    file.write_text(json.dumps(rows))
    return f"[{{source: '{file}'}}]"


def reading(folder: Path, store: MemoryStore, rows: list[dict[str, Any]]) -> str:
    setting = f"evaluate.benchmarks.reward_bench={{data: {rows_of(folder, rows)}}}"
    recipe = load_file(DEMO, [setting]).recipe
    settings = recipe.evaluate.benchmarks.reward_bench
    assert settings
    items, said = guard.questions(RewardBench(settings, recipe), store)
    assert len(items) == len(rows)
    return said


def test_the_first_reading_is_noted_and_later_ones_are_compared(tmp_path: Path) -> None:
    store = MemoryStore()
    rows = [{"id": number, **ROW} for number in range(3)]
    assert reading(tmp_path, store, rows).endswith("of 3 rows, first read now")
    (address,) = [name for name in store.objects if "/evaluation/sources/" in name]
    noted = json.loads(store.objects[address])
    assert (noted["rows"], len(noted["sha256"])) == (3, 64)
    again = reading(tmp_path, store, rows)
    assert again.startswith("not pinned; sha256 ")
    assert f"as first read on {noted['read'][:10]}" in again
    moved = reading(tmp_path, store, rows[:2])
    assert f"OTHER rows than first read on {noted['read'][:10]}" in moved
    assert noted["sha256"][:16] in moved
    assert json.loads(store.objects[address]) == noted, "the first one stays"


def test_a_store_that_fails_costs_only_the_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from moaa.errors import StoreError

    store = MemoryStore()

    def away(*_: object) -> bool:
        raise StoreError("S3 is away")

    monkeypatch.setattr(store, "put_new", away)
    said = reading(tmp_path, store, [{"id": 1, **ROW}])
    assert "not compared with an earlier reading (S3 is away)" in said


def test_known_questions_are_said_to_be_the_published_ones(tmp_path: Path) -> None:
    rows = [{"task_id": f"HumanEval/{number}", **CODE} for number in range(2)]
    data = rows_of(tmp_path, rows)
    recipe = load_file(DEMO, [f"evaluate.benchmarks.humaneval={{data: {data}}}"]).recipe

    class Known(HumanEval):
        content = digest_of(rows)

    settings = recipe.evaluate.benchmarks.humaneval
    assert isinstance(settings, Settings)
    store = MemoryStore()
    assert guard.questions(Known(settings, recipe), store)[1] == "the published questions"
    assert store.objects == {}
    assert "not pinned" in guard.questions(HumanEval(settings, recipe), store)[1]


def test_difficulties_that_change_are_seen_beside_the_published_questions(tmp_path: Path) -> None:
    """No digest of the questions covers them, and the length-controlled rate depends on them."""
    rows = [{"instruction": f"Say {i}.", "output": f"{i}."} for i in range(3)]
    gamed = [
        {"index": i, "instruction_difficulty": i, "std_delta_len": 0, "preference": 0.5}
        for i in range(3)
    ]
    files = {"questions": tmp_path / "questions.json", "gamed": tmp_path / "df_gamed.json"}
    files["questions"].write_text(json.dumps(rows))
    sources = ", ".join(f"{{source: '{file}'}}" for file in files.values())
    recipe = load_file(DEMO, [f"evaluate.benchmarks.alpaca_eval={{data: [{sources}]}}"]).recipe
    settings = recipe.evaluate.benchmarks.alpaca_eval
    assert settings
    made = AlpacaEval(settings, recipe)

    class Known(AlpacaEval):
        digest = digest(made.items(rows))

    def said(change: float) -> str:
        changed = [{**gamed[0], "preference": change}, *gamed[1:]]
        files["gamed"].write_text(json.dumps(changed))
        return guard.questions(Known(made.settings, recipe), store)[1]

    store = MemoryStore()
    known = "the published questions; instruction_difficulty: not pinned; sha256 "
    assert said(0.5).startswith(known)
    assert said(0.5).count("sha256") == 1, "the questions need no note"
    assert "as first read on" in said(0.5)
    assert "OTHER rows than first read on" in said(0.6)


def test_a_revision_pins_data_without_a_known_digest() -> None:
    store = MemoryStore()
    reading = Reading(Source(source="hub:TIGER-Lab/MMLU-Pro", revision="0123abc"), [{"a": 1}])
    list(reading)
    assert compared([reading], store).startswith("pinned by revision; sha256 ")
