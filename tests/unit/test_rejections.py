"""A stage that must fail fails at once: counted in calls that were made."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import pytest

from moaa.artifacts import Artifact, Draft, Output
from moaa.asking.rejections import FIRST, Gaps, Loss, Rejections, too_many_rejected
from moaa.errors import TooManyRejected
from moaa.ledger import Ledger
from moaa.recipe.load import load_file
from moaa.recipe.schema import Recipe
from moaa.stages.generate import generate
from tests.support.engine_answers import Body, by_aggregator
from tests.support.engine_server import EngineServer
from tests.support.memory_store import MemoryStore
from tests.support.paths import DEMO

ROWS = 150
PROPOSERS = 3
PROBE = 1


def recipe(server: EngineServer, *sets: str) -> Recipe:
    named = ("runtime.max_rejected_share=0.02", f"models.smollm2.endpoint={{url: '{server.url}'}}")
    return load_file(DEMO, [*named, *sets]).recipe


def prompts(store: MemoryStore, count: int = ROWS) -> dict[str, Artifact]:
    with Output(store, f"{store.root}/prompts/{count}", "prompts") as out:
        for number in range(count):
            row = {"id": str(number), "source": "s", "system": None, "turns": [f"q{number}"]}
            out.write(row, table="sft")
        draft = Draft(stage="prompts", name="n", fingerprint=str(count))
        return {"prompts": Artifact(store, out.commit(draft))}


def by_creative(body: Body) -> bool:
    return "lively" in body["messages"][0]["content"] and not by_aggregator(body)


def run(
    refuse: Callable[[Body], bool], *sets: str, rows: int = ROWS, store: MemoryStore | None = None
) -> tuple[EngineServer, Ledger, TooManyRejected | None]:
    """The generate stage against a server that refuses: what was asked, counted and raised."""
    store, ledger = store or MemoryStore(), Ledger()
    with EngineServer("smollm2") as server:
        server.refuse = refuse
        try:
            generate.run(recipe(server, *sets), store, prompts(store, rows), ledger)
        except TooManyRejected as error:
            return server, ledger, error
    return server, ledger, None


def test_an_aggregator_that_refuses_everything_costs_the_first_rows_and_no_more() -> None:
    server, ledger, error = run(by_aggregator)
    assert "the limit is 2.0%" in str(error)
    assert "aggregator: bad request   e.g. turn 1 of 1: refused, as told" in str(error)
    assert server.count <= FIRST * (PROPOSERS + 1) + PROBE
    assert set(ledger.rejected) == {"aggregator: bad request"}


def test_where_the_limit_allows_many_the_first_rows_alone_decide() -> None:
    server, _, error = run(by_aggregator, "runtime.max_rejected_share=0.3")
    assert f"The first 20 rows, chosen at random from {ROWS}, were all rejected" in str(error)
    assert server.count == FIRST * (PROPOSERS + 1) + PROBE


def test_rejections_within_the_limit_stop_nothing() -> None:
    few = {"q7", "q70"}
    server, ledger, error = run(lambda body: body["messages"][-1]["content"] in few)
    assert error is None
    assert ledger.rejected == {"too few proposals": 2}
    assert server.count == ROWS * PROPOSERS + ROWS - 2 + PROBE


def test_rows_that_were_answered_are_kept_and_rejected_ones_are_asked_again() -> None:
    store = MemoryStore()
    every_tenth = re.compile(r"q\d*0")

    def refused(body: Body) -> bool:
        return bool(every_tenth.fullmatch(body["messages"][-1]["content"]))

    server, _, error = run(refused, "runtime.calls={window: 4}", store=store)
    assert error is not None
    assert server.count < ROWS * (PROPOSERS + 1)
    again, ledger, none = run(lambda body: False, store=store)
    assert none is None
    assert ledger.rows["kept"] == ROWS
    answered = ledger.earlier["smollm2"].calls
    assert answered + again.count <= ROWS * (PROPOSERS + 1) + 9 * PROPOSERS


def test_a_proposer_that_never_answers_does_not_pass_as_an_event() -> None:
    server, _, error = run(by_creative, rows=50)
    assert "'creative' gave nothing in" in str(error)
    assert "bad request" in str(error)
    assert server.count <= FIRST * (PROPOSERS + 1) + PROBE
    few_rows, _, error = run(by_creative, rows=6)
    assert "'creative' gave nothing in 4 of 4 rows" in str(error)
    assert few_rows.count > 0


def test_a_proposer_that_fails_now_and_then_is_an_event() -> None:
    def sometimes(body: Body) -> bool:
        return by_creative(body) and body["messages"][-1]["content"][-1] in "12"

    _, ledger, error = run(sometimes, rows=50)
    assert error is None
    assert ledger.events["left out: creative (bad request)"] == 10


def test_a_data_set_without_rows_is_no_result() -> None:
    rejections = Rejections(["a", "b"], 0.5, expected=["empty"])
    for name in "ab":
        rejections.rejected(name, "empty", "nothing")
    with pytest.raises(TooManyRejected, match=r"all 2 were rejected.\n +2  empty"):
        rejections.end()


def test_too_many_rejected_rows_fail_with_the_table_of_reasons() -> None:
    timeout, empty = (Loss("timeout", "after 600 s"),), (Loss("empty"),)
    assert too_many_rejected([timeout], 10, 0.1) is None
    error = too_many_rejected([timeout, empty], 10, 0.1)
    words = r"2 of 10 rows were rejected \(20.0%\); the limit is 10.0%"
    assert re.search(rf"{words}[\s\S]*1  timeout   e.g. after 600 s\n +1  empty", str(error))


def test_a_part_of_a_row_counts_as_that_part() -> None:
    rejections = Rejections([str(n) for n in range(10)], 0.1)
    for number in range(5):
        rejections.kept(str(number), Gaps((Loss("no verdict", "", 0.2),)))
    with pytest.raises(TooManyRejected, match=r"1\.2 of 10 rows"):
        rejections.kept("5", Gaps((Loss("no verdict", "", 0.2),)))


def test_only_the_rows_of_this_stage_count() -> None:
    rejections = Rejections(["a", "b"], 0.5)
    lost: dict[str, Any] = {"rejected": {"reason": "r", "detail": ""}}
    again = rejections.take_up({"x": lost, "y": lost, "a": lost}, lambda row: Gaps())
    assert again == set()
    assert rejections.to_ask_again == {"a"}


def test_what_an_earlier_attempt_lost_is_asked_again_if_it_is_too_much() -> None:
    rejections = Rejections(["a", "b", "c"], 0.5)
    lost: dict[str, Any] = {"rejected": {"reason": "r", "detail": ""}}
    kept: dict[str, Any] = {"row": {}}
    assert rejections.take_up({"a": lost, "b": lost, "c": kept}, lambda row: Gaps()) == {"a", "b"}
    rejections.rejected("a", "r", "")


async def may_be_asked(rejections: Rejections, id: str) -> bool:
    turn = asyncio.ensure_future(rejections.turn(id))
    await asyncio.sleep(0)
    return turn.done() or not turn.cancel()


@pytest.mark.parametrize(("limit", "again"), [(1.0, 0), (0.5, FIRST)])
def test_the_others_do_not_wait_for_first_rows_that_an_earlier_attempt_lost(
    limit: float, again: int
) -> None:
    names = [str(n) for n in range(3 * FIRST)]
    rejections = Rejections(names, limit)
    last = next(name for name in names if name not in rejections.first)
    lost = {"rejected": {"reason": "r", "detail": ""}}
    asked = rejections.take_up(dict.fromkeys(rejections.first, lost), lambda row: Gaps())
    assert len(asked) == again  # up to a half it cannot be chance: they are asked again, first
    assert asyncio.run(may_be_asked(rejections, last)) == (not again)


def test_a_member_that_lacks_in_some_rows_does_not_cost_their_answers_when_others_fail() -> None:
    rejections = Rejections([str(n) for n in range(10)], 0.1)
    rejections.kept("0", Gaps(absent={"creative": "time-out"}))
    rejections.rejected("1", "r", "")
    with pytest.raises(TooManyRejected):
        rejections.rejected("2", "r", "")
    assert rejections.to_ask_again == {"1", "2"}


def test_a_member_that_lacks_in_two_of_three_rows_is_no_habit() -> None:
    rejections = Rejections(["a", "b", "c"], 0)
    for name in "ab":
        rejections.kept(name, Gaps(absent={"creative": "time-out"}))
    with pytest.raises(TooManyRejected, match="'creative' gave nothing in 3 of 3 rows"):
        rejections.kept("c", Gaps(absent={"creative": "time-out"}))
    assert rejections.to_ask_again == {"a", "b", "c"}
