"""A fault of moaa's own in one benchmark fails that benchmark; the others have their scores."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from moaa.artifacts import Artifact
from moaa.artifacts.table import Row
from moaa.benchmarks.benchmark import Match, Played, Score
from moaa.benchmarks.harness import Doc, Marks
from moaa.benchmarks.items import Item
from moaa.benchmarks.table import BENCHMARKS
from moaa.chat.message import Ask
from moaa.errors import ClusterError
from moaa.stages.batches import UNEXPECTED, Batch, Kept, judgement_gaps
from tests.support.engine_server import EngineServer
from tests.support.evaluated import MODELS, evaluated
from tests.support.memory_store import MemoryStore
from tests.support.spelling import Spelling

WORDS = [f"Say {number}." for number in range(6)]


class Unread(Spelling):
    """Cannot be read."""

    def items(self, rows: Iterable[Row]) -> list[Item]:
        """Raises an error that nobody expects."""
        raise ZeroDivisionError("a fault")


class Unmarked(Spelling):
    """One answer cannot be marked."""

    def marks(self, doc: Doc, text: str) -> Marks:
        """Raises an error that nobody expects."""
        if doc["question"] == WORDS[-1]:
            raise KeyError("a fault")
        return super().marks(doc, text)


class Unscored(Spelling):
    """Has no scores."""

    def scores(self, played: Played) -> list[Score]:
        """Raises what a regression without a solution raises."""
        raise ArithmeticError("a fault")


class Gone(Spelling):
    """Needs a cluster that is away."""

    async def judge_match(self, match: Match, ask: Ask) -> Row:
        """Raises an error that a user can act on."""
        raise ClusterError("the cluster is away")


def played(
    kind: type[Spelling],
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    store: MemoryStore | None = None,
) -> tuple[Artifact, int]:
    """The evaluation, and how many of its questions were asked."""
    monkeypatch.setitem(BENCHMARKS, "gsm8k", kind)
    data = folder / "data.jsonl"
    data.write_text("\n".join(json.dumps({"question": each}) for each in WORDS))
    with EngineServer(*MODELS) as server:
        setting = f"evaluate.benchmarks.gsm8k={{data: [{{source: '{data}'}}]}}"
        found = evaluated(server, monkeypatch, setting, store=store)
        asked = [body["messages"][-1]["content"] in WORDS for body in server.requests]
    return found, sum(asked)


def facts_of(found: Artifact) -> dict[str, Any]:
    benchmarks = found.manifest.facts["benchmarks"]
    assert [rate["n"] for rate in found.manifest.facts["win_rates"]] == [2, 2, 2], "head to head"
    facts: dict[str, Any] = benchmarks["gsm8k"]
    return facts


def test_a_benchmark_that_cannot_be_read_fails_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    facts = facts_of(played(Unread, monkeypatch, tmp_path)[0])
    assert facts["failed"].startswith("its questions cannot be read: unexpected ZeroDivisionError")
    assert facts["scores"] == []
    assert "raise ZeroDivisionError" in caplog.text, "the traceback is in the log"


def test_an_answer_that_cannot_be_marked_fails_its_entrant_and_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = MemoryStore()
    found, asked = played(Unmarked, monkeypatch, tmp_path, store)
    facts = facts_of(found)
    assert asked == 3 * len(WORDS)
    assert set(facts["failures"]) == {"base", "sft", "dpo"}
    assert "unexpected KeyError: 'a fault'" in facts["failures"]["dpo"]
    assert (facts["failed"], facts["scores"]) == ("nothing could be judged", [])
    assert UNEXPECTED in {row["reason"] for row in found.rows("rejected")}
    assert caplog.text.count('raise KeyError("a fault")') == 3, "once for each entrant"
    found, asked = played(Spelling, monkeypatch, tmp_path, store)  # it is corrected
    assert asked == 0, "answers are kept"
    facts = facts_of(found)
    assert (facts["failed"], facts["failures"]) == ("", {})
    assert {score["n"] for score in facts["scores"] if score["main"]} == {len(WORDS)}


def test_scores_that_cannot_be_computed_fail_their_benchmark_after_all_is_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found, _ = played(Unscored, monkeypatch, tmp_path)
    facts = facts_of(found)
    assert facts["failed"].startswith("its scores cannot be computed: unexpected ArithmeticError")
    assert len(list(found.rows("marks"))) == 3 * len(WORDS)
    assert "raise ArithmeticError" in caplog.text


def test_an_error_that_is_not_about_the_benchmark_ends_the_stage(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(ClusterError, match="the cluster is away"):
        played(Gone, monkeypatch, tmp_path)


def test_a_judgement_that_was_lost_with_its_answer_is_asked_for_again() -> None:
    """An attempt that goes on asks again for the answer, so there may be one to judge."""
    batch = Batch("judgements", "b", ("dpo", "base"), [], ("0", "1"), 0.5, judgement_gaps)
    lost = {"rejected": {"reason": "no answer of dpo", "detail": UNEXPECTED}}
    finished: dict[str, Any] = {batch.unit("0"): lost, batch.unit("1"): {"row": {"p": 0.5}}}
    assert batch.take_up(finished) == {batch.unit("0")}
    assert batch.records == {"1": {"row": {"p": 0.5}}}


def test_saved_judgements_that_cannot_be_read_do_not_end_an_evaluation() -> None:
    """They are asked for again, and the damaged ones stay where they are."""
    store = MemoryStore()
    batch = Batch("judgements", "b", ("dpo",), [], ("0",), 0.5, judgement_gaps)
    store.put(f"{store.root}/evaluation/judgements/{batch.fingerprint}/manifest.json", b"{")
    kept = Kept(store)
    assert not kept.find(batch)
    batch.keep("0", {"p": 0.5})
    kept.keep(batch, "demo")
