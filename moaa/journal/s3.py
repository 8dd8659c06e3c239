"""The journal of a stage on S3: replies of unfinished conversations and records of finished ones.

A thread writes the journal every `flush_s` seconds or `flush_bytes`, so a killed process loses no
more than that. Replies are deleted when the records of their conversations are on S3, so a new
attempt has little to read. segments.py has the format. Attempts never share a segment: two at the
same time may do work twice, but they lose nothing and write nothing twice.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from moaa.chat.message import Reply
from moaa.journal.segments import JournalEntry, Segments, compressed, expanded
from moaa.store import Store
from moaa.store.bytes import to_json

HELD_BYTES = 512 << 20
"""About the most bytes that wait in memory for a store that does not answer."""


class S3Journal:
    """The journal of all attempts at one result of a stage (a `Journal`). Recording never waits for
    the store, and any thread may record.

    If the store fails for longer than its own retries, the next `record_…`, `flush` or `close`
    raises its StoreError. The records stay in memory, and every flush tries again.
    """

    def __init__(
        self,
        store: Store,
        uri: str,
        *,
        flush_s: float = 2.0,
        flush_bytes: int = 8 << 20,
        flushed: Callable[[], None] = lambda: None,
    ) -> None:
        """`flushed` is called after every flush, from any thread, but only from one at a time."""
        self._rows: dict[str, dict[str, Any] | bytes] = {}
        self.finished: Mapping[str, dict[str, Any]] = _Finished(self._rows)
        """The record of each finished conversation, of this attempt or an earlier one."""
        self._store = store
        self._uri = uri.rstrip("/")
        self._flush_s = flush_s
        self._flush_bytes = flush_bytes
        self._flushed = flushed
        self._replies: dict[str, Reply | bytes] = {}
        self._keys_of: dict[str, list[str]] = {}
        """Calls of unfinished conversations."""
        self._pending = _Batch()
        self._changed = threading.Condition()
        """Guards the four fields above; held only for a moment."""
        self._writing = threading.Lock()
        """Held while a batch is written to the store; guards `_segments`."""
        self._segments = Segments(store, self._uri, flush_bytes)
        self._writing_bytes = 0
        self._failure: Exception | None = None
        self._closed = False
        self._thread: threading.Thread | None = None

    @property
    def full(self) -> bool:
        """Whether too much waits for a store that does not answer, so that no new conversation
        should start. Raises the store's error, as recording does."""
        self._raise_failure()
        return self._pending.bytes + self._writing_bytes > HELD_BYTES

    @property
    def failed(self) -> bool:
        """Whether the last flush failed. The next one waits for the store's own retries again."""
        return self._failure is not None

    @property
    def left_behind(self) -> int:
        """How many unneeded segments could not be deleted. They do no harm."""
        return self._segments.left_behind

    def open(self) -> None:
        """Read what earlier attempts wrote, and start the thread. Raises ArtifactError with the
        name of a segment that is damaged."""
        for _, conversation, _, record in self._segments.read("rows"):
            if record:
                self._rows[conversation] = record
            else:
                self._rows.pop(conversation, None)
        unfinished: dict[str, set[str]] = {}
        for segment, conversation, key, reply in self._segments.read(
            "replies", leave_out=self._rows
        ):
            unfinished.setdefault(segment, set()).add(conversation)
            if key not in self._replies:
                self._replies[key] = reply
                self._keys_of.setdefault(conversation, []).append(key)
        self._segments.adopt(unfinished, self._rows)
        self._thread = threading.Thread(
            target=self._keep_flushing, name="moaa-journal", daemon=True
        )
        self._thread.start()

    def reply(self, key: str) -> Reply | None:
        """Return the reply to this call if an unfinished conversation already has one."""
        found = self._replies.get(key)
        return Reply.from_json(json.loads(expanded(found))) if isinstance(found, bytes) else found

    def record_reply(self, conversation: str, key: str, reply: Reply) -> None:
        """Keep the reply to a call until its conversation is finished."""
        with self._changed:
            self._raise_failure()
            if conversation in self._rows:
                return
            self._replies[key] = reply
            self._keys_of.setdefault(conversation, []).append(key)
            self._pending.replies.append((conversation, key, reply))
            self._count(
                sum(len(choice.text) + 800 * len(choice.tokens or ()) for choice in reply.choices)
            )

    def record_row(self, conversation: str, record: dict[str, Any]) -> None:
        """Keep the record of a finished conversation, {"row": …} or {"rejected": …}, instead of its
        replies. The record must not change afterwards."""
        with self._changed:
            self._raise_failure()
            self._rows[conversation] = record
            for key in self._keys_of.pop(conversation, ()):
                self._replies.pop(key, None)
            self._pending.rows.append((conversation, record))
            self._count(10_000)

    def forget(self, conversations: Iterable[str]) -> None:
        """Mark these conversations as unfinished: a later attempt works on them again. It is for
        rejected ones whose cause can be fixed."""
        with self._changed:
            for conversation in conversations:
                if self._rows.pop(conversation, None) is not None:
                    self._pending.rows.append((conversation, None))
                    self._count(100)
        self.flush()

    def flush(self) -> None:
        """Wait until everything recorded so far is on S3."""
        with self._writing:
            with self._changed:
                batch, self._pending = self._pending, _Batch()
            self._writing_bytes = batch.bytes
            try:
                self._write(batch)
            except Exception as error:
                with self._changed:
                    self._pending = batch.then(self._pending)
                    self._failure = error
                raise
            finally:
                self._writing_bytes = 0
            self._failure = None
            self._flushed()

    def close(self) -> None:
        """Flush, and stop the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread:
            self._thread.join()
            self._thread = None
        self.flush()

    def _count(self, size: int) -> None:
        """Add to the size of the batch. Sizes are estimates: for exact ones the caller would have
        to wait until the record is serialised."""
        before, self._pending.bytes = self._pending.bytes, self._pending.bytes + size
        if before == 0 or self._pending.bytes >= self._flush_bytes:
            self._changed.notify()

    def _raise_failure(self) -> None:
        if self._failure:
            raise self._failure

    def _keep_flushing(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._pending.bytes)
                self._changed.wait_for(
                    lambda: self._closed or self._pending.bytes >= self._flush_bytes, self._flush_s
                )
                if self._closed:
                    return
            try:
                self.flush()
            except Exception:  # the next `record_…` raises `_failure`
                time.sleep(self._flush_s)

    def _write(self, batch: _Batch) -> None:
        # Records are serialised and compressed one by one. Compression releases the interpreter
        # lock, so the caller's event loop can run in between.
        small: list[bytes] = []

        def rows() -> Iterator[JournalEntry]:
            for conversation, record in batch.rows:
                text = to_json(record)
                small.append(compressed(text))
                yield JournalEntry(conversation, "row", text)

        def replies() -> Iterator[JournalEntry]:
            for conversation, key, reply in batch.replies:
                text = to_json(reply.to_json())
                small.append(compressed(text))
                yield JournalEntry(conversation, key, text)

        if batch.rows:
            # Rows first: then the replies of their conversations need not be written.
            self._segments.finished.difference_update(
                conversation for conversation, record in batch.rows if record is None
            )
            self._segments.write("rows", rows())
            self._segments.finish(
                {conversation for conversation, record in batch.rows if record is not None}
            )
            for (conversation, record), text in zip(batch.rows, small, strict=True):
                with self._changed:
                    if record is not None and self._rows.get(conversation) is record:
                        self._rows[conversation] = text
            batch.rows.clear()
            small.clear()
        batch.replies = [
            reply for reply in batch.replies if reply[0] not in self._segments.finished
        ]
        if batch.replies:
            self._segments.write("replies", replies())
            for (_, key, reply), text in zip(batch.replies, small, strict=True):
                with self._changed:
                    if self._replies.get(key) is reply:
                        self._replies[key] = text


@dataclass(slots=True)
class _Batch:
    """The records since the last flush."""

    rows: list[tuple[str, dict[str, Any] | None]] = field(default_factory=list)
    replies: list[tuple[str, str, Reply]] = field(default_factory=list)
    bytes: int = 0

    def then(self, later: _Batch) -> _Batch:
        return _Batch(
            self.rows + later.rows, self.replies + later.replies, self.bytes + later.bytes
        )


class _Finished(Mapping[str, dict[str, Any]]):
    """The finished records. They are kept compressed, and expanded when they are read."""

    def __init__(self, rows: dict[str, dict[str, Any] | bytes]) -> None:
        self._rows = rows

    def __getitem__(self, conversation: str) -> dict[str, Any]:
        record = self._rows[conversation]
        if not isinstance(record, bytes):
            return record
        found: dict[str, Any] = json.loads(expanded(record))
        return found

    def __contains__(self, conversation: object) -> bool:
        return conversation in self._rows

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._rows))

    def __len__(self) -> int:
        return len(self._rows)
