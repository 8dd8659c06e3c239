"""Segments of a journal are cut, joined and deleted, and nothing is lost by it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from moaa.errors import ArtifactError
from moaa.journal import S3Journal
from moaa.journal.segments import JOINED
from tests.support.journals import URI, reply
from tests.support.memory_store import MemoryStore


def test_a_reply_segment_is_deleted_once_all_its_rows_are_written(
    store: MemoryStore, attempt: Any
) -> None:
    journal = attempt()
    journal.record_reply("c1", "k1", reply("x"))
    journal.record_reply("c2", "k2", reply("y"))
    journal.flush()
    journal.record_row("c1", {"row": 1})
    journal.flush()
    assert sum("/replies/" in uri for uri in store.objects) == 1
    again = attempt()  # takes the segment over
    assert (again.reply("k1"), again.reply("k2")) == (None, reply("y"))
    again.record_row("c2", {"row": 2})
    again.flush()
    assert sum("/replies/" in uri for uri in store.objects) == 0


def test_small_segments_are_joined_and_lose_nothing(store: MemoryStore, attempt: Any) -> None:
    journal = attempt()
    for n in range(200):
        journal.record_reply("open", f"k{n}", reply(f"{n}"))
        journal.record_row(f"c{n}", {"row": n})
        journal.flush()
    assert len(store.objects) < 80
    again = attempt()
    assert {name: record["row"] for name, record in again.finished.items()} == {
        f"c{n}": n for n in range(200)
    }
    assert [again.reply(f"k{n}") for n in range(200)] == [reply(f"{n}") for n in range(200)]
    again.record_row("open", {"row": "done"})
    again.flush()
    assert not [uri for uri in store.objects if "/replies/" in uri]


def test_a_join_does_not_move_an_earlier_record_behind_a_later_one(
    store: MemoryStore, attempt: Any
) -> None:
    """The row of a conversation that was asked again was lost: `forgotten` came last."""
    journal = attempt(flush_bytes=20_000)
    journal.record_row("again", {"rejected": {"reason": "time-out", "detail": ""}})
    journal.flush()
    journal.forget(["again"])
    noise = random.Random(1).randbytes(5_000).hex()
    journal.record_row("again", {"row": noise})  # a large segment: it is never joined
    journal.flush()
    for n in range(2 * JOINED):
        journal.record_row(f"c{n}", {"row": n})
        journal.flush()
    assert attempt().finished["again"] == {"row": noise}


def test_a_killed_join_doubles_nothing(store: MemoryStore, attempt: Any) -> None:
    journal = attempt()
    deleted = store.delete
    store.delete = lambda *uris: None  # type: ignore[method-assign]
    for n in range(40):
        journal.record_reply("open", f"k{n}", reply(f"{n}"))
        journal.record_row(f"c{n}", {"row": n})
        journal.flush()
    store.delete = deleted  # type: ignore[method-assign]
    assert len(store.objects) > 80
    again = attempt()
    assert len(again.finished) == 40
    assert [again.reply(f"k{n}") for n in range(40)] == [reply(f"{n}") for n in range(40)]


def test_a_flush_is_cut_to_segments_of_the_size_asked_for(store: MemoryStore, attempt: Any) -> None:
    journal = attempt(flush_bytes=1000)
    for n in range(50):
        journal.record_reply(f"c{n}", f"k{n}", reply("x" * 300))
    journal.flush()
    assert sum("/replies/" in uri for uri in store.objects) > 5
    again = attempt()
    assert all(again.reply(f"k{n}") for n in range(50))


def test_a_segment_that_cannot_be_deleted_is_counted_and_costs_nothing_else(
    store: MemoryStore, attempt: Any
) -> None:
    journal = attempt()
    for n in range(JOINED):  # the last one joins them
        journal.record_reply("open", f"k{n}", reply("x"))
        if n == JOINED - 1:
            store.fail_deletes = 1
        journal.flush()
    assert journal.left_behind == JOINED
    store.fail_deletes = 1
    journal.record_row("open", {"row": 1})
    journal.flush()
    journal.record_row("c", {"row": 2})
    assert journal.left_behind == JOINED + 1
    assert sum("/replies/" in uri for uri in store.objects) == JOINED + 1
    journal.flush()
    store.fail_deletes = 1
    again = attempt()  # has nothing to read in them, and would delete them
    assert again.left_behind == JOINED + 1
    assert dict(again.finished) == {"open": {"row": 1}, "c": {"row": 2}}
    assert again.reply("k0") is None
    attempt()
    assert not [uri for uri in store.objects if "/replies/" in uri]


def test_opening_deletes_no_segment_that_another_attempt_wrote_meanwhile(
    store: MemoryStore, attempt: Any
) -> None:
    one = attempt()
    one.record_reply("c0", "k0", reply("x"))
    one.flush()
    one.record_row("c0", {"row": 0})
    deleted = store.delete
    store.delete = lambda *uris: None  # type: ignore[method-assign]
    one.flush()  # leaves the reply segment, as a kill would
    listed = store.list
    store.delete = deleted  # type: ignore[method-assign]

    listings = 0

    def list_then_write(prefix: str) -> Iterator[tuple[str, int]]:
        nonlocal listings
        found = list(listed(prefix))
        listings += prefix.endswith("/replies")
        if listings == 2 and not one.reply(
            "k1"
        ):  # the second finds nothing new: the reading is over
            one.record_reply("c1", "k1", reply("meanwhile"))
            one.flush()
        return iter(found)

    store.list = list_then_write  # type: ignore[method-assign, assignment]
    attempt()
    assert listings == 2
    assert attempt().reply("k1") == reply("meanwhile")


def _cut_off(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _emptied(data: bytes) -> bytes:
    return b""


def _flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :]


def _other(data: bytes) -> bytes:
    return b"not a segment at all"


def _cut_in_second_frame(data: bytes) -> bytes:
    return data + data[:-3]


@pytest.mark.parametrize("damage", [_cut_off, _emptied, _flipped, _other, _cut_in_second_frame])
@pytest.mark.parametrize("kind", ["rows", "replies"])
def test_a_torn_or_garbled_segment_is_named(
    store: MemoryStore, attempt: Any, kind: str, damage: Callable[[bytes], bytes]
) -> None:
    journal = attempt()
    noise = random.Random(1)
    text = "".join(
        noise.choices("0123456789abcdef", k=2000)
    )  # so dense that a changed bit still decodes to something
    journal.record_reply("c1", "k1", reply(text))
    journal.record_row("c2", {"row": text})
    journal.flush()
    [uri] = [uri for uri in store.objects if f"/{kind}/" in uri]
    store.objects[uri] = damage(store.objects[uri])
    with pytest.raises(ArtifactError, match="is damaged") as caught:
        S3Journal(store, URI).open()
    assert uri in str(caught.value)


def test_segments_joined_while_they_are_read_are_found_in_their_new_place(
    store: MemoryStore, attempt: Any
) -> None:
    one = attempt()
    for n in range(JOINED - 1):
        one.record_row(f"c{n}", {"row": n})
        one.flush()
    listed, joined = store.list, False

    def list_then_join(prefix: str) -> Iterator[tuple[str, int]]:
        nonlocal joined
        found = list(listed(prefix))
        if not joined:
            joined = True
            one.record_row("last", {"row": "last"})
            one.flush()
            assert not {uri for uri, _ in found} & store.objects.keys()
        return iter(found)

    store.list = list_then_join  # type: ignore[method-assign, assignment]
    assert len(attempt().finished) == JOINED
