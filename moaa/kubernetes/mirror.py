"""A copy of all objects of one kind. A thread keeps it up to date with a watch."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from moaa.concurrency import together
from moaa.errors import ClusterError, without_stop
from moaa.kubernetes.api import Cluster
from moaa.kubernetes.errors import Gone, Unreachable
from moaa.kubernetes.kinds import Kind, Object
from moaa.kubernetes.transport import lines
from moaa.progress.messages import log

if TYPE_CHECKING:
    from urllib3 import HTTPResponse

RETRY_S = 1.0


class Mirror:
    """All objects of a kind with these labels, by name.

    The thread calls `changed` after each change of `objects` or `error`. If an object was deleted,
    it first calls `deleted` with the object's last state. A watch that ends, breaks or is too old
    (410) is opened again, if needed after a new list, so no change is missed for good.
    """

    def __init__(
        self,
        cluster: Cluster,
        kind: Kind,
        labels: str,
        changed: Callable[[], None],
        deleted: Callable[[Object], None] = lambda last: None,
        *,
        fields: str = "",
    ) -> None:
        """`fields`: a field selector. With `metadata.name=…` the right to
        that one object is enough."""
        self.objects: dict[str, Object] = {}
        self.error: ClusterError | None = None
        """Why the copy is no longer kept up to date: a missing right, for example."""
        self._cluster, self._kind, self._labels, self._fields = cluster, kind, labels, fields
        self._changed, self._deleted = changed, deleted
        self._stopped = threading.Event()
        self._version = ""
        self._stream: HTTPResponse | None = None

    def start(self, patience_s: float = 0.0) -> None:
        """Read the first list, then keep it up to date in a thread. Raises ClusterError.

        For `patience_s` the list is tried again, until `stop`, if the API server is away.
        """
        give_up_at, said = time.monotonic() + patience_s, False
        while True:
            try:
                self._list()
                break
            except Unreachable as error:
                if time.monotonic() >= give_up_at or self._stopped.wait(RETRY_S):
                    raise
                if not said:
                    log.warning(
                        f"{without_stop(error)}. It is asked again, for up to "
                        f"{patience_s / 60:.0f} min"
                    )
                    said = True
        name = f"mirror of {self._kind.plural}"
        threading.Thread(target=self._follow, name=name, daemon=True).start()

    def stop(self) -> None:
        """Stop following changes. The thread ends at once, or with its connection."""
        self._stopped.set()
        if (stream := self._stream) is not None:
            with contextlib.suppress(Exception):  # a connection may raise anything when closed
                stream.shutdown()

    def _list(self) -> None:
        found, self._version = self._cluster.listing(self._kind, self._labels, fields=self._fields)
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
        """Apply changes until the stream ends: by its time limit, or because it broke."""
        stream = self._cluster.watch(self._kind, self._labels, self._version, fields=self._fields)
        self._stream = stream
        try:
            if self._stopped.is_set():  # `stop` ran before there was a stream to close
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
                    self._apply(event["type"], seen)
        finally:
            self._stream = None
            stream.close()

    def _apply(self, what: str, seen: Object) -> None:
        others = {
            name: each for name, each in self.objects.items() if name != seen["metadata"]["name"]
        }
        if what == "DELETED":
            self._deleted(seen)
        self.objects = others if what == "DELETED" else {**others, seen["metadata"]["name"]: seen}
        self._changed()


class Mirrors:
    """Base class of a view of several kinds: their mirrors are opened and closed together."""

    def __init__(self, *mirrors: Mirror, patience_s: float = 0.0) -> None:
        """`patience_s`: how long `open` waits for an API server that does not answer."""
        self._mirrors, self._patience_s = mirrors, patience_s

    async def open(self) -> None:
        """Read the namespace and start to watch it. Raises ClusterError if the cluster cannot be
        reached or a right is missing."""
        await together(
            asyncio.to_thread(mirror.start, self._patience_s) for mirror in self._mirrors
        )

    def close(self) -> None:
        """Stop watching."""
        for mirror in self._mirrors:
            mirror.stop()

    @property
    def error(self) -> ClusterError | None:
        """Why the view is no longer kept up to date; None while it is."""
        return next((mirror.error for mirror in self._mirrors if mirror.error), None)
