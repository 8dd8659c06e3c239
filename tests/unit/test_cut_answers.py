"""An answer that max_tokens cut is known as cut, from the reply to the pair."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest

from moaa.artifacts import Artifact, Draft, Output
from moaa.errors import TooManyRejected
from moaa.ledger import Ledger
from moaa.recipe.load import load_file
from moaa.stages import sample as sample_stage
from moaa.stages.generate import generate
from moaa.stages.label import ONLY_CUT, label
from moaa.stages.sample import sample
from tests.support.engine_answers import Body, by_aggregator
from tests.support.engine_server import EngineServer
from tests.support.memory_store import MemoryStore
from tests.support.paths import DEMO

ALL_ROWS = "runtime.max_rejected_share=1"
CUT = "answer cut"


def artifact(store: MemoryStore, name: str, table: str, rows: list[dict[str, Any]]) -> Artifact:
    with Output(store, f"{store.root}/{name}/x", "any") as out:
        for row in rows:
            out.write({"source": "s", **row}, table=table)
        return Artifact(store, out.commit(Draft(stage=name, name="n", fingerprint=name)))


def prompts(store: MemoryStore, table: str, *turns: list[str]) -> Artifact:
    rows = [{"id": str(i), "system": None, "turns": each} for i, each in enumerate(turns)]
    return artifact(store, "prompts", table, rows)


def asked(body: Body) -> str:
    return str(body["messages"][-1]["content"])


def generated(*sets: str) -> tuple[Artifact, EngineServer]:
    """Two conversations of two turns; the aggregator's first answer to the second one is cut, and
    every proposal of `concise`."""
    store = MemoryStore()
    with EngineServer("smollm2") as server:
        server.ends = lambda body: (
            "length"
            if (by_aggregator(body) and asked(body) == "long")
            or "precise" in body["messages"][0]["content"]
            else "stop"
        )
        url = f"models.smollm2.endpoint={{url: '{server.url}'}}"
        recipe = load_file(DEMO, [url, *sets]).recipe
        given = {"prompts": prompts(store, "sft", ["short", "more"], ["long", "and then"])}
        manifest, _ = generate.run(recipe, store, given)
    return Artifact(store, manifest), server


def test_a_conversation_with_a_cut_answer_is_no_sft_data_and_is_counted() -> None:
    found, server = generated(ALL_ROWS)
    assert [row["id"] for row in found.rows()] == ["0"]
    (rejected,) = found.rows("rejected")
    assert (rejected["id"], rejected["reason"]) == ("1", CUT)
    assert "turn 1 of 2" in rejected["detail"]
    assert "max_tokens" in rejected["detail"]
    assert found.manifest.ledger["rejected"] == {CUT: 1}
    assert "and then" not in map(asked, server.requests), "later turns are not paid"


def test_cut_answers_count_against_the_limit_on_rejections() -> None:
    with pytest.raises(TooManyRejected, match=CUT):
        generated("runtime.max_rejected_share=0.02")


def test_kept_cut_answers_are_known_by_their_finish_reason() -> None:
    found, _ = generated("generate.cut_answers=keep")
    assert {
        row["id"]: [turn["finish_reason"] for turn in row["turns"]] for row in found.rows()
    } == {
        "0": ["stop", "stop"],
        "1": ["length", "stop"],
    }
    assert found.manifest.ledger["rows"]["cut turns"] == 1


def test_cut_proposals_are_used_and_counted() -> None:
    found, _ = generated(ALL_ROWS)
    assert found.manifest.ledger["events"] == {"cut at max_tokens: concise": 2}


def sampled(
    monkeypatch: pytest.MonkeyPatch, server: EngineServer, turns: list[str], *sets: str
) -> Artifact:
    monkeypatch.setattr(sample_stage, "tuned", lambda target, name, artifact: (name, target))
    store = MemoryStore()
    url = f"models.smollm2.endpoint={{url: '{server.url}'}}"
    recipe = load_file(DEMO, [url, "sample.sampling.n=3", *sets]).recipe
    given = {"prompts": prompts(store, "preference", turns), "sft": artifact(store, "sft", "", [])}
    manifest, _ = sample.run(recipe, store, given)
    return Artifact(store, manifest)


def test_a_sample_that_was_cut_and_an_earlier_one_are_known_as_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with EngineServer("smollm2") as server:
        server.ends = lambda body: "length"
        (row,) = sampled(monkeypatch, server, ["one", "two"]).rows()
    assert [each["finish_reason"] for each in row["samples"]] == ["length"] * 3
    assert row["cut_turns"] == 1


def test_an_earlier_answer_without_text_rejects_the_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    with EngineServer("smollm2") as server:
        server.say = lambda body: "" if asked(body) == "one" else None
        found = sampled(monkeypatch, server, ["one", "two"], ALL_ROWS)
    (rejected,) = found.rows("rejected")
    assert rejected["reason"] == "earlier answer: empty"


def labelled(*finish_reasons: str, sets: tuple[str, ...] = ()) -> tuple[Artifact, EngineServer]:
    """Answers `answer 0`, `answer 1`, …, of which the earlier one is always better."""
    store = MemoryStore()
    samples = [
        {"text": f"answer {i}", "count": 1, "finish_reason": reason}
        for i, reason in enumerate(finish_reasons)
    ]
    row = {
        "id": "0",
        "messages": [{"role": "user", "content": "q"}],
        "samples": samples,
        "cut_turns": 0,
    }

    def says(body: Body) -> str | None:
        allowed = (body.get("structured_outputs") or {}).get("choice") or [""]
        if allowed[0] != "A":
            return None
        places = {asked(body).find(f"answer {i}\n"): i for i in range(len(samples))}
        first, second = (places[at] for at in sorted(places) if at >= 0)
        return "A" if first < second else "B"

    with EngineServer("smollm2") as server:
        server.say = says
        url = f"models.smollm2.endpoint={{url: '{server.url}'}}"
        recipe = load_file(DEMO, [ALL_ROWS, url, *sets]).recipe
        given = {"samples": artifact(store, "samples", "data", [row])}
        manifest, _ = label.run(recipe, store, given, Ledger())
    return Artifact(store, manifest), server


@pytest.mark.parametrize(
    ("finish_reasons", "sets", "pair"),
    [
        (("length", "stop", "stop"), (), (1, False, 2, False)),
        (("stop", "stop", "length"), (), (0, False, 2, True)),
        (("length", "stop", "length"), (), (1, False, 2, True)),
        (("length", "stop", "stop"), ("label.cut_answers=keep",), (0, True, 2, False)),
    ],
)
def test_a_cut_answer_is_rejected_but_not_chosen(
    finish_reasons: tuple[str, ...], sets: tuple[str, ...], pair: tuple[int, bool, int, bool]
) -> None:
    found, _ = labelled(*finish_reasons, sets=sets)
    (row,) = found.rows()
    names = ("chosen_index", "chosen_cut", "rejected_index", "rejected_cut")
    assert tuple(row[name] for name in names) == pair


def test_a_prompt_whose_only_whole_answer_is_the_worst_gives_no_pair_and_is_counted() -> None:
    found, _ = labelled("length", "length", "stop")
    assert list(found.rows()) == []
    assert found.manifest.ledger["events"][ONLY_CUT] == 1


def test_a_prompt_of_which_every_answer_is_cut_is_not_judged() -> None:
    found, server = labelled("length", "length")
    (rejected,) = found.rows("rejected")
    assert rejected["reason"] == "every answer cut"
    assert server.count == 0


@pytest.mark.parametrize("stage", ["generate", "label"])
def test_reject_is_the_default(stage: str) -> None:
    part = import_module(f"moaa.stages.{stage}").part_of(load_file(DEMO).recipe)
    assert part.cut_answers == "reject"
