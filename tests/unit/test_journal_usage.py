"""What a stage used is counted over all attempts at it, however they ended: ledger, record and
report say what was served."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import yaml

from moaa import records, report
from moaa.artifacts import Artifact
from moaa.artifacts.table import Row
from moaa.chat.message import Ask
from moaa.journal.usage import Usage
from moaa.ledger import Ledger, ModelUse
from moaa.recipe.schema import Part, Sampling
from moaa.report.page import totals
from moaa.report.tables import cost_usd, plan
from moaa.report.view import RunView
from moaa.stage import Context, stage
from moaa.stages.table import GENERATE, stages
from moaa.task import Task
from tests.support.engine_server import EngineServer, slow, status
from tests.support.memory_store import MemoryStore
from tests.support.paths import DEMO
from tests.support.records import record

ROWS = 12
PROBE = 1
"""What asks whether a server answers at all is no call."""
RECIPE = DEMO.read_text()


@stage(GENERATE, part=lambda recipe: Part())
def two_calls_each(part: Part, context: Context) -> None:
    async def answer(row: Row, ask: Ask) -> Row:
        for turn in range(2):
            await ask(
                "smollm2",
                [{"role": "user", "content": f"{row['id']} {turn}"}],
                Sampling(max_tokens=8),
            )
        return {}

    for row, _ in context.ask_each(
        [{"id": str(n)} for n in range(ROWS)], answer, models=["smollm2"]
    ):
        context.out.write(row)


def attempt(server: EngineServer, store: MemoryStore) -> Any:
    """The record that one more attempt leaves."""
    recipe = yaml.safe_load(RECIPE)
    recipe["models"]["smollm2"]["endpoint"] = {"url": server.url}
    recipe["runtime"]["calls"] = {"in_flight": 1, "window": 1}
    with suppress(SystemExit):
        two_calls_each.main(Task(yaml.safe_dump(recipe), "run"))
    return records.read(store, "run")[0]


def test_a_stage_that_broke_twice_counts_all_that_was_served(
    server: EngineServer, store: MemoryStore
) -> None:
    for answered in (5, 8):
        server.fail(slow(0), times=PROBE + answered)
        server.fail(status(404, "gone"), times=99)
        broken = attempt(server, store)
        assert broken["status"] == "failed"
        assert broken["ledger"]["models"]["smollm2"]["calls"] == answered
        server.heal()
    done = attempt(server, store)
    assert done["status"] == "done"
    assert server.counts["smollm2"] == 2 * ROWS + 3 * PROBE + 2, (
        "two were refused, and broke an attempt each"
    )

    ledger = Ledger.from_json(done["ledger"])
    assert done["manifest"]["ledger"] == done["ledger"]
    assert (ledger.attempts, ledger.earlier["smollm2"].calls) == (3, 5 + 8)
    assert ledger.models["smollm2"].calls == 2 * ROWS - 5 - 8, "the last attempt's own stay known"
    use = ledger.in_all()["smollm2"]
    assert use.calls == 2 * ROWS
    assert use.seconds > ledger.models["smollm2"].seconds

    prices = {"smollm2": {"prompt": 1e6, "completion": 1e6}}
    planned = [{"stage": "generate", "model": "smollm2", "calls": 2 * ROWS}]
    preflight = record("preflight", "done", facts={"prices": prices, "plan": planned})
    run = RunView.of([preflight, done], stages())
    total = totals(run)
    assert total["calls"] == 2 * ROWS
    assert (total["prompt_tokens"], total["completion_tokens"]) == (
        use.prompt_tokens,
        use.completion_tokens,
    )
    assert total["cost"] == cost_usd(run, reused=False) == use.prompt_tokens + use.completion_tokens
    assert plan(run)[0]["counts"]["calls"] == (2 * ROWS, 2 * ROWS)
    assert f", {2 * ROWS} calls, $" in report.summary(run)
    assert "3 attempts" in report.page(run, lambda *_: iter(()))
    last = 2 * ROWS - 5 - 8
    assert f"of all 3 attempts; the last one made {last} calls" in report.stage_markdown(done)
    assert not list(store.list(f"{done['manifest']['uri']}/journal"))
    assert len(list(Artifact.open(store, done["manifest"]["uri"]).rows())) == ROWS

    assert attempt(server, store)["ledger"] == ledger.to_json(), (
        "a result that is reused says what it took"
    )


def test_a_killed_attempt_has_left_what_it_used_until_its_last_flush() -> None:
    store, uri = MemoryStore(), "s3://memory/root/x/journal"
    killed = Ledger(models={"a": ModelUse(calls=3, prompt_tokens=30, seconds=1.5)})
    usage = Usage(store, uri, "one", killed)
    usage.keep()
    killed.model("a").calls += 1
    killed.model("b").calls += 2
    store.fail_puts = 1
    usage.keep()  # the next flush tries again
    assert json.loads(store.get(f"{uri}/usage/one.json"))["a"]["calls"] == 3
    usage.keep()

    after = Ledger(models={"a": ModelUse(calls=10, seconds=1)})
    usage = Usage(store, uri, "two", after)
    usage.read()
    usage.keep()
    usage.read()  # a stage may ask twice: its own use is not that of an earlier attempt
    assert after.attempts == 2
    assert after.in_all() == {
        "a": ModelUse(calls=14, prompt_tokens=30, seconds=2.5),
        "b": ModelUse(calls=2),
    }
    assert Ledger.from_json(json.loads(json.dumps(after.to_json()))) == after


def test_an_attempt_that_asked_nothing_leaves_nothing() -> None:
    store = MemoryStore()
    Usage(store, "s3://memory/root/x/journal", "one", Ledger()).keep()
    assert not store.objects
