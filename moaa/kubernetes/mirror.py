"""A copy of the objects of one kind that a thread keeps true by watching."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable
from typing import Any

from moaa.errors import ClusterError
from moaa.kubernetes.api import Cluster, Object, lines
from moaa.kubernetes.kinds import Kind
from moaa.kubernetes.refusal import Gone, Unreachable

RETRY_S = 1.0


class Mirror:
    """All objects of a kind with these labels, by name.

    `changed` is called from the thread whenever `objects` or `error` has changed, and `deleted`
    before that with what an object last was when the API server tells that it is gone. A watch that
    ends, breaks or is too old (410) is opened again, after a fresh list where needed: nothing is
    missed for good.
    """

    def __init__(
        self,
        cluster: Cluster,
        kind: Kind,
        labels: str,
        changed: Callable[[], None],
        deleted: Callable[[Object], None] = lambda last: None,
    ) -> None:
        self.objects: dict[str, Object] = {}
        self.error: ClusterError | None = None
        """A right is missing, or the like: the copy is not kept any more."""
        self._cluster, self._kind, self._labels, self._changed, self._deleted = (
            cluster,
            kind,
            labels,
            changed,
            deleted,
        )
        self._stopped = threading.Event()
        self._version = ""
        self._stream: Any = None

    def start(self) -> None:
        """Returns when the first list is there. Raises ClusterError."""
        self._list()
        threading.Thread(
            target=self._follow, name=f"mirror of {self._kind.plural}", daemon=True
        ).start()

    def stop(self) -> None:
        """No more changes; the thread ends at once, or with its connection."""
        self._stopped.set()
        if (stream := self._stream) is not None:
            with contextlib.suppress(Exception):  # whatever a connection says that is being ended
                stream.shutdown()

    def _list(self) -> None:
        found, self._version = self._cluster.listing(self._kind, self._labels)
        self.objects = {each["metadata"]["name"]: each for each in found}
        self._changed()

    def _follow(self) -> None:
        listed = True
        while not self._stopped.is_set():
            try:
                if not listed:
                    self._list()
                    listed = True
                self._watch()
            except Gone:
                listed = False
            except Unreachable:
                self._stopped.wait(RETRY_S)
            except Exception as error:
                if isinstance(error, ClusterError):
                    self.error = error
                    self._changed()
                    return
                self.error = ClusterError(f"the watch of {self._kind.plural} failed: {error!r}")
                self._changed()
                raise

    def _watch(self) -> None:
        """Take changes in until the stream ends, by its own time limit or broken."""
        stream = self._cluster.watch(self._kind, self._labels, self._version)
        self._stream = stream
        try:
            if self._stopped.is_set():  # before there was a stream to end
                return
            for line in lines(stream):
                if self._stopped.is_set():
                    return
                try:
                    event = json.loads(line)
                except ValueError:
                    raise Unreachable(
                        f"the watch of {self._kind.plural} was cut in the middle of a line"
                    ) from None
                seen = event["object"]
                if event["type"] == "ERROR":
                    kind = Gone if seen.get("code") == 410 else Unreachable
                    raise kind(f"the watch of {self._kind.plural} ended: {seen.get('message')}")
                self._version = seen["metadata"]["resourceVersion"]
                if event["type"] != "BOOKMARK":
                    self._take(event["type"], seen)
        finally:
            self._stream = None
            stream.close()

    def _take(self, what: str, seen: Object) -> None:
        others = {
            name: each for name, each in self.objects.items() if name != seen["metadata"]["name"]
        }
        if what == "DELETED":
            self._deleted(seen)
        self.objects = others if what == "DELETED" else {**others, seen["metadata"]["name"]: seen}
        self._changed()
