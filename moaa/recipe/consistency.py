"""Checks that the fields that decide about a model (gate, publish, promote) fit together."""

from __future__ import annotations

from collections.abc import Iterator

from moaa.recipe.evaluation import Evaluate
from moaa.recipe.gate import Gate
from moaa.recipe.promote import Promote
from moaa.recipe.publish import Publish


def problems(
    gate: Gate | None,
    publish: Publish | None,
    promote: Promote | None,
    evaluate: Evaluate,
    measured: tuple[str, ...],
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield each problem of these fields with its address. `measured`: all contestants."""
    if promote and not publish:
        yield ("promote",), "only what is published is promoted: add `publish: {}`."
    if not gate:
        if publish:
            yield ("publish",), "only what passes a gate is published: add `gate: {}`."
        return
    if evaluate.benchmarks.head_to_head is None:
        yield (
            ("gate",),
            "the gate compares two models head to head: leave "
            "`evaluate.benchmarks.head_to_head` in.",
        )
    for field, name in (("candidate", gate.candidate), ("against", gate.against)):
        if name and name not in measured:
            yield (
                ("gate", field),
                f"'{name}' is not measured: add it to evaluate.contestants "
                f"({', '.join(measured)}).",
            )
    if gate.against == gate.candidate:
        yield ("gate", "against"), "it is the candidate itself: name another contestant."
