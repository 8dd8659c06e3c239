"""JudgeBench: pairs of answers to hard questions, one of which is objectively right."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, Final, Literal

from moaa.artifacts.table import Row
from moaa.benchmarks.benchmark import Score
from moaa.benchmarks.items import Item
from moaa.benchmarks.pairs import PairBenchmark, accuracy_by
from moaa.benchmarks.rows import DataRow, Name, read
from moaa.chat.message import Message
from moaa.recipe import evaluation
from moaa.recipe.schema import Source

CATEGORIES: Mapping[str, str] = {
    "mmlu-pro": "knowledge",
    "livebench-reasoning": "reasoning",
    "livebench-math": "math",
    "livecodebench": "coding",
}
"""The paper's name for each kind of question, by the start of the source's name."""


class Pair(DataRow):
    """A question with two answers of one model."""

    pair_id: Name
    source: str
    question: str
    response_model: str
    response_A: str
    response_B: str
    label: Literal["A>B", "B>A"]


HINT: Final = f"Rows of JudgeBench have {', '.join(Pair.columns())}."


class JudgeBench(PairBenchmark[evaluation.JudgeBench]):
    """How often a judge finds the right answer (Tan et al., arXiv 2410.12784)."""

    name: ClassVar[str] = "judge_bench"
    title: ClassVar[str] = "JudgeBench"
    protocol: ClassVar[str] = (
        "620 pairs of answers by one model to a question, one right and one wrong, judged in both "
        "orders; a pair counts if both verdicts are for the right one."
    )
    published: ClassVar[tuple[Source, ...]] = tuple(
        Source(source=f"hub:ScalerLab/JudgeBench/data/{split}-00000-of-00001.jsonl")
        for split in ("gpt", "claude")
    )
    count = 620
    digest: ClassVar[str] = "6546fab3e2bc9f99"

    def items(self, rows: Iterable[Row]) -> list[Item]:
        """Return the pairs in JudgeBench's own files."""
        return [self._item(row) for row in rows]

    def accuracies(self, name: str, judged: Sequence[tuple[Item, Row]]) -> list[Score]:
        """Return the accuracies over all pairs, by answering model, and by kind of question."""
        writers = dict.fromkeys(item.given["writer"] for item, _ in judged)
        subsets = ["", *writers, *dict.fromkeys(CATEGORIES.values())]
        return accuracy_by(subsets, name, judged, lambda item: (item.group, item.given["writer"]))

    def incomparable(self, items: Sequence[Item]) -> str:
        """Empty for all published pairs: the judge itself is measured."""
        if self.is_published(items):
            return ""
        return f"These {len(items)} pairs are not the 620 published ones."

    def _item(self, row: Row) -> Item:
        asked = read(Pair, row, self.name, HINT)
        category = next(
            (known for start, known in CATEGORIES.items() if asked.source.startswith(start)),
            asked.source,
        )
        return Item(
            id=str(asked.pair_id),
            messages=(Message(role="user", content=asked.question),),
            group=category,
            given={
                "a": asked.response_A,
                "b": asked.response_B,
                "better": "a" if asked.label == "A>B" else "b",
                "prompt": str(asked.pair_id),
                "writer": asked.response_model,
            },
        )
