"""A stage: computed once for the same inputs, committed once."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from moaa import records
from moaa.artifacts import Artifact
from moaa.asking import loop
from moaa.declaration import Declaration
from moaa.errors import MoaaError
from moaa.ledger import Ledger
from moaa.lifeline import stoppable
from moaa.recipe.schema import Part
from moaa.stage import Context, Stage, stage
from moaa.stages.dpo import dpo
from moaa.stages.evaluate import evaluate
from moaa.stages.generate import generate
from moaa.stages.label import label
from moaa.stages.prompts import prompts
from moaa.stages.sample import sample
from moaa.stages.sft import sft
from moaa.task import Task
from tests.support.changing import recipe
from tests.support.memory_store import MemoryStore
from tests.support.paths import DEMO

COUNT = Declaration(name="count", purpose="", entry="", kind="numbers")
STAGES = (prompts, generate, sft, sample, label, dpo, evaluate)


class NumberPart(Part):
    beta: float


def counting(calls: list[float]) -> Stage[NumberPart]:
    @stage(COUNT, part=lambda recipe: NumberPart(beta=recipe.dpo.beta))
    def count(part: NumberPart, context: Context) -> None:
        calls.append(part.beta)
        context.ledger.rows["kept"] += 1
        context.out.write({"id": "1", "beta": part.beta})

    return count


def test_same_inputs_are_computed_once() -> None:
    store = MemoryStore()
    calls: list[Any] = []
    count = counting(calls)
    first, reused = count.run(recipe(), store, {})
    again, reused_again = count.run(recipe(), store, {})
    assert (reused, reused_again) == (False, True)
    assert calls == [0.05]
    assert first == again
    assert first.ledger["rows"] == {"kept": 1}
    assert list(Artifact.open(store, first.uri).rows()) == [{"id": "1", "beta": 0.05}]


@pytest.mark.parametrize("waits", ["in a call", "in a loop"])
def test_a_stage_that_was_overtaken_stops_and_uses_the_other_result(
    waits: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moaa.artifacts.owner.BEAT_S", 0.01)
    store = MemoryStore()
    others, _ = counting([]).run(recipe(), store, {})
    result = store.objects.pop(f"{others.uri}/manifest.json")

    @stage(COUNT, part=lambda recipe: NumberPart(beta=recipe.dpo.beta))
    def slow(part: NumberPart, context: Context) -> None:
        store.put(f"{others.uri}/journal/mine.json", b"{}")
        store.put(f"{others.uri}/owner/000002.json", b'{"who": "run b"}')
        store.put(f"{others.uri}/manifest.json", result)
        if waits == "in a call":
            time.sleep(60)
        else:
            loop.run(asyncio.sleep(60))
        raise AssertionError("it was not stopped")

    with stoppable() as stop:
        manifest, reused = slow.run(recipe(), store, {})
        assert not stop.asked, "its record would say terminated"
    assert (manifest, reused) == (others, True)
    assert not any("/journal/" in uri for uri in store.objects)


def test_a_failed_stage_leaves_no_result() -> None:
    store = MemoryStore()

    @stage(COUNT, part=lambda recipe: NumberPart(beta=1))
    def breaks(part: NumberPart, context: Context) -> None:
        context.out.write({"id": "1"})
        context.ledger.rejected["bad"] += 1
        raise MoaaError("no more")

    ledger = Ledger()
    with pytest.raises(MoaaError, match="no more"):
        breaks.run(recipe(), store, {}, ledger)
    assert not [uri for uri in store.objects if uri.endswith("manifest.json")]
    assert ledger.rejected == {"bad": 1}


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        ("dpo.beta=0.1", {"dpo"}),
        ("sft.epochs=1", {"sft"}),
        ("sample.sampling.n=3", {"sample"}),
        ("label.min_margin=0.5", {"label"}),
        ("evaluate.sampling.max_tokens=48", {"evaluate"}),
        ("generate.mixture.layers=3", {"generate"}),
        ("generate.cut_answers=keep", {"generate"}),
        ("label.cut_answers=keep", {"label"}),
        ("generate.mixture.instruction=Answer better.", {"generate"}),
        ("models.smollm2.max_model_len=2048", {"generate", "sample", "label", "evaluate"}),
        (
            "models.smollm2.endpoint={url: http://host/v1, model: other}",
            {"generate", "sample", "label", "evaluate"},
        ),
        ("models.smollm2.endpoint={url: http://host/v1}", set()),
        (
            "models.smollm2.engine_args=[--chat-template, x.jinja]",
            {"generate", "sft", "sample", "label", "dpo", "evaluate"},
        ),
        ("models.smollm2.engine_args=[--max-num-seqs, '8']", set()),
        ("runtime.calls.window=3", set()),
        ("models.smollm2.replicas=2", set()),
        ("name=other", set()),
    ],
)
def test_a_field_changes_the_stages_that_see_it_and_no_other(
    change: str, changed: set[str]
) -> None:
    all_stages: tuple[Any, ...] = STAGES  # each has a part of its own type

    def fingerprints(*sets: str) -> dict[str, str]:
        loaded = recipe(*sets)
        return {each.name: each.fingerprint(each.part_of(loaded), {}) for each in all_stages}

    before, after = fingerprints(), fingerprints(change)
    assert {name for name in before if before[name] != after[name]} == changed


def test_inputs_and_schema_version_are_part_of_the_fingerprint() -> None:
    store = MemoryStore()
    count = counting([])
    one = Artifact.open(store, count.run(recipe(), store, {})[0].uri)
    two = Artifact.open(store, count.run(recipe("dpo.beta=0.2"), store, {})[0].uri)
    part = NumberPart(beta=1)
    newer = Stage(COUNT, 2, count.part_of, count.compute)
    assert (
        len(
            {
                count.fingerprint(part, {}),
                count.fingerprint(part, {"a": one}),
                count.fingerprint(part, {"a": two}),
                count.fingerprint(part, {"b": one}),
                newer.fingerprint(part, {}),
            }
        )
        == 5
    )


def test_a_journal_that_cannot_be_deleted_does_not_undo_the_result(
    caplog: pytest.LogCaptureFixture,
) -> None:
    memory = MemoryStore()

    @stage(COUNT, part=lambda recipe: NumberPart(beta=1))
    def leaves_a_journal(part: NumberPart, context: Context) -> None:
        memory.put(f"{context.out.uri}/journal/rows/1", b"")
        memory.fail_deletes = 1

    manifest, reused = leaves_a_journal.run(recipe(), memory, {})
    assert not reused
    assert Artifact.open(memory, manifest.uri).manifest == manifest
    assert "journal is no longer needed, but was not deleted" in caplog.text


def test_a_missing_input_says_what_to_do(
    store: MemoryStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        counting([]).main(Task(DEMO.read_text(), "run-4"), inputs={"data": str(tmp_path / "gone")})
    assert "input 'data': there is no manifest" in capsys.readouterr().err
    assert json.dumps(records.read(store, "run-4")[0]["error"]).count("caching off") == 1
