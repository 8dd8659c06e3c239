"""What a benchmark is: its questions, how the answers are judged, and the scores that follow."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final, Generic, Literal, TypeVar

from moaa.benchmarks.data import digest
from moaa.benchmarks.entrants import Entrant
from moaa.benchmarks.items import Answer, Item, Row
from moaa.chat.controls import KNOWN, Controls
from moaa.chat.message import Ask
from moaa.declaration import Asked
from moaa.recipe.schema import Judge, Part, Recipe, Source
from moaa.statistics import Estimate

RunProgram = Callable[[str], Awaitable[str]]
S = TypeVar("S", bound=Part)
Table = Literal["judgements", "verdicts", "ratings", "marks"]
"""Pairs of contestants, verdicts of measured judges, ratings by a judge, marks by a program."""


READ_FROM: Final = "read_from"
"""The key under which each row of a benchmark's data names its source."""


@dataclass(frozen=True, slots=True)
class Match:
    """What is judged at a time: the entrants of one match, with their answers to one item."""

    item: Item
    entrants: tuple[Entrant, ...]
    answers: tuple[tuple[Answer, ...], ...]
    """One for each turn, of each entrant in order. Empty for judges."""
    controls: Controls = KNOWN
    run_program: RunProgram | None = None
    """Runs a program of Python that a model wrote, shut in; returns `passed`, or what kept it from
    that. None: that cannot be done here."""


@dataclass(frozen=True, slots=True)
class Score:
    """One number of a benchmark: how well an entrant did."""

    entrant: str
    metric: str
    """For example `win rate`. The judge's name is added where it is shown."""
    estimate: Estimate
    against: str = ""
    """The other entrant, or the baseline."""
    subset: str = ""
    """The part of the questions that it is over (a category, a turn); empty: all of them."""
    main: bool = False
    """Whether this is the entrant's number in the table of all benchmarks."""
    about: Mapping[str, float] = field(default_factory=dict)
    """More numbers, without intervals: counts, mean lengths."""

    def to_json(self) -> Row:
        """The score as a row of the table `scores` has it, without its benchmark."""
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
    """Everything that was answered and judged, for the scores.

    What was lost (a call that failed for good, a reply that nobody could read) is missing in it;
    the stage counts it and shows it beside the scores.
    """

    items: Sequence[Item]
    entrants: Sequence[str]
    answers: Mapping[str, Mapping[str, tuple[Answer, ...]]]
    """Entrant -> item id -> its answers, one for each turn."""
    judgements: Mapping[tuple[str, ...], Mapping[str, Row]]
    """Match (names of entrants) -> item id -> what `judge` returned."""


class Benchmark(ABC, Generic[S]):
    """A benchmark with the settings that the recipe chose. One subclass a file."""

    name: ClassVar[str]
    """In `evaluate.benchmarks`."""
    title: ClassVar[str]
    """As people write it: `MT-Bench`."""
    protocol: ClassVar[str]
    """How answers become a number, in two sentences at most."""
    measures: ClassVar[Literal["models", "judges"]] = "models"
    table: ClassVar[Table] = "judgements"
    """Where its judgements are written."""
    official_judges: ClassVar[frozenset[str]] = frozenset()
    """The models that judged the published numbers."""
    published: ClassVar[tuple[Source, ...]] = ()
    """The published questions; empty: the held-out prompts of the run."""
    digest: ClassVar[str] = ""
    """`data.digest` of the published questions, if it is known."""
    packages: ClassVar[tuple[str, ...]] = ()
    """Packages of the extra `evaluate` that it is played with."""
    runs_programs: ClassVar[bool] = False
    """Whether it runs what models wrote: only where `moaa.sandbox` can."""
    schema: ClassVar[int] = 1
    """Raise it when the same answers and judgements no longer say the same."""

    def __init__(self, settings: S, recipe: Recipe) -> None:
        self.settings = settings
        self.recipe = recipe

    @property
    def judge(self) -> Judge:
        """Who judges."""
        return self.recipe.judge_of(self.settings)

    @property
    def judges(self) -> frozenset[str]:
        """The models that it asks besides its entrants."""
        return self.judge.models

    @property
    def sources(self) -> tuple[Source, ...]:
        """Where the questions are, and what comes with them (the baseline's answers, …); empty:
        they are the held-out prompts of the run."""
        return getattr(self.settings, "data", ()) or self.published

    def entrants(self) -> list[Entrant]:
        """Its own entrants: the judges that it measures. Empty: the recipe's contestants."""
        return []

    @abstractmethod
    def items(self, rows: Iterable[Row]) -> list[Item]:
        """The questions of the rows of all sources, or of held-out prompts (`id`, `system`,
        `turns`).

        Rows of several kinds (questions, answers of a baseline) are told apart by their columns.
        Raises RecipeError, with what is wrong, if these are rows of something else.
        """

    def asked(self, rows: Iterable[Row]) -> list[tuple[str, tuple[str, ...]]]:
        """What each question asks, by its id: the user's turns. Training prompts are kept away
        from it."""
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

    def matches(self, entrants: Sequence[str]) -> list[tuple[str, ...]]:
        """Who is judged together: by default each alone."""
        return [(name,) for name in entrants]

    @abstractmethod
    async def judge_match(self, match: Match, ask: Ask) -> Row:
        """The judgement of one match, as a row of the table `table` (without id and names).

        What could not be judged goes into its list `lost`: {"reason", "detail"} for each half of
        the judgement (one of two orders, one of two turns). Raises RowRejected if nothing could be
        judged.
        """

    @abstractmethod
    def scores(self, played: Played) -> list[Score]:
        """The scores of all entrants. An entrant of whom nothing was judged has none."""

    def question_count(self, published: int) -> int:
        """Return how many of so many published questions the recipe asks: at most its `limit`."""
        return min(getattr(self.settings, "limit", None) or published, published)

    @abstractmethod
    def calls(self, recipe: Recipe) -> Iterator[Asked]:
        """Yield the calls of the benchmark, for the plan."""

    def is_published(self, items: Sequence[Item]) -> bool:
        """Whether these are all of the published questions, by a digest that is known."""
        return digest(items) == self.digest

    def incomparable(self, items: Sequence[Item]) -> str:
        """Why its numbers cannot be compared with published ones; empty if they can."""
        if not self.published:
            return f"{self.title} has no published numbers."
        reasons = []
        if not self.is_published(items):
            reasons.append(f"these {len(items)} questions are not the published ones")
        names = {self.recipe.models[name].published_name for name in self.judges}
        if self.official_judges and not (len(names) == 1 and names <= self.official_judges):
            official = " or ".join(sorted(self.official_judges))
            reasons.append(f"the published judge is {official}")
        text = "; ".join(reasons)
        return text and f"{text[0].upper()}{text[1:]}."
