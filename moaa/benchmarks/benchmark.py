"""The base class of benchmarks: questions, how answers are judged, and the scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Literal, TypeVar

from moaa.artifacts.table import Row
from moaa.benchmarks.data import digest, evenly
from moaa.benchmarks.entrants import Entrant
from moaa.benchmarks.items import EntrantAnswer, Item
from moaa.chat.controls import KNOWN, Controls
from moaa.chat.message import Ask
from moaa.declaration import RoleCalls
from moaa.recipe.schema import Judge, Part, Recipe, Source
from moaa.statistics import Estimate

RunProgram = Callable[[str], Awaitable[str]]
S = TypeVar("S", bound=Part)
TableName = Literal["judgements", "verdicts", "ratings", "marks"]
"""The tables of judgements: pairs of contestants, verdicts of measured judges, ratings by a judge,
and marks by a program."""


@dataclass(frozen=True, slots=True)
class Match:
    """The unit that is judged: the entrants of one match, with their answers to one item."""

    item: Item
    entrants: tuple[Entrant, ...]
    answers: tuple[tuple[EntrantAnswer, ...], ...]
    """The answers of each entrant in order, one for each turn. Empty if judges are measured."""
    controls: Controls = KNOWN
    run_program: RunProgram | None = None
    """Runs a Python program that a model wrote, in a sandbox. Returns `passed`, or why it did not
    pass. None: programs cannot be run here."""


@dataclass(frozen=True, slots=True)
class Score:
    """One number of a benchmark: how well an entrant did."""

    entrant: str
    metric: str
    """For example `win rate`. The report adds the judge's name."""
    estimate: Estimate
    against: str = ""
    """The other entrant, or the baseline."""
    subset: str = ""
    """The part of the questions that it is about (a category, a turn); empty: all of them."""
    main: bool = False
    """Whether this is the entrant's number in the table of all benchmarks."""
    about: Mapping[str, float] = field(default_factory=dict)
    """More: counts, and the p-value of a difference."""

    def to_json(self) -> Row:
        """Return the score as a row of the table `scores`, without its benchmark."""
        return {
            "entrant": self.entrant,
            "against": self.against,
            "metric": self.metric,
            "subset": self.subset,
            "main": self.main,
            "value": self.estimate.value,
            "low": self.estimate.low,
            "high": self.estimate.high,
            "n": self.estimate.n,
            "unit": self.estimate.unit,
            "level": self.estimate.level,
            "about": dict(self.about),
        }


@dataclass(frozen=True, slots=True)
class Played:
    """All answers and judgements, for the scores.

    Lost ones (a call that failed for good, a reply that could not be read) are not in it. The stage
    counts them and shows them beside the scores.
    """

    items: Sequence[Item]
    entrants: Sequence[str]
    answers: Mapping[str, Mapping[str, tuple[EntrantAnswer, ...]]]
    """Entrant -> item id -> its answers, one for each turn."""
    judgements: Mapping[tuple[str, ...], Mapping[str, Row]]
    """Match (names of entrants) -> item id -> what `judge` returned."""


class Benchmark(ABC, Generic[S]):
    """A benchmark with the recipe's settings. One subclass per file."""

    name: ClassVar[str]
    """In `evaluate.benchmarks`."""
    title: ClassVar[str]
    """The usual spelling: `MT-Bench`."""
    protocol: ClassVar[str]
    """How answers become a number, in at most two sentences."""
    measures: ClassVar[Literal["models", "judges"]] = "models"
    table: ClassVar[TableName] = "judgements"
    """The table that its judgements are written to."""
    official_judges: ClassVar[frozenset[str]] = frozenset()
    """The models that judged the published numbers."""
    published: ClassVar[tuple[Source, ...]] = ()
    """The published questions; empty: the held-out prompts of the run."""
    digest: ClassVar[str] = ""
    """`data.digest` of the published questions, if known."""
    beside: ClassVar[str] = ""
    """A column of rows that are no questions, so that `digest` does not cover them."""
    packages: ClassVar[tuple[str, ...]] = ()
    """Packages of the extra `evaluate` that it needs."""
    runs_programs: ClassVar[bool] = False
    """Whether it runs programs of models: only where `moaa.sandbox` works."""
    schema: ClassVar[int] = 1
    """Raise it when the same answers and judgements give other scores than before."""

    def __init__(self, settings: S, recipe: Recipe) -> None:
        self.settings = settings
        self.recipe = recipe

    @property
    def judge(self) -> Judge:
        """The judge of its answers."""
        return self.recipe.judge_of(self.settings)

    @property
    def judges(self) -> frozenset[str]:
        """The models that it asks, besides its entrants."""
        return self.judge.models

    @property
    def sources(self) -> tuple[Source, ...]:
        """Where the questions and their companions (the baseline's answers, …) are. Empty: it uses
        the held-out prompts of the run."""
        return getattr(self.settings, "data", ()) or self.published

    @property
    def judged_with(self) -> Mapping[str, Any]:
        """The settings that decide its judgements, besides its questions and its judge; none that
        has its default. Judgements are found again only with the same ones."""
        return {}

    def entrants(self) -> list[Entrant]:
        """Its own entrants: the judges that it measures. Empty: the recipe's contestants."""
        return []

    @abstractmethod
    def items(self, rows: Iterable[Row]) -> list[Item]:
        """Return the questions from the rows of all sources, or of held-out prompts (`id`,
        `system`, `turns`).

        Rows of several kinds (questions, answers of a baseline) are told apart by their columns.
        Raises RecipeError, with the problem, if these rows are of something else.
        """

    def asked(self, rows: Iterable[Row]) -> list[tuple[str, tuple[str, ...]]]:
        """Return what each question asks, by its id: the user's turns. Training prompts near to
        them are left out."""
        return [
            (
                item.id,
                (
                    *(each["content"] for each in item.messages if each["role"] == "user"),
                    *item.later,
                ),
            )
            for item in self.items(rows)
        ]

    def given_answers(self, items: Sequence[Item]) -> dict[str, list[str]]:
        """The answers that come with the questions, by who wrote them:
        a baseline's. Empty: none do."""
        return {}

    def matches(self, entrants: Sequence[str]) -> list[tuple[str, ...]]:
        """Return who is judged together. Default: each entrant alone."""
        return [(name,) for name in entrants]

    @abstractmethod
    async def judge_match(self, match: Match, ask: Ask) -> Row:
        """Return the judgement of one match, as a row of the table `table` (without id and names).

        Parts that could not be judged go into its list `lost`: {"reason", "detail"} for each half
        of the judgement (one of two orders, one of two turns). Raises RowRejected if nothing could
        be judged.
        """

    @abstractmethod
    def scores(self, played: Played) -> list[Score]:
        """Return the scores of all entrants. An entrant without a judgement has none."""

    def limited(self, items: Sequence[Item]) -> list[Item]:
        """Return the questions that are asked: at most the recipe's `limit`, evenly spread."""
        return evenly(items, getattr(self.settings, "limit", None))

    def question_count(self, published: int) -> int:
        """Return how many of the `published` questions the recipe asks: at most its `limit`."""
        return min(getattr(self.settings, "limit", None) or published, published)

    @abstractmethod
    def calls(self, recipe: Recipe) -> Iterator[RoleCalls]:
        """Yield the calls of the benchmark, for the plan."""

    def is_published(self, items: Sequence[Item]) -> bool:
        """Return whether these are all of the published questions, by their known digest."""
        return digest(items) == self.digest

    @property
    def officially_judged(self) -> bool:
        """Whether its only judge is a model that judged the published numbers."""
        names = {self.recipe.models[name].published_name for name in self.judges}
        return len(names) == 1 and names <= self.official_judges

    def deviations(self) -> list[str]:
        """Return how answers and judgements are sampled otherwise than the published ones."""
        return []

    def incomparable(self, items: Sequence[Item]) -> str:
        """Return why its numbers cannot be compared with published ones; empty if they can."""
        if not self.published:
            return f"{self.title} has no published numbers."
        reasons = []
        if not self.is_published(items):
            reasons.append(f"these {len(items)} questions are not the published ones")
        if self.official_judges and not self.officially_judged:
            official = " or ".join(sorted(self.official_judges))
            reasons.append(f"the published judge is {official}")
        return self.with_deviations(reasons)

    def with_deviations(self, reasons: Sequence[str]) -> str:
        """Return these reasons and the `deviations` as a sentence; empty if there are none."""
        text = "; ".join([*reasons, *self.deviations()])
        return text and f"{text[0].upper()}{text[1:]}."
