"""Code that benchmarks of reasoning share: an answer is right or wrong, and no judge is asked.

They show whether alignment cost the model an ability. Each share of right answers has its paired
difference to the base next to it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

from moaa import statistics
from moaa.artifacts.table import Row
from moaa.benchmarks.benchmark import Benchmark, Match, Played, Score, TableName
from moaa.benchmarks.data import digest_of, evenly
from moaa.benchmarks.differences import base_of
from moaa.benchmarks.harness import Doc, Marks
from moaa.benchmarks.items import Item
from moaa.benchmarks.rows import DataRow, read
from moaa.chat.message import Ask, Message
from moaa.declaration import RoleCalls
from moaa.errors import RecipeError
from moaa.plan.calls import answering
from moaa.recipe.reasoning import Reasoning
from moaa.recipe.schema import Recipe, Sampling

S = TypeVar("S", bound=Reasoning)

STOPS = 4
"""The OpenAI protocol allows no more stop texts. An answer is cut at all of them anyway."""


class Reasons(Benchmark[S]):
    """A benchmark whose answers a program marks. A subclass says how."""

    table: ClassVar[TableName] = "marks"
    main: ClassVar[str]
    """The benchmark's main metric."""
    row: ClassVar[type[DataRow]]
    """The columns of a question in its data: all are needed."""
    count: ClassVar[int]
    """How many questions are published."""
    content: ClassVar[str]
    """`data.digest_of` the published questions; empty if not known."""

    @property
    def judges(self) -> frozenset[str]:
        """Empty: only the entrants are asked."""
        return frozenset()

    def items(self, rows: Iterable[Row]) -> list[Item]:
        """Return its questions, each a conversation; `given` is the row without empty fields."""
        docs = self.chosen(self.documents(rows))
        if not docs:
            return []
        self.prepare(docs)
        stops = self.stops[:STOPS]
        sampling = Sampling(temperature=0.0, max_tokens=self.settings.max_tokens, stop=stops)
        return [
            Item(
                id=self.identity(doc),
                messages=self.messages(doc),
                sampling=sampling,
                group=self.group(doc),
                given=doc,
            )
            for doc in docs
        ]

    def documents(self, rows: Iterable[Row]) -> list[Doc]:
        """Return its questions in the order of their names, without fields that other sources add.

        The same content gives the same documents, in whatever file or data set it came.
        """
        found: dict[str, Doc] = {}
        hint = f"Each row needs {', '.join(self.row.columns())}: give the published questions."
        for row in rows:
            read(self.row, row, self.name, hint)
            doc = {name: plain(row[name]) for name in self.row.columns()}
            name = self.identity(doc)
            if found.setdefault(name, doc) != doc:
                raise RecipeError(
                    f"{self.title}: two different questions are called {name!r}. Give the "
                    "published questions, each once."
                )
        return [found[name] for name in sorted(found)]

    def asked(self, rows: Iterable[Row]) -> list[tuple[str, tuple[str, ...]]]:
        """Return the questions themselves, without examples; lm-eval is not loaded for it."""
        named = ("question", "prompt")
        columns = self.row.columns()
        column = next((name for name in columns if name in named), columns[0])
        docs = Reasons.documents(self, rows)
        return [(self.identity(doc), (str(doc[column]),)) for doc in docs]

    @abstractmethod
    def identity(self, doc: Doc) -> str:
        """Return the name of a question."""

    def chosen(self, docs: Sequence[Doc]) -> list[Doc]:
        """Return the questions that are asked: at most `limit`, evenly spread."""
        return evenly(docs, self.settings.limit)

    def group(self, doc: Doc) -> str:
        """Return the group of similar questions: the question's source. Empty: not known."""
        return ""

    def subset(self, item: Item) -> str:
        """Return the part of the benchmark that has its own number; empty if there is none."""
        return ""

    def prepare(self, docs: Sequence[Doc]) -> None:
        """Load what `messages` and `marks` need. Raises RecipeError, with the remedy."""

    @property
    def stops(self) -> tuple[str, ...]:
        """The texts at which an answer ends."""
        return ()

    @abstractmethod
    def messages(self, doc: Doc) -> tuple[Message, ...]:
        """Return the conversation for the model."""

    @abstractmethod
    def marks(self, doc: Doc, text: str) -> Marks:
        """Return what each metric says about an answer."""

    async def judge_match(self, match: Match, ask: Ask) -> Row:
        """Return the marks of one answer, in the form of `row_of`."""
        (answer,) = match.answers[0]
        return row_of(self.marks(match.item.given, answer.text))

    def scores(self, played: Played) -> list[Score]:
        """Return for each entrant the share of right answers by every metric, the main one also for
        each subset, and its difference to the base, paired by question."""
        marked = {name: _by_item(played.judgements.get((name,), {})) for name in played.entrants}
        base = base_of(list(marked))
        found: list[Score] = []
        for name, by_item in marked.items():
            items = [item for item in played.items if item.id in by_item]
            if not items:
                continue
            for metric in by_item[items[0].id]:
                verdicts, groups = _verdicts(items, by_item, metric)
                rate = statistics.clustered_share(verdicts, groups)
                found.append(Score(name, metric, rate, main=metric == self.main))
            found += self._subsets(name, items, by_item)
            if name != base:
                found += self._differences(name, base, played.items, by_item, marked[base])
        return found

    def _subsets(self, name: str, items: Sequence[Item], by_item: _ByItem) -> Iterator[Score]:
        for subset in sorted({self.subset(item) for item in items} - {""}):
            chosen = [item for item in items if self.subset(item) == subset]
            verdicts, groups = _verdicts(chosen, by_item, self.main)
            rate = statistics.clustered_share(verdicts, groups)
            yield Score(name, self.main, rate, subset=subset)

    def _differences(
        self, name: str, base: str, items: Sequence[Item], ours: _ByItem, theirs: _ByItem
    ) -> Iterator[Score]:
        """Yield the paired difference to the base, on the questions where both have marks."""
        both = [item for item in items if item.id in ours and item.id in theirs]
        if not both:
            return
        a, groups = _verdicts(both, ours, self.main)
        b, _ = _verdicts(both, theirs, self.main)
        if len(set(groups)) == len(groups):
            ours_right, theirs_right = [each > 0 for each in a], [each > 0 for each in b]
            estimate = statistics.binary_difference(ours_right, theirs_right)
            p = statistics.mcnemar(ours_right, theirs_right)
        else:
            estimate = statistics.difference(a, b, groups)
            p = statistics.p_value(estimate)
        yield Score(name, f"{self.main} difference", estimate, against=base, about={"p": p})

    def is_published(self, items: Sequence[Item]) -> bool:
        """Return whether the questions have the published content."""
        return digest_of(item.given for item in items) == self.content

    def incomparable(self, items: Sequence[Item]) -> str:
        """Return why its shares cannot be compared with published ones; empty if they can."""
        if len(items) != self.count:
            return f"{len(items):,} of its {self.count:,} questions. {self.differs()}".strip()
        if self.content and not self.is_published(items):
            return "Its questions are not the published ones."
        if not self.content and self.settings.data:
            return "Its questions are the recipe's: they may differ from the published ones."
        return self.differs()

    def differs(self) -> str:
        """Return how the questions are asked differently from published numbers;
        empty if they are not."""
        return ""

    def calls(self, recipe: Recipe) -> Iterator[RoleCalls]:
        """Yield one answer of each contestant to each question."""
        questions = self.question_count(self.count)
        answer = min(recipe.plan.answer_tokens, self.settings.max_tokens)
        yield from answering(recipe, questions, 1, answer)


def row_of(marks: Marks, outcome: str = "") -> Row:
    """Return marks as a judgement: `marks` is a list of {"metric", "value", "verdicts"}. `outcome`:
    the result of the answer's program, if it has one."""
    found = [
        {
            "metric": metric,
            "value": sum(value) / len(value) if isinstance(value, list) else value,
            "verdicts": value if isinstance(value, list) else [],
        }
        for metric, value in marks.items()
    ]
    return {"marks": found, "lost": [], "outcome": outcome}


_ByItem = Mapping[str, Mapping[str, float | list[bool]]]
"""Item -> metric -> its value, or its verdicts."""


def _by_item(judgements: Mapping[str, Row]) -> _ByItem:
    return {
        id: {mark["metric"]: mark["verdicts"] or mark["value"] for mark in row["marks"]}
        for id, row in judgements.items()
    }


def _verdicts(
    items: Sequence[Item], by_item: _ByItem, metric: str
) -> tuple[list[float], list[str]]:
    """Return every verdict of a metric, and for each the group that it belongs to. Verdicts on one
    answer are similar, and so are questions of one group."""
    verdicts: list[float] = []
    groups: list[str] = []
    for item in items:
        value = by_item[item.id][metric]
        values = [float(each) for each in value] if isinstance(value, list) else [value]
        verdicts += values
        groups += [item.group or item.id] * len(values)
    return verdicts, groups


def plain(value: Any) -> Any:
    """Return the value in its plainest JSON form: no empty fields, whole numbers as integers.

    Data sets of the hub fill missing fields with null, and turn integers into floats if some are
    missing.
    """
    if isinstance(value, Mapping):
        return {name: plain(each) for name, each in value.items() if each is not None}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
