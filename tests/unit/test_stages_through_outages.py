"""Every kind of stage survives a quarter of an hour without S3, whenever that begins."""

from __future__ import annotations

import json
from datetime import datetime, tzinfo
from importlib import import_module
from pathlib import Path
from typing import Any, Self, get_args

import pytest

from moaa import records
from moaa.artifacts import Artifact, Draft, Output, owner
from moaa.errors import OUTSIDE, StoreAway
from moaa.ledger import Ledger
from moaa.recipe.load import load_file
from moaa.recipe.schema import Sft, StoreAddress
from moaa.records import Record
from moaa.stages import report
from moaa.stages.generate import generate
from moaa.stages.prompts import prompts
from moaa.stages.table import GENERATE
from moaa.task import Task
from moaa.train import publish
from moaa.train.job import Job
from moaa.train.publish import Finished
from tests.support import memory_s3
from tests.support.engine_answers import Body
from tests.support.engine_server import EngineServer
from tests.support.memory_s3 import MemoryS3, Trouble
from tests.support.paths import DEMO

AWAY_S = 15 * 60
PROMPTS = 12
LONGER_S = 60 * 60
TROUBLES: tuple[Trouble, ...] = get_args(Trouble)


def again(s3: MemoryS3, trouble: Trouble, after: int, away_s: float = AWAY_S) -> None:
    """An empty store, which goes away after so many requests."""
    s3.__init__()  # type: ignore[misc]  # the same object: it is installed
    s3.trouble, s3.away_after, s3.away_s = trouble, after, away_s


def committed(manifest: Any) -> list[list[dict[str, Any]]]:
    found = Artifact.open(memory_s3.store(), manifest.uri)
    return [list(found.rows(table)) for table in sorted(manifest.rows)]


@pytest.mark.parametrize("trouble", TROUBLES)
def test_prompts_are_committed_once_whenever_the_store_goes_away(
    s3: MemoryS3, trouble: Trouble, tmp_path: Path
) -> None:
    """Each request may be the first that fails: the owner's note, a shard, the manifest."""
    sets = []
    for name in ("sft", "preference", "evaluation"):
        rows = [{"prompt": f"What is {name} {word}?"} for word in ("one", "two", "three")]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
        sets.append(f"prompts.{name}=[{{source: '{tmp_path}/{name}.jsonl'}}]")
    recipe = load_file(DEMO, sets).recipe
    manifest, _ = prompts.run(recipe, memory_s3.store(), {})
    requests, expected = s3.requests, committed(manifest)
    for after in range(requests):
        again(s3, trouble, after)
        manifest, reused = prompts.run(recipe, memory_s3.store(), {})
        assert s3.failed, "the outage was not met"
        assert s3.now >= AWAY_S
        assert not reused
        assert committed(manifest) == expected
        left = {key.split("/")[3] for _, key in s3.objects}
        assert left == {"manifest.json", *{f.path.split("/")[0] for f in manifest.files}}


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize("when", ["first answer", "30th answer", "commit"])
def test_nothing_that_was_answered_is_asked_again(
    s3: MemoryS3, trouble: Trouble, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes away while the engine answers, or when the result is committed."""
    s3.trouble = trouble
    with EngineServer("smollm2") as server:
        server.answers_probes = True
        if when == "commit":
            before_commit(monkeypatch, s3, AWAY_S)
        else:

            def say(body: Body) -> None:
                begins = {"first answer": 1, "30th answer": 30}[when]
                if server.count >= begins and s3.away_after is None:
                    s3.away_after, s3.away_s = s3.requests, AWAY_S

            server.say = say
        recipe = load_file(DEMO, [f"models.smollm2.endpoint={{url: '{server.url}'}}"]).recipe
        manifest, _ = generate.run(recipe, memory_s3.store(), some_prompts(), Ledger())
        assert s3.failed
        assert s3.now >= AWAY_S
        assert len(committed(manifest)[0]) == PROMPTS
        assert server.count == PROMPTS * 4, "a call was paid twice"


def before_commit(monkeypatch: pytest.MonkeyPatch, s3: MemoryS3, away_s: float) -> None:
    commit = Output.commit

    def late(self: Output, draft: Draft) -> Any:
        if draft.stage == "generate" and not s3.failed:
            s3.away_after, s3.away_s = s3.requests, away_s
        return commit(self, draft)

    monkeypatch.setattr(Output, "commit", late)


def some_prompts() -> dict[str, Artifact]:
    store = memory_s3.store()
    with Output(store, f"{store.root}/prompts/x", "prompts") as out:
        for number in range(PROMPTS):
            row = {"id": str(number), "source": "s", "system": None, "turns": [f"q{number}"]}
            out.write(row, table="sft")
        made = out.commit(Draft(stage="prompts", name="n", fingerprint="x"))
        return {"prompts": Artifact(store, made)}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_trained_model_is_uploaded_whenever_the_store_goes_away(
    s3: MemoryS3, trouble: Trouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOAA_CACHE", str(tmp_path))
    job = Job(
        kind="sft",
        numbers=Sft(),
        base="b",
        data="s3://moaa/d",
        output="s3://moaa/demo/sft/3f",
        store=StoreAddress(root="s3://moaa/demo"),
    )

    def upload() -> dict[str, Any]:
        finished = Finished.new(job)
        finished.model.mkdir(parents=True)
        for name in ("model.safetensors", "config.json"):
            (finished.model / name).write_bytes(name.encode())
        finished.keep({"rows": 8})
        publish.publish(job, memory_s3.store(), finished)
        assert not finished.folder.exists()
        result: dict[str, Any] = json.loads(memory_s3.store().get(job.result))
        return result

    upload()
    requests = s3.requests - 1
    for after in range(requests):
        again(s3, trouble, after)
        result = upload()
        assert s3.failed
        assert s3.now >= AWAY_S
        names = {file["name"]: file["key"] for file in result["files"]}
        assert set(names) == {"model.safetensors", "config.json"}
        for name, key in names.items():
            assert s3.objects["moaa", f"demo/sft/3f/{key}"] == name.encode()


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_report_is_made_whenever_the_store_goes_away(
    s3: MemoryS3, trouble: Trouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, a store that was away as the report began was no outside fault: no report at all."""

    class Noon(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return cls(2026, 1, 1, 12, tzinfo=tz)

    # A page says when it was made. (`moaa.report.page` is also the name of a function.)
    monkeypatch.setattr(import_module("moaa.report.page"), "datetime", Noon)

    def make() -> None:
        write_record()
        report.main(Task(load_file(DEMO).text, "run"), str(tmp_path / "page.html"))

    make()
    expected = (tmp_path / "page.html").read_bytes()
    for after in range(1, s3.requests):  # the first one writes the record
        again(s3, trouble, after)
        make()
        assert s3.failed
        assert s3.now >= AWAY_S
        assert (tmp_path / "page.html").read_bytes() == expected
        assert s3.objects["moaa", "demo/runs/run/report.html"] == expected


def write_record() -> None:
    record = Record(
        run_id="run",
        stage=GENERATE.name,
        status="failed",
        started="2026-01-01T00:00:00+00:00",
        ended="2026-01-01T00:01:00+00:00",
        seconds=60.0,
        manifest=None,
        error={"type": "MoaaError", "message": "no more"},
        ledger={},
    )
    memory_s3.store().put("s3://moaa/demo/runs/run/generate.json", records.to_json(record))


def test_after_longer_the_stage_ends_and_the_next_attempt_asks_nothing_again(
    s3: MemoryS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, "END_S", 0.1)
    monkeypatch.setattr(owner, "STANDS_STILL_S", 0.1)
    monkeypatch.setattr(owner, "LOOK_S", 0.05)
    before_commit(monkeypatch, s3, LONGER_S)
    with EngineServer("smollm2") as server:
        server.answers_probes = True
        recipe = load_file(DEMO, [f"models.smollm2.endpoint={{url: '{server.url}'}}"]).recipe
        given = some_prompts()
        with pytest.raises(StoreAway) as ended:
            generate.run(recipe, memory_s3.store(), given, Ledger())
        assert ended.value.exit_status == OUTSIDE
        s3.away_after = None
        manifest, _ = generate.run(recipe, memory_s3.store(), given, Ledger())
        assert len(committed(manifest)[0]) == PROMPTS
        assert server.count == PROMPTS * 4, "an answer of the journal was asked for again"
