"""What earlier versions wrote is read, found again and continued (tests/unit/data/earlier)."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from moaa import records
from moaa.artifacts import Artifact
from moaa.journal import S3Journal
from moaa.judge import Judgement
from moaa.ledger import Ledger
from moaa.recipe import Recipe
from moaa.recipe.load import load_file, load_text
from moaa.recipe.schema import Generate
from moaa.stage import Context, Stage
from tests.support.engine_server import EngineServer
from tests.support.memory_store import MemoryStore
from tests.support.resuming import calls_in_all, journaled

EARLIER = Path(__file__).parent / "data" / "earlier"
S3 = EARLIER / "s3"
FINGERPRINTS = {
    "prompts": "cacd24294d41c6d895d74209",
    "generate": "c5bd0ce44e6d810f8a1f3578",
    "sft": "e2478cfd95adc84bf25e7bc6",
    "sample": "3a5089ed9bc23538e4236ebd",
    "label": "51d9719bd563bf93c2aec282",
    "dpo": "a4403bd388926006353c5e9a",
    "evaluate": "7a787f6bb85ddc6e630f5150",
}
CHANGED = {
    "prompts": "more rows are read since schema 3, and answers no longer taken for prompts",
    "generate": "cut answers are no data since schema 3, proposals stand between tags since 4",
    "sft": "cut answers and control texts are trained otherwise since schema 2",
    "sample": "control tokens are neutralised since schema 2",
    "label": "cut answers are not chosen since schema 3, assessments stand between tags since 4",
    "dpo": "cut answers and control texts are trained otherwise since schema 2",
    "evaluate": "missing verdicts are known since schema 3, assessments stand between tags since 4",
}
"""Stages whose result is another one now, and why: the earlier one is not found again."""
SCHEMAS = {"generate": 2, "sample": 1, "label": 2, "evaluate": 2}
"""The schemas of then, of stages of which nothing else has changed in the fingerprint."""
ROWS = {
    "prompts": {"evaluation": 5, "sft": 8, "preference": 3},
    "generate": {"data": 8},
    "sample": {"data": 3},
    "label": {"judgements": 30, "data": 3},
    "evaluate": {"answers": 15, "judgements": 10},
}


@pytest.fixture
def store() -> Any:
    """The store of the earlier run."""
    store = MemoryStore("s3://moaa/demo")
    for path in S3.rglob("*.*"):
        if path.is_file():
            store.objects[f"s3://moaa/{path.relative_to(S3)}"] = path.read_bytes()
    return store


def recipe(*sets: str) -> Recipe:
    return load_file(EARLIER / "recipe.yaml", sets).recipe


def artifact(store: Any, stage: str) -> Artifact:
    return Artifact.open(store, f"s3://moaa/demo/{stage}/{FINGERPRINTS[stage]}")


def stage_of(name: str) -> Stage[Any]:
    found = getattr(import_module(f"moaa.stages.{name}"), name)
    assert isinstance(found, Stage)
    return found


def as_before(name: str) -> Stage[Any]:
    """The stage of today, which takes up what the earlier one left."""
    return replace(stage_of(name), schema=SCHEMAS[name])


def asking_as_before() -> Stage[Any]:
    """Generate, with proposals shown as they were then."""
    found = as_before("generate")

    def compute(part: Generate, context: Context) -> None:
        plain = part.mixture.model_copy(update={"references": "plain"})
        found.compute(part.model_copy(update={"mixture": plain}), context)

    return replace(found, compute=compute)


def inputs(store: Any, stage: str) -> dict[str, Artifact]:
    return {
        parent.name: Artifact.open(store, parent.uri)
        for parent in artifact(store, stage).manifest.parents
    }


@pytest.mark.parametrize("stage", SCHEMAS)
def test_a_stage_that_was_done_has_the_same_fingerprint_and_is_reused(
    store: Any, stage: str
) -> None:
    """But for its schema: a field that the recipe does not use is in no fingerprint."""
    manifest, reused = as_before(stage).run(recipe(), store, inputs(store, stage))
    assert reused
    assert manifest.fingerprint == FINGERPRINTS[stage]
    assert manifest == artifact(store, stage).manifest


@pytest.mark.parametrize("stage", CHANGED)
def test_a_result_that_would_be_another_today_is_not_found_again(store: Any, stage: str) -> None:
    current = stage_of(stage)
    fingerprint = current.fingerprint(current.part_of(recipe()), inputs(store, stage))
    assert fingerprint != FINGERPRINTS[stage]


@pytest.mark.parametrize("stage", ROWS)
def test_every_table_reads_its_rows(store: Any, stage: str) -> None:
    found = artifact(store, stage)
    rows = {table: list(found.rows(table)) for table in ROWS[stage]}
    assert found.manifest.rows == ROWS[stage]
    assert {table: len(read) for table, read in rows.items()} == ROWS[stage]
    assert all(row["id"] for read in rows.values() for row in read)


def test_rows_are_what_was_written(store: Any) -> None:
    row = next(artifact(store, "label").rows())
    assert list(row) == [
        "id", "source", "messages", "chosen", "rejected", "chosen_index", "rejected_index",
        "margin", "wins",
    ]  # fmt: skip
    assert (row["source"], row["messages"][0]["role"]) == ("mt-bench", "user")
    assert row["margin"] == pytest.approx(
        row["wins"][row["chosen_index"]] - row["wins"][row["rejected_index"]]
    )


def test_the_recipe_loads_from_its_file_and_from_its_text() -> None:
    assert load_text((EARLIER / "recipe.yaml").read_text()).recipe == recipe()


def test_the_runs_records_are_read(store: Any) -> None:
    assert [record["stage"] for record in records.read(store, "demo-20261128-145622-b96f")] == [
        "sft",
        "sample",
    ]


def test_a_journal_replays(store: Any) -> None:
    journal = S3Journal(store, f"{artifact(store, 'generate').uri}/journal")
    journal.open()
    journal.close()
    rows = {row["id"] for row in artifact(store, "prompts").rows("sft")}
    assert len(journal.finished) == 2
    assert set(journal.finished) < rows
    for record in journal.finished.values():
        assert list(record["row"]) == ["messages", "turns"]


def test_an_attempt_that_was_stopped_goes_on_and_asks_only_what_is_missing(store: Any) -> None:
    """Journals keep their format. Of the stages, generate can still ask the same questions."""
    uri = artifact(store, "generate").uri
    given = inputs(store, "generate")
    del store.objects[f"{uri}/manifest.json"]
    with EngineServer("smollm2") as server:
        endpoint = recipe(f"models.smollm2.endpoint.url={server.url}")
        found = journaled(store, uri, "generate", endpoint)
        ledger = Ledger()
        manifest, reused = asking_as_before().run(endpoint, store, given, ledger)
    assert found > 20
    assert not reused
    every = calls_in_all("generate", endpoint, Artifact(store, manifest))
    assert ledger.models["smollm2"].calls == every - found


def test_rows_that_were_judged_before_are_read(store: Any) -> None:
    for row in artifact(store, "label").rows("judgements"):
        judgement = Judgement.from_json(row)
        assert judgement.p == pytest.approx(row["p"])
        assert (judgement.lost, judgement.asked_again) == ((), 0)
