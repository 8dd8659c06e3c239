"""Rows of questions, answers and ratings: they wait in memory for a rating, then are written to
files.

    <root>/2026-11-29/021539-7f3a9c-000001.jsonl.zst

Each line is one row: `id`, `time`, `key` (its name), `model`, `revision`, `messages`, `answer`,
`finish_reason`, `rating` (-1, 0, 1 or null), `comment`, `masked` (how many of each kind). A rating
may come after its row was written, or to another replica of the gateway. It then becomes a row of
its own, with only `id`, `time`, `key`, `rating` and `comment`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

from moaa.concurrency import detached
from moaa.errors import StoreError
from moaa.gateway.feedback.answer_reader import texts_of
from moaa.gateway.feedback.settings import FeedbackSettings
from moaa.masking import Masker
from moaa.progress.messages import log
from moaa.store import Store

LOOK_EVERY_S: Final = 5.0
WRITE_EVERY_S: Final = 60.0
CLOSE_S: Final = 10.0
"""How long the last write may take when the gateway stops."""
MOST_BYTES: Final = 64 << 20
"""The most bytes of rows in memory. Above it the oldest rows are written without waiting longer for
their rating. If they cannot be written either, they are dropped."""
_DAY_S: Final = 86_400.0
_Key = tuple[str, str]


class Records:
    """The rows that one gateway keeps. `count(result)` is called for every row: `written`,
    `dropped` or `skipped` (it has more than text)."""

    def __init__(
        self,
        settings: FeedbackSettings,
        store: Store,
        count: Callable[[str], None] = lambda result: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._settings, self._store, self._count, self._now = settings, store, count, now
        self._waiting: OrderedDict[_Key, tuple[dict[str, Any], int]] = OrderedDict()
        self._due: list[tuple[dict[str, Any], int]] = []
        self._bytes = 0
        self._process, self._files = secrets.token_hex(3), 0
        self._wrote_at, self._swept_at = now(), float("-inf")

    def takes(self, id: str) -> bool:
        """Return whether the request with this id belongs to the share that is kept."""
        digest = hashlib.sha256(id.encode()).digest()
        return int.from_bytes(digest[:8]) < self._settings.share * 2**64

    def answered(
        self,
        key: str,
        id: str,
        model: str,
        revision: str | None,
        messages: Any,
        choices: list[dict[str, Any]],
    ) -> None:
        """Keep a question and the first choice of its answer."""
        texts = texts_of(messages)
        choice: Mapping[str, Any] = choices[0] if choices else {}
        answer = (choice.get("message") or {}).get("content")
        if texts is None or not isinstance(answer, str) or not answer.strip():
            self._count("skipped")
            return
        row = self._row(key, id) | {
            "model": model,
            "revision": revision,
            "messages": texts,
            "answer": answer,
            "finish_reason": choice.get("finish_reason"),
        }
        size = len(answer) + sum(len(each["content"]) for each in texts) + 500
        self._waiting[key, id] = (row, size)
        self._bytes += size
        while self._bytes > MOST_BYTES and self._waiting:
            self._ripen()
        while self._bytes > MOST_BYTES and self._due:
            self._drop()

    def rated(self, key: str, id: str, rating: int, comment: str | None) -> bool:
        """Keep a rating; return whether its request belongs to the share that is kept."""
        if not self.takes(id):
            return False
        given = {"rating": rating, "comment": comment}
        if (waiting := self._waiting.get((key, id))) is not None:
            waiting[0].update(given)
        else:
            size = len(comment or "") + 200
            self._due.append((self._row(key, id) | given, size))
            self._bytes += size
        return True

    async def run(self) -> None:
        """Write rows and delete old folders, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await self.look()

    async def look(self) -> None:
        """Write the rows that are due, once a minute; delete old folders once a day."""
        late = self._now() - self._settings.wait_s
        while self._waiting and _time(next(iter(self._waiting.values()))[0]) <= late:
            self._ripen()
        if self._due and self._now() - self._wrote_at >= WRITE_EVERY_S:
            await self._write()
        if self._now() - self._swept_at >= _DAY_S:
            self._swept_at = self._now()
            await detached(self._sweep)

    async def close(self) -> None:
        """Write all remaining rows, if the store answers in time."""
        while self._waiting:
            self._ripen()
        if self._due:
            try:
                await asyncio.wait_for(self._write(), CLOSE_S)
            except TimeoutError:
                log.warning("feedback: the store does not answer in time: the last rows are lost")

    def _row(self, key: str, id: str) -> dict[str, Any]:
        at = datetime.fromtimestamp(self._now(), UTC).isoformat(timespec="milliseconds")
        return {"id": id, "time": at, "key": key, "rating": None, "comment": None}

    def _ripen(self) -> None:
        """Write the oldest row without waiting longer for its rating."""
        _, row = self._waiting.popitem(last=False)
        self._due.append(row)

    def _drop(self) -> None:
        _, size = self._due.pop(0)
        self._bytes -= size
        self._count("dropped")

    async def _write(self) -> None:
        rows, self._due = self._due, []
        self._wrote_at, self._files = self._now(), self._files + 1
        at = datetime.fromtimestamp(self._now(), UTC)
        name = f"{at:%H%M%S}-{self._process}-{self._files:06d}.jsonl.zst"
        uri = f"{self._store.root}/{at:%Y-%m-%d}/{name}"
        try:
            await detached(partial(self._put, uri, [row for row, _ in rows]))
        except StoreError as error:
            log.warning(f"feedback: {len(rows)} rows are not written yet, {error}")
            self._due = [*rows, *self._due]
            return
        for _, size in rows:
            self._bytes -= size
            self._count("written")

    def _put(self, uri: str, rows: Iterable[dict[str, Any]]) -> None:
        from zstandard import ZstdCompressor

        lines = [json.dumps(self._masked(row), ensure_ascii=True) + "\n" for row in rows]
        self._store.put(uri, ZstdCompressor(write_checksum=True).compress("".join(lines).encode()))

    def _masked(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the row as it is written. Masking is slow,
        so it is not done while a client waits."""
        if not self._settings.mask:
            return row
        mask = Masker(self._settings.phone_regions)
        changed: dict[str, Any] = {
            name: mask(row[name]) for name in ("answer", "comment") if row.get(name)
        }
        if "messages" in row:
            changed["messages"] = [
                {**each, "content": mask(each["content"])} for each in row["messages"]
            ]
        return {**row, **changed, "masked": dict(mask.found)}

    def _sweep(self) -> None:
        """Delete the folders of days older than the retention."""
        first = datetime.fromtimestamp(self._now(), UTC).date() - timedelta(
            days=self._settings.retention_days
        )
        root = f"{self._store.root}/"
        try:
            old = [
                uri
                for uri, _ in self._store.list(root)
                if (day := uri.removeprefix(root).partition("/")[0]) < first.isoformat()
                and _is_day(day)
            ]
            if old:
                self._store.delete(*old)
        except StoreError as error:
            log.warning(f"feedback: old rows could not be deleted, {error}")


def _time(row: Mapping[str, Any]) -> float:
    return datetime.fromisoformat(row["time"]).timestamp()


def _is_day(name: str) -> bool:
    try:
        return len(name) == 10 and bool(datetime.strptime(name, "%Y-%m-%d"))
    except ValueError:
        return False
