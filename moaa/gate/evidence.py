"""The gate's evidence: the candidate next to the other model, prompt by prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from moaa.artifacts.table import Row
from moaa.gate.texts import refused, repeated
from moaa.recipe.evaluation import HEAD_TO_HEAD

ReadRows = Callable[[str], Iterable[Row]]
"""Returns the rows of a table of the stage evaluate, by its name."""

BAD: Final[Mapping[str, Callable[[Row], bool]]] = {
    "truncated": lambda answer: answer["finish_reason"] == "length",
    "empty": lambda answer: not answer["text"].strip(),
    "repeated": lambda answer: repeated(answer["text"]),
    "refused": lambda answer: refused(answer["text"]),
}
"""How an answer can be bad, whatever a judge says."""


@dataclass(frozen=True, slots=True)
class Paired:
    """The scores of both models on the same items, item by item."""

    candidate: list[float] = field(default_factory=list)
    other: list[float] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    """The group of each item (its subject, its source): items of one group may be similar."""

    def add(self, candidate: float, other: float, group: str) -> None:
        """Add one item."""
        self.candidate.append(candidate)
        self.other.append(other)
        self.groups.append(group)


@dataclass(frozen=True, slots=True)
class Evidence:
    """All numbers that the rules use."""

    candidate: str
    other: str
    wins: list[float]
    """For each judged prompt the probability that the candidate's answer is better."""
    lengths: tuple[list[int], list[int]]
    """Characters of both answers to these prompts: the candidate's, the other's."""
    bad: dict[str, Paired]
    """For each kind in BAD and each held-out prompt: 1 if the answer is bad in this way, else 0."""
    reasoning: dict[str, Paired]
    """For each benchmark of reasoning and each question: 1 if the answer is right, else 0."""
    consistent: int = 0
    """The number of pairs whose two orders prefer the same answer."""
    in_both_orders: int = 0
    """The number of pairs that were judged in both orders."""
    lost: int = 0
    """The number of pairs that could not be judged."""
    same_judge: bool = False
    """Whether the judge also made the preferences that the candidate was trained on."""
    missing: dict[str, str] = field(default_factory=dict)
    """Benchmarks in the recipe that have no result, with the reason."""


def evidence_of(
    rows: ReadRows,
    candidate: str,
    other: str,
    *,
    reasoning: Mapping[str, str],
    missing: Mapping[str, str],
    same_judge: bool,
) -> Evidence:
    """Return the evidence in the tables of an evaluation.

    `reasoning` maps each benchmark of reasoning to its main metric.
    """
    answers: dict[str, dict[str, Row]] = {candidate: {}, other: {}}
    for row in rows("answers"):
        if row["benchmark"] == HEAD_TO_HEAD and row["model"] in answers:
            answers[row["model"]][row["id"]] = row
    ours, theirs = answers[candidate], answers[other]
    judgements = [
        row
        for row in rows("judgements")
        if row["benchmark"] == HEAD_TO_HEAD and {row["model_a"], row["model_b"]} == set(answers)
    ]
    wins = {
        row["id"]: row["p"] if row["model_a"] == candidate else 1 - row["p"]
        for row in judgements
        if row["p"] is not None
    }
    both = [row for row in judgements if len(row["orders"]) == 2]
    rejected = [
        row
        for row in rows("rejected")
        if row["benchmark"] == HEAD_TO_HEAD
        and row["what"] == "judgements"
        and set(row["who"].split(" against ")) == set(answers)
    ]
    paired = _reasoning(rows("marks"), candidate, other, reasoning)
    nothing = f"no question has an answer of both {candidate} and {other}"
    return Evidence(
        candidate,
        other,
        wins=list(wins.values()),
        lengths=([len(ours[id]["text"]) for id in wins], [len(theirs[id]["text"]) for id in wins]),
        bad=_bad(ours, theirs),
        reasoning=paired,
        consistent=sum(len({order["verdict"] for order in row["orders"]}) == 2 for row in both),
        in_both_orders=len(both),
        lost=len(rejected) + sum(row["p"] is None for row in judgements),
        same_judge=same_judge,
        missing={**missing, **{name: nothing for name in reasoning if name not in paired}},
    )


def _bad(ours: Mapping[str, Row], theirs: Mapping[str, Row]) -> dict[str, Paired]:
    found = {name: Paired() for name in BAD}
    for id in ours.keys() & theirs.keys():
        for name, is_bad in BAD.items():
            found[name].add(float(is_bad(ours[id])), float(is_bad(theirs[id])), id)
    return found


def _reasoning(
    marks: Iterable[Row], candidate: str, other: str, metrics: Mapping[str, str]
) -> dict[str, Paired]:
    """Pair the main marks of both models. An answer with several verdicts counts
    with their mean."""
    marked: dict[tuple[str, str], dict[str, tuple[float, str]]] = {}
    for row in marks:
        if row["benchmark"] in metrics and row["entrant"] in (candidate, other):
            main = metrics[row["benchmark"]]
            value = next(mark["value"] for mark in row["marks"] if mark["metric"] == main)
            of_model = marked.setdefault((row["benchmark"], row["entrant"]), {})
            of_model[row["id"]] = (value, row["group"] or row["id"])
    found = {}
    for benchmark in metrics:
        ours = marked.get((benchmark, candidate), {})
        theirs = marked.get((benchmark, other), {})
        paired = Paired()
        for id in sorted(ours.keys() & theirs.keys()):
            paired.add(ours[id][0], theirs[id][0], ours[id][1])
        if paired.groups:
            found[benchmark] = paired
    return found
