"""PPE: pairs of answers of Chatbot Arena, and which of them people voted for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, Final

from moaa.benchmarks.benchmark import Item, Row, Score
from moaa.benchmarks.pairs import PairBenchmark, accuracy_by
from moaa.chat.message import Message
from moaa.errors import RecipeError
from moaa.recipe import evaluation
from moaa.recipe.schema import Source

COLUMNS: Final = ("question_id", "prompt", "response_1", "response_2", "winner")
BETTER: Final[Mapping[str, str]] = {"model_a": "a", "model_b": "b"}
"""Every other value of `winner` is a tie."""


class Ppe(PairBenchmark[evaluation.Ppe]):
    """How often a judge agrees with people (Frick et al., arXiv 2410.14872)."""

    name: ClassVar[str] = "ppe"
    title: ClassVar[str] = "PPE, human preferences"
    protocol: ClassVar[str] = (
        "Pairs of answers with the vote of one person; ties are left out. A pair counts if the "
        "verdicts of both orders are for the answer that was voted for."
    )
    published: ClassVar[tuple[Source, ...]] = (
        Source(source="hub:lmarena-ai/PPE-Human-Preference-V1", split="test"),
    )
    count = 16_038

    def items(self, rows: Iterable[Row]) -> list[Item]:
        """The pairs of PPE's rows that have a winner. A question may occur several times."""
        found: dict[str, Item] = {}
        for number, row in enumerate(rows):
            missing = [name for name in COLUMNS if name not in row]
            if missing:
                raise RecipeError(
                    f"evaluate.benchmarks.ppe: a row without {', '.join(missing)} is none of PPE. "
                    f"Its rows have {', '.join(COLUMNS)}."
                )
            if row["winner"] not in BETTER:
                continue
            id = str(row["question_id"])
            if id in found:
                id = f"{id}/{number}"
            found[id] = Item(
                id=id,
                messages=(Message(role="user", content=row["prompt"]),),
                group=row.get("language") or "",
                given={
                    "a": row["response_1"],
                    "b": row["response_2"],
                    "better": BETTER[row["winner"]],
                    "prompt": id,
                },
            )
        return list(found.values())

    def accuracies(self, name: str, judged: Sequence[tuple[Item, Row]]) -> list[Score]:
        """Over all pairs, and over those in English."""
        return accuracy_by(("", "English"), name, judged, lambda item: (item.group,))

    def incomparable(self, items: Sequence[Item]) -> str:
        """Always: the published accuracies are of one order."""
        return (
            "The leaderboard takes one order of each pair; here both must agree, a stricter test. "
            f"These are {len(items)} pairs."
        )
