"""PPE: pairs of answers from Chatbot Arena with people's votes,
and pairs of a right and a wrong answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Final

from moaa.artifacts.table import Row
from moaa.benchmarks.benchmark import Score
from moaa.benchmarks.items import Item
from moaa.benchmarks.pairs import (
    PairBenchmark,
    accuracy_by,
    combined,
    not_judged,
    pair,
    right_share,
)
from moaa.benchmarks.rows import READ_FROM, DataRow, Name, read, refusal
from moaa.chat.message import Message
from moaa.errors import RecipeError
from moaa.recipe import evaluation
from moaa.recipe.schema import Recipe, Source

BETTER: Final[Mapping[str, str]] = {"model_a": "a", "model_b": "b"}
"""The values of `winner` that are not a tie."""
TIE: Final = "tie"
"""How the others begin: `tie`, `tie (bothbad)`."""
SETS: Final[Mapping[str, str]] = {
    "mmlu-pro": "PPE-MMLU-Pro-Best-of-K",
    "math": "PPE-MATH-Best-of-K",
    "gpqa": "PPE-GPQA-Best-of-K",
    "ifeval": "PPE-IFEval-Best-of-K",
    "mbpp-plus": "PPE-MBPP-Plus-Best-of-K",
}
"""The sets whose answers a program has marked, and the names of their data."""
COUNTS: Final[Mapping[str, int]] = {"human": 16_038} | dict.fromkeys(SETS, 2_555)
"""The number of pairs, for the plan. The five sets have about 12,780 together (Frick et al.)."""
CORRECTNESS: Final = "accuracy, correctness"


HINT: Final = (
    "Rows of PPE have question_id, prompt, response_1, response_2 and winner; or question_id, "
    "prompt, response_1, …, scores and sampled_conflict_pairs."
)


class Vote(DataRow):
    """Two answers, and which one a person voted for."""

    question_id: Name
    prompt: str
    response_1: str
    response_2: str
    winner: str
    language: str | None = None


class BestOfK(DataRow):
    """Many answers of one model, their marks, and pairs of a right and a wrong one."""

    question_id: Name
    prompt: str
    scores: tuple[float, ...]
    sampled_conflict_pairs: tuple[tuple[int, int], ...]
    model_name: str | None = None


class Ppe(PairBenchmark[evaluation.Ppe]):
    """How often a judge agrees with people and with right answers (Frick et al.,
    arXiv 2410.14872)."""

    name: ClassVar[str] = "ppe"
    title: ClassVar[str] = "PPE"
    protocol: ClassVar[str] = (
        "Pairs of answers with the vote of one person; ties are left out. And pairs of a right and "
        "a wrong answer to benchmarks whose answers a program marks: the mean of the sets. A pair "
        "counts if the verdicts of both orders are for the better answer."
    )

    def __init__(self, settings: evaluation.Ppe, recipe: Recipe) -> None:
        super().__init__(settings, recipe)
        self.count = sum(COUNTS[name] for name in dict.fromkeys(settings.sets))

    @property
    def sources(self) -> tuple[Source, ...]:
        """The published data of the chosen sets."""
        if self.settings.data:
            return self.settings.data
        return tuple(
            Source(source="hub:lmarena-ai/PPE-Human-Preference-V1", split="test")
            if name == "human"
            else Source(source=f"hub:lmarena-ai/{SETS[name]}", split="train")
            for name in dict.fromkeys(self.settings.sets)
        )

    def items(self, rows: Iterable[Row]) -> list[Item]:
        """Return the pairs of PPE's rows that have a winner, of the chosen sets. A question may
        occur several times."""
        found: dict[str, Item] = {}
        for number, row in enumerate(rows):
            made = _proven(row) if "sampled_conflict_pairs" in row else _voted(row)
            for item in made:
                if (item.group if item.group in SETS else "human") in self.settings.sets:
                    # Several votes on the same question: the later ones get their row's number.
                    name = f"{item.id}/{number}" if item.id in found else item.id
                    while name in found:  # the same pair of the same row, again
                        name += "+"
                    found[name] = item
        return [item if item.id == id else _renamed(item, id) for id, item in found.items()]

    def accuracies(self, name: str, judged: Sequence[tuple[Item, Row]]) -> list[Score]:
        """Return the accuracy over all votes, over the English ones, over each set of right and
        wrong answers, and the mean of these sets."""
        votes = [(item, row) for item, row in judged if item.group not in SETS]
        found = accuracy_by(("", "English"), name, votes, lambda item: (item.group,))
        sets = {}
        for of in SETS:
            some = [(item, row) for item, row in judged if item.group == of]
            if some:
                sets[of] = right_share(some)
        if sets:
            mean = combined({of: (1.0, each) for of, each in sets.items()})
            about = not_judged(judged)
            found.append(Score(name, CORRECTNESS, mean, main=not votes, about=about))
            found += [Score(name, CORRECTNESS, each, subset=of) for of, each in sets.items()]
        return found

    def incomparable(self, items: Sequence[Item]) -> str:
        """Never empty: the published accuracies are of one order."""
        return (
            "The leaderboard takes one order of each pair; here both must agree, a stricter test. "
            f"These are {len(items)} pairs."
        )


def _voted(row: Row) -> Iterator[Item]:
    """Yield the pair of a vote, unless it is a tie."""
    vote = read(Vote, row, Ppe.name, HINT)
    if vote.winner not in BETTER and not vote.winner.startswith(TIE):
        problem = f"winner is {vote.winner!r}: expected {', '.join(BETTER)} or {TIE}"
        raise refusal(row, Ppe.name, problem, HINT)
    if vote.winner in BETTER:
        id = str(vote.question_id)
        yield Item(
            id=id,
            messages=(Message(role="user", content=vote.prompt),),
            group=vote.language or "",
            given={
                "a": vote.response_1,
                "b": vote.response_2,
                "better": BETTER[vote.winner],
                "prompt": id,
            },
        )


def _proven(row: Row) -> Iterator[Item]:
    """Yield the published pairs of a prompt, one answer of which is right."""
    best = read(BestOfK, row, Ppe.name, HINT)
    data = str(row.get(READ_FROM, ""))
    of = next((name for name, text in SETS.items() if text.lower() in data.lower()), "")
    if not of:
        raise RecipeError(
            f"evaluate.benchmarks.ppe: the set of the rows in '{data}' is not known. The "
            f"address must contain a set's name, for example {SETS['math']}."
        )
    prompt = "/".join(filter(None, (of, str(best.question_id), best.model_name or "")))
    query = [Message(role="user", content=best.prompt)]
    for i, j in best.sampled_conflict_pairs:
        first, second = (row.get(f"response_{each + 1}") for each in (i, j))
        in_scores = 0 <= min(i, j) <= max(i, j) < len(best.scores)
        if not (in_scores and isinstance(first, str) and isinstance(second, str)):
            problem = f"the pair [{i}, {j}] has no two texts (response_1, …) with scores"
            raise refusal(row, Ppe.name, problem, HINT)
        if best.scores[i] != best.scores[j]:
            better = best.scores[i] > best.scores[j]
            good, bad = (first, second) if better else (second, first)
            yield pair(f"{prompt}/{i}-{j}", query, good, bad, prompt=prompt, group=of)


def _renamed(item: Item, id: str) -> Item:
    return replace(item, id=id, given={**item.given, "prompt": id})
