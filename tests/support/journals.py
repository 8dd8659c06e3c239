"""Journals that write only when they are told to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from moaa.chat.message import Choice, Reply
from moaa.journal import S3Journal
from tests.support.memory_store import MemoryStore

URI = "s3://memory/root/generate/f00d/journal"


@contextmanager
def attempts(store: MemoryStore) -> Iterator[Callable[..., Any]]:
    """Gives what opens journals, whose threads end with the test."""
    opened = []

    def open_journal(**options: Any) -> Any:
        journal = S3Journal(store, URI, **{"flush_s": 1000, **options})
        journal.open()
        opened.append(journal)
        return journal

    yield open_journal
    store.fail_puts = 0
    for journal in opened:
        journal.close()


def reply(text: str) -> Reply:
    return Reply(
        (Choice(text, "stop", ({"A": -0.1, "B": -9999.0},)), Choice(text * 2, "length")),
        10,
        20,
        1.5,
    )
