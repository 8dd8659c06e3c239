"""A container's log as it is written, whatever happens to the connection."""

from __future__ import annotations

from collections.abc import Iterator

from moaa.kubernetes.api import Cluster, lines


class Log:
    """The log of one container, each line once, however often it is read again."""

    def __init__(self, cluster: Cluster, pod: str, container: str, *, silence_s: float = 60.0) -> None:
        """`silence_s`: a connection that says nothing for longer may be dead without a sign."""
        self._cluster, self._pod, self._container, self._silence_s = cluster, pod, container, silence_s
        self._since = ""

    def read(self) -> Iterator[str]:
        """The lines that were not read yet, until the log or the connection ends. Raises NotFound, Unreachable."""
        query = {"timestamps": "true", **({"sinceTime": self._since} if self._since else {})}
        stream = self._cluster.follow_log(self._pod, self._container, query, silence_s=self._silence_s)
        try:
            seen = self._since  # sinceTime is whole seconds for some servers: what was read comes again
            for line in lines(stream):
                stamp, _, text = line.decode(errors="replace").partition(" ")
                if stamp > seen:
                    self._since = stamp
                    yield text
        finally:
            stream.close()
