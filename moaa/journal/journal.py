"""The interface of a journal, and a journal in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from moaa.chat.message import Reply


class Journal(Protocol):
    """Keeps the replies of unfinished conversations and the records of finished ones."""

    @property
    def finished(self) -> Mapping[str, dict[str, Any]]:
        """The record of each finished conversation: {"row": …} or {"rejected": …}."""

    @property
    def full(self) -> bool:
        """Whether too much waits to be written, so that no new conversation should start.

        Raises the error of a write that has failed: nobody should wait for it.
        """

    @property
    def failed(self) -> bool:
        """Whether the last write failed: another one may take as long as the store's retries."""

    def reply(self, key: str) -> Reply | None:
        """Return the reply to this call if an unfinished conversation already has one."""

    def record_reply(self, conversation: str, key: str, reply: Reply) -> None:
        """Keep the reply to a call until its conversation is finished."""

    def record_row(self, conversation: str, record: dict[str, Any]) -> None:
        """Keep the record of a finished conversation instead of its replies. The record must not
        change afterwards."""

    def flush(self) -> None:
        """Wait until everything recorded so far is safe."""


class MemoryJournal:
    """A journal for work that is not continued later: nothing is written anywhere."""

    full = failed = False

    def __init__(self) -> None:
        self.finished: dict[str, dict[str, Any]] = {}
        self._replies: dict[str, Reply] = {}

    def reply(self, key: str) -> Reply | None:
        """The reply that was recorded for this call."""
        return self._replies.get(key)

    def record_reply(self, conversation: str, key: str, reply: Reply) -> None:
        """Keep the reply."""
        self._replies[key] = reply

    def record_row(self, conversation: str, record: dict[str, Any]) -> None:
        """Keep the record."""
        self.finished[conversation] = record

    def flush(self) -> None:
        """Do nothing: everything is in memory."""
