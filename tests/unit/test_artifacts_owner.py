"""The same stage run twice at once is noticed, and paid for once."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from moaa.artifacts import owner
from moaa.artifacts.owner import Owner
from tests.support.memory_store import MemoryStore
from tests.support.waiting import until

URI = "s3://memory/root/generate/f00d"
DONE = f"{URI}/manifest.json"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner, "BEAT_S", 0.02)
    monkeypatch.setattr(owner, "LOOK_S", 0.01)
    monkeypatch.setattr(owner, "STANDS_STILL_S", 0.5)


def elsewhere(store: MemoryStore, beat: int = 0, number: int = 1, **about: Any) -> str:
    """An owner on another machine, which does nothing by itself."""
    uri = f"{URI}/owner/{number:06d}.json"
    body = {"holder": "x", "who": "run b (node-7, process 1)", "place": "away", "pid": 1}
    store.objects[uri] = json.dumps({**body, "beat": beat, **about}).encode()
    return uri


@pytest.mark.usefixtures("quick")
def test_who_comes_second_says_who_works_and_uses_what_appears(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []
    monkeypatch.setattr(owner, "say", said.append)
    store, found = MemoryStore(), []
    first = Owner(store, URI, "run a")
    assert first.acquire(DONE)
    with Owner(store, URI, "run b") as second:
        waiting = threading.Thread(target=lambda: found.append(second.acquire(DONE)))
        waiting.start()
        time.sleep(1.2)  # more than twice as long as a dead one is waited for
        assert found == []
        store.objects[DONE] = b"{}"
        waiting.join(10)
    assert found == [False]
    assert len(said) == 1
    assert said[0].startswith("run a (")
    assert f"works on the same result, {URI}: waiting for it" in said[0]
    first.__exit__()
    assert list(store.objects) == [DONE]


@pytest.mark.usefixtures("quick")
def test_one_that_stands_still_is_taken_over_by_exactly_one() -> None:
    store, won = MemoryStore(), []
    elsewhere(store)
    waiting = [Owner(store, URI, f"run {name}") for name in "abc"]

    def wait(each: Owner) -> None:
        if each.acquire(DONE):
            won.append(each)

    threads = [threading.Thread(target=wait, args=(each,), daemon=True) for each in waiting]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 10
    while not won and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.8)
    assert len(won) == 1
    store.objects[DONE] = b"{}"
    for thread in threads:
        thread.join(10)
    won[0].__exit__(None, None, None)
    assert list(store.objects) == [DONE]


@pytest.mark.usefixtures("quick")
def test_it_is_judged_by_changes_not_by_clocks() -> None:
    """Its time stamps could be of any year: it has none. While it changes, it lives."""
    store, stop = MemoryStore(), threading.Event()
    elsewhere(store)

    def live() -> None:
        beat = 0
        while not stop.wait(0.02):
            elsewhere(store, beat := beat + 1)

    living = threading.Thread(target=live)
    living.start()
    won: list[bool] = []
    with Owner(store, URI, "run a") as mine:
        waiting = threading.Thread(target=lambda: won.append(mine.acquire(DONE)))
        waiting.start()
        time.sleep(1.2)
        assert won == []
        stop.set()  # now it stands still
        waiting.join(10)
        assert won == [True]
    living.join()


def test_a_killed_one_of_this_machine_is_not_waited_for() -> None:
    store = MemoryStore()
    gone = 2**22 + 1  # more than any process of Linux has
    elsewhere(store, place=owner._place(), pid=gone)
    with Owner(store, URI, "run a") as mine:
        started = time.monotonic()
        assert mine.acquire(DONE)
        assert time.monotonic() - started < 5
    assert store.objects == {}


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("text", [b"", b"torn {", b"[]", b"\xff\xfe"])
def test_a_garbled_note_is_an_unknown_run_that_may_stand_still(text: bytes) -> None:
    store = MemoryStore()
    store.objects[f"{URI}/owner/000001.json"] = text
    with Owner(store, URI, "run a") as mine:
        assert mine.acquire(DONE)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("gave_back", [True, False])
def test_one_that_was_overtaken_stops_when_the_other_has_finished(gave_back: bool) -> None:
    store, overtaken = MemoryStore(), threading.Event()
    with Owner(store, URI, "run a", overtaken.set) as mine:
        assert mine.acquire(DONE)
        other = elsewhere(store, number=2)
        beats = len([uri for request, uri in store.log if request == "list"])
        until(lambda: len([uri for request, uri in store.log if request == "list"]) > beats + 3)
        assert not overtaken.is_set(), "nobody has finished yet"
        store.objects[DONE] = b"{}"
        if gave_back:
            store.delete(f"{URI}/owner/000001.json", other)
        assert overtaken.wait(10)


@pytest.mark.usefixtures("quick")
def test_one_whose_own_result_appears_is_not_overtaken() -> None:
    store, overtaken = MemoryStore(), threading.Event()
    with Owner(store, URI, "run a", overtaken.set) as mine:
        assert mine.acquire(DONE)
        store.objects[DONE] = b"{}"
        assert not overtaken.wait(0.2)
    assert list(store.objects) == [DONE]


def test_a_result_that_is_there_needs_no_owner(tmp_path: Path) -> None:
    store = MemoryStore()
    store.objects[DONE] = b"{}"
    with Owner(store, URI, "run a") as mine:
        assert not mine.acquire(DONE)
    assert [request for request, _ in store.log if request == "put"] == []


@pytest.mark.usefixtures("quick")
def test_a_lock_is_waited_for_with_patience() -> None:
    """That of a model that is retrained: no result ends the wait, and who comes second is told who
    is at work."""
    store, told = MemoryStore(), []
    first = Owner(store, URI, "job 6")
    assert first.take(0) == ""
    with Owner(store, URI, "job 7") as second:
        assert second.take(0.1).startswith("job 6 (")
        waiting = threading.Thread(target=lambda: told.append(second.take(30)))
        waiting.start()
        first.__exit__()
        waiting.join(10)
        assert told == [""]
    assert store.objects == {}


@pytest.mark.usefixtures("quick")
def test_the_lock_of_a_dead_holder_elsewhere_is_taken_after_a_while() -> None:
    store = MemoryStore()
    elsewhere(store)
    with Owner(store, URI, "job 7") as mine:
        assert mine.take(0) == "run b (node-7, process 1)", "one look cannot tell that it is dead"
        assert mine.take(5) == ""
