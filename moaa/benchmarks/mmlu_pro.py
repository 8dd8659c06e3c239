"""MMLU-Pro: questions of 14 subjects, each with up to ten choices."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import ClassVar, Final

from pydantic import Field

from moaa.artifacts.table import Row
from moaa.benchmarks import harness
from moaa.benchmarks.harness import Doc, Marks
from moaa.benchmarks.items import Item
from moaa.benchmarks.reasoning import Reasons, plain
from moaa.benchmarks.rows import DataRow, Name, read
from moaa.chat.message import Message
from moaa.errors import RecipeError
from moaa.recipe import reasoning
from moaa.recipe.schema import Source

REVISION: Final = "b189ec765aa7ed75c8acfea42df31fdae71f97be"
"""Its questions were corrected several times, so other copies have some different ones."""


class Question(DataRow):
    """A question of a subject (`category`) with its choices, and where it is from (`src`)."""

    question_id: Name
    question: str
    options: tuple[str, ...] = Field(min_length=1)
    answer: str
    category: str
    src: str


class Solved(Question):
    """A question with a written chain of thought: an example."""

    cot_content: str


class MmluPro(Reasons[reasoning.MmluPro]):
    """The share of questions with the right letter, over all subjects and in each."""

    name: ClassVar[str] = "mmlu_pro"
    title: ClassVar[str] = "MMLU-Pro"
    protocol: ClassVar[str] = (
        "Each question comes after solved examples of its subject, each a turn of the chat. Right: "
        "the letter after 'the answer is'. Questions of one source count as alike."
    )
    published: ClassVar[tuple[Source, ...]] = (
        Source(source="hub:TIGER-Lab/MMLU-Pro", split="test", revision=REVISION),
        Source(source="hub:TIGER-Lab/MMLU-Pro", split="validation", revision=REVISION),
    )
    content: ClassVar[str] = ""
    count: ClassVar[int] = 12_032
    packages: ClassVar[tuple[str, ...]] = ("lm_eval",)
    main: ClassVar[str] = "exact_match, custom-extract"
    row: ClassVar[type[DataRow]] = Question

    def documents(self, rows: Iterable[Row]) -> list[Doc]:
        """Return its questions; rows with a written chain of thought are the examples."""
        questions: list[Row] = []
        solved: list[Row] = []
        for row in rows:
            (solved if row.get("cot_content") else questions).append(row)
        for row in solved:
            read(Solved, row, self.name, f"Examples have {', '.join(Solved.columns())}.")
        self._examples: dict[str, list[Doc]] = defaultdict(list)
        for row in sorted(solved, key=lambda row: str(row["question_id"])):
            kept = {name: plain(row[name]) for name in Solved.columns()}
            self._examples[str(row["category"])].append(kept)
        return super().documents(questions)

    def chosen(self, docs: Sequence[Doc]) -> list[Doc]:
        """Return at most `limit` questions, each subject by its share."""
        return stratified(docs, self.settings.limit)

    def prepare(self, docs: Sequence[Doc]) -> None:
        """Load lm-eval's task of each subject."""
        by_subject: dict[str, list[Doc]] = defaultdict(list)
        for doc in docs:
            by_subject[doc["category"]].append(doc)
        self._tasks = {}
        for subject, theirs in by_subject.items():
            examples = self._examples.get(subject, [])
            if len(examples) < self.settings.examples:
                raise RecipeError(
                    f"MMLU-Pro: {len(examples)} solved examples of {subject}, but `examples` is "
                    f"{self.settings.examples}. Add the validation split (rows with `cot_content`) "
                    "to `data`, or set `examples: 0`."
                )
            self._tasks[subject] = harness.load(
                f"mmlu_pro_{subject.replace(' ', '_')}",
                theirs,
                folder="mmlu_pro",
                examples=examples,
                shots=self.settings.examples,
            )

    def identity(self, doc: Doc) -> str:
        """Return its number."""
        return str(doc["question_id"])

    def group(self, doc: Doc) -> str:
        """Return where the question was taken from."""
        return str(doc["src"])

    def subset(self, item: Item) -> str:
        """Return its subject."""
        return str(item.given["category"])

    @property
    def stops(self) -> tuple[str, ...]:
        """The tasks' stop texts: the same for all subjects."""
        return next(iter(self._tasks.values())).stops

    def messages(self, doc: Doc) -> tuple[Message, ...]:
        """Return the question with its choices, after the examples."""
        return self._tasks[doc["category"]].messages(doc)

    def marks(self, doc: Doc, text: str) -> Marks:
        """Return the exact match of the letter."""
        return self._tasks[doc["category"]].marks(doc, text)

    def differs(self) -> str:
        """Return a note unless 5 examples are shown, as for published numbers."""
        n = self.settings.examples
        return "" if n == 5 else f"{n} examples before each question; published numbers have 5."


def stratified(docs: Sequence[Doc], limit: int | None) -> list[Doc]:
    """Return at most `limit` documents, each category by its share (largest remainders first).

    A hash of their number decides which ones: the same ones, in whatever order they come.
    """
    if limit is None or limit >= len(docs):
        return list(docs)
    sizes = Counter(doc["category"] for doc in docs)
    exact = {name: limit * size / len(docs) for name, size in sizes.items()}
    take = {name: int(share) for name, share in exact.items()}
    rest = sorted(exact, key=lambda name: (take[name] - exact[name], name))
    for name in rest[: limit - sum(take.values())]:
        take[name] += 1
    found: list[Doc] = []
    for name in sorted(sizes):
        ours = [doc for doc in docs if doc["category"] == name]
        found += sorted(ours, key=_drawn)[: take[name]]
    return found


def _drawn(doc: Doc) -> str:
    return hashlib.sha256(str(doc["question_id"]).encode()).hexdigest()
