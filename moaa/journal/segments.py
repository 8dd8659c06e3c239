"""The format of a journal on S3: segments of entries, written once, joined if small, deleted when
no longer needed.

    rows/TIME-ATTEMPT-N.jsonl.zst      ["conversation", "row", RECORD]
    replies/TIME-ATTEMPT-N.jsonl.zst   ["conversation", "key of the call", REPLY]

RECORD is {"row": …}, {"rejected": {"reason", "detail"}}, or null for a conversation that was
forgotten. A segment is one or more zstd frames (with checksum) of JSON lines: `zstdcat` reads it,
and segments are joined by concatenation.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from moaa.errors import ArtifactError, StoreError, without_stop
from moaa.store import Missing, Store
from moaa.store.bytes import read_ahead, to_json

if TYPE_CHECKING:
    from zstandard import ZstdCompressor, ZstdDecompressor

EntryKind = Literal["rows", "replies"]

JOINED = 32
"""How many small segments are joined into one. An attempt of ten hours leaves hundreds of objects
to read, not tens of thousands."""
READERS = 8
_JSON = json.JSONDecoder()


class JournalEntry(NamedTuple):
    """One line: the conversation; `row` or the key of the call; the JSON of the record or reply."""

    conversation: str
    key: str
    text: bytes


class EarlierEntry(NamedTuple):
    """An entry of an earlier attempt: its segment, and its text `compressed` (empty for null)."""

    segment: str
    conversation: str
    key: str
    text: bytes


@dataclass(eq=False, slots=True)
class _Segment:
    uri: str
    data: bytes
    """The data, kept for joining; empty if the segment is large enough to stay."""
    unfinished: set[str]
    """The conversations of its replies whose records are not on S3 yet."""


class Segments:
    """The segments of one attempt and those taken over from earlier ones. Not thread-safe."""

    def __init__(self, store: Store, uri: str, large: int) -> None:
        self.finished: set[str] = set()
        """Conversations whose records are on S3."""
        self.left_behind = 0
        """How many unneeded segments could not be deleted.
        They do no harm and are deleted with the journal."""
        self._store = store
        self._uri = uri
        self._large = large
        self._attempt = secrets.token_hex(4)
        self._written = 0
        self._newest_ms = 0
        """The latest time in any segment's name. The next segment gets a later one, whatever the
        clock says: a record with a later name replaces one with an earlier name."""
        self._seen: dict[EntryKind, set[str]] = {"rows": set(), "replies": set()}
        self._small: dict[EntryKind, list[_Segment]] = {"rows": [], "replies": []}
        self._replies_of: dict[str, set[_Segment]] = {}

    def read(self, kind: EntryKind, leave_out: Collection[str] = ()) -> Iterator[EarlierEntry]:
        """Yield the entries of earlier attempts in the order of writing,
        without those of some conversations."""
        seen = self._seen[kind]
        while uris := [
            uri for uri, _ in self._store.list(f"{self._uri}/{kind}") if uri not in seen
        ]:
            # List again until nothing is new: another attempt may join segments at the same time.
            seen.update(uris)
            self._newest_ms = max(self._newest_ms, *map(_time_ms, uris))
            for found in read_ahead(lambda uri: self._found(uri, leave_out), uris, READERS):
                yield from found

    def adopt(self, unfinished: Mapping[str, set[str]], finished: Iterable[str]) -> None:
        """Take over what was read. `unfinished`: reply segments with the conversations that still
        need them; the other segments are deleted."""
        self.finished.update(finished)
        for uri, conversations in unfinished.items():
            self._needed_by(_Segment(uri, b"", conversations))
        self._tidy(self._seen["replies"] - unfinished.keys())

    def write(self, kind: EntryKind, entries: Iterable[JournalEntry]) -> None:
        """Write the entries to S3, in segments of about `large` bytes."""
        lines: list[bytes] = []
        conversations: set[str] = set()
        size = 0
        for conversation, key, text in entries:
            lines.append(b"[%b,%b,%b]\n" % (to_json(conversation), to_json(key), text))
            conversations.add(conversation)
            size += len(lines[-1])
            if size >= self._large:
                self._put(kind, _packed(lines), conversations)
                lines, conversations, size = [], set(), 0
        if lines:
            self._put(kind, _packed(lines), conversations)

    def finish(self, conversations: set[str]) -> None:
        """Delete the reply segments that are no longer needed:
        these conversations have records on S3."""
        self.finished |= conversations
        done: set[_Segment] = set()
        for conversation in conversations:
            for segment in self._replies_of.pop(conversation, ()):
                segment.unfinished.discard(conversation)
                if not segment.unfinished:
                    done.add(segment)
        if done:
            self._small["replies"] = [
                segment for segment in self._small["replies"] if segment not in done
            ]
            self._tidy({segment.uri for segment in done})

    def _put(self, kind: EntryKind, data: bytes, conversations: set[str]) -> None:
        self._newest_ms = max(self._newest_ms + 1, time.time_ns() // 1_000_000)
        name = f"{self._newest_ms:013d}-{self._attempt}-{self._written:06d}.jsonl.zst"
        uri = f"{self._uri}/{kind}/{name}"
        self._written += 1
        self._store.put(uri, data)
        small = len(data) < self._large // 8
        segment = _Segment(
            uri, data if small else b"", conversations if kind == "replies" else set()
        )
        self._needed_by(segment)
        if small:
            self._small[kind].append(segment)
            self._join_if_many(kind, self._small[kind])
        elif kind == "rows":
            # Joined later, an earlier record would get a later name than one in this segment.
            self._small[kind] = []

    def _join_if_many(self, kind: EntryKind, small: list[_Segment]) -> None:
        if len(small) < JOINED and sum(len(segment.data) for segment in small) < self._large // 4:
            return
        unfinished = set().union(*(segment.unfinished for segment in small))
        self._small[kind] = []
        self._put(kind, b"".join(segment.data for segment in small), unfinished)
        for conversation in unfinished:
            self._replies_of[conversation].difference_update(small)
        self._tidy({segment.uri for segment in small})

    def _tidy(self, uris: Set[str]) -> None:
        try:
            self._store.delete(*uris)
        except StoreError:
            self.left_behind += len(uris)

    def _needed_by(self, segment: _Segment) -> None:
        for conversation in segment.unfinished:
            self._replies_of.setdefault(conversation, set()).add(segment)

    def _found(self, uri: str, leave_out: Collection[str]) -> list[EarlierEntry]:
        try:
            data = self._store.get(uri)
        except Missing:  # deleted after the list: it was joined, or is not needed
            return []
        found = []
        try:
            for line in _unpacked(data).decode().removesuffix("\n").split("\n"):
                conversation, end = _JSON.raw_decode(line, 1)
                if conversation not in leave_out:
                    key, end = _JSON.raw_decode(line, end + 1)
                    text = line[end + 1 : -1].encode()
                    found.append(
                        EarlierEntry(
                            uri, conversation, key, compressed(text) if text != b"null" else b""
                        )
                    )
        except (ValueError, TypeError, IndexError, RecursionError) as error:
            raise ArtifactError(
                f"{uri} is damaged ({without_stop(error)}). Restore it from a backup, or delete "
                "it: then its calls are asked again."
            ) from error
        return found


def _time_ms(uri: str) -> int:
    """Return the time in a segment's name; 0 if it has none."""
    first = uri.rsplit("/", 1)[1].partition("-")[0]
    return int(first) if first.isascii() and first.isdigit() else 0


def compressed(text: bytes) -> bytes:
    """Return the text as it is kept in memory: there may be a million of them."""
    return _contexts()[0].compress(text)


def expanded(data: bytes) -> bytes:
    """Return the text that was compressed."""
    return _contexts()[1].decompress(data)


_local = threading.local()


def _contexts() -> tuple[ZstdCompressor, ZstdDecompressor]:
    """Return the zstd contexts of this thread. Threads cannot share them, and creating one costs
    more than compressing a text."""
    import zstandard

    if not hasattr(_local, "contexts"):
        _local.contexts = zstandard.ZstdCompressor(level=1), zstandard.ZstdDecompressor()
    contexts: tuple[ZstdCompressor, ZstdDecompressor] = _local.contexts
    return contexts


def _packed(lines: list[bytes]) -> bytes:
    import zstandard

    return zstandard.ZstdCompressor(level=3, write_checksum=True).compress(b"".join(lines))


def _unpacked(data: bytes) -> bytes:
    """Return the content of all frames. Raises ValueError if one is cut
    or its checksum is wrong."""
    import zstandard

    texts = []
    while True:
        frame = zstandard.ZstdDecompressor().decompressobj()
        try:
            texts.append(frame.decompress(data))
        except zstandard.ZstdError as error:
            raise ValueError(str(error)) from error
        if not frame.eof:
            raise ValueError("it ends in the middle")
        if not (data := frame.unused_data):
            return b"".join(texts)
