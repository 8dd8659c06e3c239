"""What a published model does worse than the model that it was compared with, as measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

WORSE_ABOVE: Final = {
    "length": 1.0,
    "truncated answers": 0.0,
    "empty answers": 0.0,
    "repeated answers": 0.0,
}
"""Rules of the gate, and the value above which their number is a weakness.
More refusals may be wanted."""


def weaknesses(lineage: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each benchmark of reasoning with a lower score than another model's,
    for longer and broken answers, and for what was not measured. `lineage`: a version's."""
    return [*_reasoning(lineage), *_answers(lineage["decision"]["findings"])]


def _reasoning(lineage: Mapping[str, Any]) -> Iterator[str]:
    benchmarks = lineage["scores"].values()
    candidate = lineage["decision"]["candidate"]
    own = [
        (each["title"], score)
        for each in benchmarks
        for score in each["differences"]
        if score["entrant"] == candidate
    ]
    for title, score in own:
        if score["value"] < 0:
            yield (
                f"{title}: {100 * score['value']:+.1f} points against {score['against']} "
                f"({100 * score['low']:+.1f} to {100 * score['high']:+.1f}, n {score['n']})"
            )
    if not own:
        yield "Whether it reasons as well as before is not known: no benchmark of it was measured."
    for each in benchmarks:
        if each["failed"]:
            yield f"{each['title']} could not be measured: {each['failed']}"


def _answers(findings: list[Mapping[str, Any]]) -> Iterator[str]:
    for each in findings:
        rule, estimate = each["rule"], each["estimate"]
        if estimate and rule in WORSE_ABOVE and estimate["value"] > WORSE_ABOVE[rule]:
            yield f"{rule.capitalize()}: {each['about']}"
