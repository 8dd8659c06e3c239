"""A container's log, followed across broken connections."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from moaa.kubernetes.api import Cluster
from moaa.kubernetes.transport import lines

OVERLAP_S: Final = 2.0
"""A new connection starts this many seconds earlier: lines of standard output and standard error
may come in another order than their time stamps."""


class Log:
    """The log of one container. Each line comes once, even if the log is opened again."""

    def __init__(
        self, cluster: Cluster, pod: str, container: str, *, silence_s: float = 60.0
    ) -> None:
        """`silence_s`: a connection without a line for longer counts as broken."""
        self._cluster, self._silence_s = cluster, silence_s
        self._pod, self._container = pod, container
        self._newest = 0.0
        self._recent: deque[tuple[float, str]] = deque()
        self._seen: set[str] = set()
        """The recent lines, with their stamps."""

    def read(self) -> Iterator[str]:
        """Yield the new lines until the log or the connection ends.

        Raises NotFound, Unreachable.
        """
        query, read_to = {"timestamps": "true"}, self._newest - OVERLAP_S
        if read_to > 0:
            query["sinceTime"] = datetime.fromtimestamp(read_to, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        stream = self._cluster.follow_log(
            self._pod, self._container, query, silence_s=self._silence_s
        )
        try:
            for each in lines(stream):
                line = each.decode(errors="replace")
                stamp, _, text = line.partition(" ")
                try:
                    at = datetime.fromisoformat(stamp).timestamp()
                except ValueError:  # a line by the kubelet itself has no stamp
                    at, text = self._newest, line
                if at >= read_to and line not in self._seen:
                    self._keep(at, line)
                    yield text
        finally:
            stream.close()

    def _keep(self, at: float, line: str) -> None:
        self._newest = max(self._newest, at)
        self._recent.append((at, line))
        self._seen.add(line)
        while self._recent[0][0] < self._newest - OVERLAP_S:
            self._seen.discard(self._recent.popleft()[1])
