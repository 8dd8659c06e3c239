"""The gateway's metrics in the text format of Prometheus (exposition 0.0.4).

Labels have only names from the configuration and statuses, so their number is bounded.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Final

SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
OWN_SECONDS: Final = (0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 1)

Labels = tuple[str, ...]


class Counter:
    """A number for each set of labels."""

    kind = "counter"

    def __init__(self, name: str, help_text: str, labels: Sequence[str] = ()) -> None:
        self.name, self.help_text, self.labels = f"moaa_gateway_{name}", help_text, tuple(labels)
        self._values: dict[Labels, float] = {}

    def add(self, *labels: str, by: float = 1) -> None:
        """Add to the number with these labels."""
        self._values[labels] = self._values.get(labels, 0) + by

    def value(self, *labels: str) -> float:
        """The number with these labels."""
        return self._values.get(labels, 0)

    def lines(self) -> Iterator[str]:
        """Yield one line for each set of labels."""
        for labels, value in self._values.items():
            yield f"{self.name}{_labels(self.labels, labels)} {_number(value)}"


class Gauge(Counter):
    """A number that is set."""

    kind = "gauge"

    def set(self, *labels: str, to: float) -> None:
        """Set the number with these labels."""
        self._values[labels] = to

    def clear(self) -> None:
        """Remove all numbers. Only those that are set next are shown."""
        self._values.clear()


class Histogram:
    """Seconds in buckets, for each set of labels."""

    kind = "histogram"

    def __init__(
        self, name: str, help_text: str, labels: Sequence[str], bounds: Sequence[float] = SECONDS
    ) -> None:
        self.name, self.help_text, self.labels = f"moaa_gateway_{name}", help_text, tuple(labels)
        self._bounds = tuple(bounds)
        self._values: dict[Labels, tuple[list[int], list[float]]] = {}

    def add(self, seconds: float, *labels: str) -> None:
        """Count one value with these labels."""
        if (found := self._values.get(labels)) is None:
            found = self._values[labels] = ([0] * (len(self._bounds) + 1), [0.0])
        found[0][bisect_left(self._bounds, seconds)] += 1
        found[1][0] += seconds

    def count(self, *labels: str) -> int:
        """How many values were counted with these labels."""
        found = self._values.get(labels)
        return sum(found[0]) if found else 0

    def lines(self) -> Iterator[str]:
        """Yield the buckets, the sum and the count of each set of labels."""
        names = (*self.labels, "le")
        for labels, (counts, total) in self._values.items():
            below = 0
            for bound, count in zip((*self._bounds, None), counts, strict=True):
                below += count
                shown = "+Inf" if bound is None else _number(bound)
                yield f"{self.name}_bucket{_labels(names, (*labels, shown))} {below}"
            yield f"{self.name}_sum{_labels(self.labels, labels)} {_number(total[0])}"
            yield f"{self.name}_count{_labels(self.labels, labels)} {below}"


class Metrics:
    """All metrics of one gateway."""

    def __init__(self) -> None:
        self.requests = Counter(
            "requests_total", "Answered requests.", ("model", "revision", "code")
        )
        self.seconds = Histogram("request_seconds", "Whole requests.", ("model",))
        self.first_token = Histogram(
            "ttft_seconds", "From a request to the first byte of its stream.", ("model", "revision")
        )
        self.overhead = Histogram(
            "overhead_seconds",
            "The gateway's own part of the time to the first byte.",
            ("model",),
            OWN_SECONDS,
        )
        self.tokens = Counter("tokens_total", "Tokens.", ("model", "member", "type"))
        self.dollars = Counter("dollars_total", "By the price of the model.", ("model", "member"))
        self.uncounted = Counter(
            "uncounted_streams_total", "Streams that did not report their tokens.", ("model",)
        )
        self.cancelled = Counter("cancelled_total", "Requests whose client left.", ("model",))
        self.retries = Counter(
            "upstream_retries_total", "Requests sent to another replica.", ("model", "reason")
        )
        self.broken = Counter("broken_streams_total", "Streams whose engine broke off.", ("model",))
        self.left_out = Counter(
            "left_out_total", "Missing members of mixtures.", ("mixture", "member", "reason")
        )
        self.feedback = Counter(
            "feedback_rows_total", "Rows of questions, answers and ratings.", ("result",)
        )
        self.refused = Counter("refused_total", "Requests over a limit.", ("key", "limit"))
        self.in_flight = Gauge("in_flight", "Requests at a model's servers now.", ("model",))
        self.waiting = Gauge("waiting", "Requests that wait for a model to wake.", ("model",))
        self.ready = Gauge("ready_replicas", "Replicas that answer.", ("model",))
        self.share = Gauge(
            "share_percent", "A slot's share of conversations.", ("model", "slot", "revision")
        )
        self.rollbacks = Counter(
            "rollbacks_total", "Revisions that were rolled back.", ("model", "revision")
        )
        self.oldest = Gauge("oldest_request_seconds", "Age of the oldest request in flight.")
        self.loop_lag = Gauge("loop_lag_seconds", "How late the last timer of the loop was.")

    def text(self) -> str:
        """Return all metrics as text."""
        parts: list[str] = []
        for each in vars(self).values():
            parts += [f"# HELP {each.name} {each.help_text}", f"# TYPE {each.name} {each.kind}"]
            parts += each.lines()
        return "\n".join(parts) + "\n"


def _labels(names: Labels, values: Labels) -> str:
    if not names:
        return ""
    inner = ",".join(f'{n}="{_escaped(v)}"' for n, v in zip(names, values, strict=True))
    return "{" + inner + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return f"{value:.10g}"
