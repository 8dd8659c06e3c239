"""The count behind the tests that kill stages is exact: work that was journaled and is asked again
shows, call by call."""

from __future__ import annotations

import pytest

from moaa.artifacts import Artifact, Draft, Output
from moaa.chat.message import Choice, Reply
from moaa.errors import EngineError
from moaa.journal import S3Journal
from moaa.recipe.load import load_file
from moaa.recipe.schema import Recipe
from moaa.stage import Stage
from moaa.stages import sample
from moaa.stages.generate import generate
from moaa.stages.label import label
from tests.support.engine_server import EngineServer, slow, status
from tests.support.memory_store import MemoryStore
from tests.support.paths import DEMO
from tests.support.resuming import calls_in_all, journaled

STAGES: dict[str, Stage] = {"generate": generate, "sample": sample.sample, "label": label}
PROMPTS = 6


@pytest.fixture
def recipe(server: EngineServer) -> Recipe:
    sets = [
        f"models.smollm2.endpoint.url={server.url}",
        "sample.sampling.n=3",
        "runtime.calls={in_flight: 4, window: 3}",
    ]
    return load_file(DEMO, sets).recipe


def made(store: MemoryStore, name: str, **tables: list[dict]) -> Artifact:
    with Output(store, f"{store.root}/{name}/made", name) as out:
        for table, rows in tables.items():
            for row in rows:
                out.write(row, table=table)
        return Artifact(store, out.commit(Draft(stage=name, name="test", fingerprint=name)))


def inputs(name: str, store: MemoryStore) -> dict[str, Artifact]:
    if name == "label":
        answers = [
            {"text": text, "count": 1, "finish_reason": "stop"}
            for text in ("good", "better", "best")
        ]
        rows = [
            {
                "id": str(i),
                "source": "s",
                "messages": [{"role": "user", "content": f"q{i}"}],
                "samples": answers[: 2 + i % 2],
            }
            for i in range(PROMPTS)
        ]
        return {"samples": made(store, "samples", data=rows)}
    prompts = [
        {"id": str(i), "source": "s", "system": None, "turns": [f"q{i}", "more"][: 1 + i % 2]}
        for i in range(PROMPTS)
    ]
    found = {"prompts": made(store, "prompts", sft=prompts, preference=prompts)}
    return found | ({"sft": made(store, "sft")} if name == "sample" else {})


@pytest.mark.parametrize("lost", ["nothing", "rows", "replies"])
@pytest.mark.parametrize("name", STAGES)
def test_an_attempt_asks_what_is_missing_and_more_where_the_journal_lost_something(
    name: str, lost: str, recipe: Recipe, server: EngineServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "tuned", lambda target, model, artifact: (model, target))
    store, stage = MemoryStore(), STAGES[name]
    given = inputs(name, store)
    server.fail(slow(0), times={"generate": 20, "sample": 6, "label": 60}[name])
    server.fail(status(404, "gone"), times=99)
    with pytest.raises(EngineError, match="gone"):
        stage.run(recipe, store, given)
    server.heal()

    uri = f"{store.root}/{name}/{stage.fingerprint(stage.part_of(recipe), given)}"
    found = journaled(store, uri, name, recipe)
    assert found
    gone = [each for each, _ in store.list(f"{uri}/journal/{lost}")]
    store.delete(*gone)
    manifest, _ = stage.run(recipe, store, given)
    asked, every = (
        manifest.ledger["models"]["smollm2"]["calls"],
        calls_in_all(name, recipe, Artifact(store, manifest)),
    )
    assert 0 < asked <= every
    assert asked > every - found if gone else asked == every - found


def test_rejected_rows_are_counted_as_far_as_they_are_known(recipe: Recipe) -> None:
    store = MemoryStore()
    journal = S3Journal(store, "s3://memory/root/x/journal")
    journal.open()
    turns = [
        {"role": "system", "content": ""},
        *[{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}] * 2,
    ]
    journal.record_row("done", {"row": {"messages": turns}})
    journal.record_row("merged", {"rejected": {"reason": sample.TOO_FEW, "detail": ""}})
    journal.record_row("failed", {"rejected": {"reason": "time-out", "detail": ""}})
    journal.record_reply("half done", "key", Reply((Choice("a"),)))
    journal.close()
    assert journaled(store, "s3://memory/root/x", "sample", recipe) == 2 + 1 + 1
    assert journaled(store, "s3://memory/root/x", "generate", recipe) == 2 * (3 + 1) + 1 + 1

    result = made(
        store,
        "generate",
        data=[{"id": "done", "messages": turns}],
        rejected=[{"id": "failed", "turns": ["q"]}],
    )
    assert calls_in_all("generate", recipe, result) == (2 + 1) * (3 + 1)
    result = made(
        store,
        "label",
        judgements=[{"id": "1"}] * 3,
        rejected=[{"id": "2", "samples": [{}, {}, {}]}],
    )
    assert calls_in_all("label", recipe, result) == (3 + 3) * (1 + 2 * (3 + 1))
