"""Any sequence of replies, rows, flushes, failures, crashes: nothing is lost, nothing doubled."""

from __future__ import annotations

import contextlib
from unittest import mock

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from moaa.chat.message import Choice, Reply
from moaa.errors import StoreError
from moaa.journal import S3Journal, segments
from tests.support.memory_store import MemoryStore

URI = "s3://memory/root/generate/f00d/journal"
CONVERSATIONS = st.sampled_from(["a", "b", "c", "d"])
KEYS = [f"{conversation}{number}" for conversation in "abcd" for number in range(3)]


def reply_to(key: str) -> Reply:
    return Reply((Choice(f"the answer to {key}"),), 1, 2, 0.5)


class Attempts(RuleBasedStateMachine):
    """Attempts at one result, one after the other; each writes only when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self._patch = mock.patch.object(segments, "JOINED", 3)
        self._patch.start()
        self.store = MemoryStore()
        self.recorded = 0
        self.rows: dict[str, object] = {}
        self.replies: set[str] = set()
        self.ever: dict[str, list[object]] = {}
        """All records that a conversation has had."""
        self.safe: tuple[dict[str, object], set[str]] = ({}, set())
        """What had been flushed; a crash must not lose it."""
        self.crashed: list[S3Journal] = []
        self.journal = self._open()

    def _open(self) -> S3Journal:
        journal = S3Journal(self.store, URI, flush_s=1000)
        journal.open()
        return journal

    @rule(conversation=CONVERSATIONS, number=st.integers(0, 2))
    def reply(self, conversation: str, number: int) -> None:
        key = f"{conversation}{number}"
        self.journal.record_reply(conversation, key, reply_to(key))
        if conversation not in self.rows:
            self.replies.add(key)

    @rule(conversation=CONVERSATIONS, rejected=st.booleans())
    def finish(self, conversation: str, rejected: bool) -> None:
        if conversation in self.rows:
            return
        self.recorded += 1
        record = (
            {"rejected": {"reason": "r", "detail": str(self.recorded)}}
            if rejected
            else {"row": {"n": self.recorded}}
        )
        self.journal.record_row(conversation, record)
        self.rows[conversation] = record
        self.ever.setdefault(conversation, []).append(record)
        self.replies = {key for key in self.replies if key[0] != conversation}

    @rule(conversation=CONVERSATIONS)
    def forget(self, conversation: str) -> None:
        self.journal.forget([conversation])
        self.rows.pop(conversation, None)
        self._all_is_safe()

    @rule(undeleted=st.booleans())
    def flush(self, undeleted: bool) -> None:
        self.store.fail_deletes = int(undeleted)
        self.journal.flush()
        self.store.fail_deletes = 0
        self._all_is_safe()

    @rule(failures=st.integers(1, 2), crash=st.booleans())
    def flush_fails(self, failures: int, crash: bool) -> None:
        """Any part of what was recorded may be on the store after that."""
        self.store.fail_puts = failures
        with contextlib.suppress(StoreError):
            self.journal.flush()
            self._all_is_safe()  # there was less to write than would fail
        self.store.fail_puts = 0
        if crash:
            self.crash()
        else:
            self.journal.flush()
            self._all_is_safe()

    @rule()
    def crash(self) -> None:
        self.crashed.append(self.journal)
        self.journal = self._open()
        rows, replies = self.safe
        found = dict(self.journal.finished)
        assert rows.keys() <= found.keys(), "a finished conversation is lost"
        for conversation, record in found.items():
            assert record in self.ever[conversation]
            assert record == rows.get(conversation, record)
        for key in replies:
            assert key[0] in found or self.journal.reply(key), "an answer is lost"
        self.rows = dict(found)
        self.replies = {key for key in KEYS if self.journal.reply(key)}
        self._all_is_safe()

    @precondition(lambda self: self.journal)
    @invariant()
    def it_knows_what_was_recorded(self) -> None:
        assert dict(self.journal.finished) == self.rows
        for key in KEYS:
            known = self.journal.reply(key)
            assert known == (reply_to(key) if key in self.replies else None), key

    def teardown(self) -> None:
        self.crash()
        self.store.fail_puts = 1_000_000  # a crashed attempt writes nothing more
        for journal in (*self.crashed, self.journal):
            with contextlib.suppress(StoreError):
                journal.close()
        self._patch.stop()

    def _all_is_safe(self) -> None:
        self.safe = dict(self.rows), set(self.replies)


Attempts.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestAttempts = Attempts.TestCase
