"""The journal on a store in memory: nothing recorded is lost or doubled, and nobody who records
waits."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from moaa.errors import StoreError
from tests.support.journals import reply
from tests.support.memory_store import MemoryStore


# What str.splitlines cuts at, and what UTF-8 cannot hold.
@pytest.mark.parametrize("odd", ["line\u2028 \x85 \n\r \x1e 漢", "half \ud83d"])
def test_replies_of_unfinished_and_rows_of_finished_conversations_come_back(
    attempt: Any, odd: str
) -> None:
    one = attempt()
    one.record_reply("c1", "k1", reply(odd))
    one.record_reply("c2", "k2", reply("two"))
    one.record_row("c2", {"row": {"text": odd}})
    one.record_row("c3", {"rejected": {"reason": "timeout", "detail": ""}})
    one.flush()
    two = attempt()
    for journal in (one, two):
        assert journal.reply("k1") == reply(odd)
        assert journal.reply("k2") is None
        assert dict(journal.finished) == {
            "c2": {"row": {"text": odd}},
            "c3": {"rejected": {"reason": "timeout", "detail": ""}},
        }
        assert "c1" not in journal.finished


def test_what_is_recorded_is_known_at_once(attempt: Any) -> None:
    journal = attempt()
    journal.record_reply("c", "k", reply("x"))
    assert journal.reply("k") == reply("x")
    journal.record_row("c", {"row": 1})
    assert journal.finished["c"] == {"row": 1}
    assert journal.reply("k") is None


def test_replies_of_conversations_finished_within_one_flush_are_never_written(
    store: MemoryStore, attempt: Any
) -> None:
    journal = attempt()
    journal.record_reply("c", "k", reply("x"))
    journal.record_row("c", {"row": 1})
    journal.flush()
    assert [uri.split("/")[-2] for uri in store.objects] == ["rows"]


@pytest.mark.parametrize("options", [{"flush_s": 0.05}, {"flush_bytes": 100}])
def test_the_thread_flushes_after_the_time_or_the_bytes(
    store: MemoryStore, attempt: Any, options: dict[str, Any]
) -> None:
    journal = attempt(**options)
    journal.record_reply("c", "k", reply("x" * 200))
    deadline = time.monotonic() + 10
    while not store.objects and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(store.objects) == 1


def test_nobody_who_records_waits_for_the_store(store: MemoryStore, attempt: Any) -> None:
    stuck, go_on = threading.Event(), threading.Event()
    put = store.put

    def slow_put(uri: str, data: bytes) -> None:
        stuck.set()
        assert go_on.wait(30)
        put(uri, data)

    store.put = slow_put  # type: ignore[method-assign]
    journal = attempt(flush_s=0.01)
    journal.record_reply("c0", "k0", reply("x"))
    assert stuck.wait(10)
    before = time.monotonic()
    for n in range(1, 1000):
        journal.record_reply(f"c{n}", f"k{n}", reply("x"))
    assert journal.reply("k999") == reply("x")
    journal.record_row("c5", {"row": 5})
    assert time.monotonic() - before < 5
    go_on.set()
    journal.flush()
    again = attempt()
    assert sum(again.reply(f"k{n}") is not None for n in range(1000)) == 999
    assert again.finished["c5"] == {"row": 5}


def test_a_failing_store_is_told_to_who_records_and_nothing_is_lost(
    store: MemoryStore, attempt: Any
) -> None:
    journal = attempt()
    journal.record_reply("c1", "k1", reply("x"))
    journal.record_row("c2", {"row": 2})
    store.fail_puts = 1
    with pytest.raises(StoreError, match="told to fail"):
        journal.flush()
    with pytest.raises(StoreError, match="told to fail"):
        journal.record_reply("c3", "k3", reply("y"))
    journal.flush()  # the store is back
    journal.record_reply("c3", "k3", reply("y"))
    journal.flush()
    again = attempt()
    assert (again.reply("k1"), again.reply("k3"), again.finished["c2"]) == (
        reply("x"),
        reply("y"),
        {"row": 2},
    )


def test_who_wants_to_know_is_told_of_each_flush_once_it_is_on_s3(
    store: MemoryStore, attempt: Any
) -> None:
    told = []
    journal = attempt(flushed=lambda: told.append(len(store.objects)))
    journal.record_row("c", {"row": 1})
    journal.flush()
    store.fail_puts = 1
    journal.record_row("d", {"row": 2})
    with pytest.raises(StoreError):
        journal.flush()
    assert told == [1]


def test_many_threads_may_record(attempt: Any) -> None:
    journal = attempt(flush_s=0.01)

    def work(worker: int) -> None:
        for n in range(200):
            journal.record_reply(f"c{worker}", f"k{worker}-{n}", reply("x"))
        journal.record_row(f"d{worker}", {"row": worker})

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    journal.flush()
    again = attempt()
    assert sorted(again.finished) == [f"d{worker}" for worker in range(8)]
    assert all(again.reply(f"k{worker}-{n}") for worker in range(8) for n in range(200))


def test_two_attempts_at_once_lose_and_double_nothing(attempt: Any) -> None:
    one, two = attempt(), attempt()
    one.record_reply("c1", "k1", reply("one"))
    two.record_reply("c1", "k1", reply("two"))
    two.record_reply("c2", "k2", reply("two"))
    one.record_row("c3", {"row": "one"})
    two.record_row("c3", {"row": "two"})
    one.flush()
    two.flush()
    three = attempt()
    assert list(three.finished) == ["c3"]
    assert three.reply("k1") in (reply("one"), reply("two"))
    assert three.reply("k2") == reply("two")


def test_forgotten_conversations_are_worked_on_again(attempt: Any) -> None:
    one = attempt()
    one.record_row("c1", {"rejected": {"reason": "timeout", "detail": ""}})
    one.record_row("c2", {"row": 2})
    one.close()
    one.forget(["c1", "unknown"])
    one.record_reply("c1", "k0", reply("again"))
    one.flush()
    two = attempt()
    assert list(two.finished) == ["c2"]
    assert two.reply("k0") == reply("again")
    two.record_reply("c1", "k1", reply("x"))
    two.flush()
    assert attempt().reply("k1") == reply("x")
    two.record_row("c1", {"row": 1})
    two.flush()
    assert dict(attempt().finished) == {"c2": {"row": 2}, "c1": {"row": 1}}


@pytest.mark.parametrize("hours", [1, 24 * 365])
def test_a_clock_that_goes_back_does_not_bring_back_what_was_forgotten(
    store: MemoryStore, attempt: Any, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    """Segments were ordered by the machines' clocks: the rejected row was never asked again."""
    one = attempt()
    one.record_row("c1", {"rejected": {"reason": "timeout", "detail": ""}})
    one.flush()
    late = time.time_ns() - hours * 3600 * 10**9
    monkeypatch.setattr("moaa.journal.segments.time", SimpleNamespace(time_ns=lambda: late))
    two = attempt()
    two.forget(["c1"])
    three = attempt()
    assert "c1" not in three.finished
    three.record_row("c1", {"row": {"n": 1}})
    three.flush()
    assert attempt().finished["c1"] == {"row": {"n": 1}}


def test_a_store_that_is_away_fills_a_bounded_memory_and_nothing_is_lost(
    store: MemoryStore, attempt: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moaa.journal.s3.HELD_BYTES", 25_000)
    journal = attempt()
    store.fail_puts = 1
    for n in range(3):
        assert not journal.full
        journal.record_row(f"c{n}", {"row": {"n": n}})
    assert journal.full  # no new conversation begins, and what is in flight is kept
    with pytest.raises(StoreError):
        journal.flush()
    with pytest.raises(StoreError):  # who waits for room must not wait for ever
        assert journal.full
    journal.flush()
    assert not journal.full
    assert len(attempt().finished) == 3
