"""RewardBench: pairs of a better and a worse answer (v1), or one right among four (v2).

Lambert et al., arXiv 2403.13787; Malik et al., arXiv 2506.01937.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, ClassVar, Final

from pydantic import BeforeValidator, Field

from moaa.artifacts.table import Row
from moaa.benchmarks import ties
from moaa.benchmarks.benchmark import Score
from moaa.benchmarks.data import digest, evenly
from moaa.benchmarks.items import Item
from moaa.benchmarks.pairs import (
    PairBenchmark,
    by_prompt,
    combined,
    is_right,
    not_judged,
    pair,
    right_share,
)
from moaa.benchmarks.rows import DataRow, Name, read, refusal
from moaa.chat.message import Message
from moaa.recipe import evaluation
from moaa.recipe.schema import Recipe, Source
from moaa.statistics import Estimate, share

SECTIONS: Final[Mapping[str, Mapping[str, int]]] = {
    "Chat": {
        "alpacaeval-easy": 100,
        "alpacaeval-length": 95,
        "alpacaeval-hard": 95,
        "mt-bench-easy": 28,
        "mt-bench-med": 40,
    },
    "Chat Hard": {
        "mt-bench-hard": 37,
        "llmbar-natural": 100,
        "llmbar-adver-neighbor": 134,
        "llmbar-adver-GPTInst": 92,
        "llmbar-adver-GPTOut": 47,
        "llmbar-adver-manual": 46,
    },
    "Safety": {
        "refusals-dangerous": 100,
        "refusals-offensive": 100,
        "xstest-should-refuse": 154,
        "xstest-should-respond": 250,
        "donotanswer": 136,
    },
    "Reasoning": {
        "math-prm": 984,
        "hep-cpp": 164,
        "hep-go": 164,
        "hep-java": 164,
        "hep-js": 164,
        "hep-python": 164,
        "hep-rust": 164,
    },
}
"""v1: the weight of each subset in its section. It is the subset's size, except for math-prm: its
447 pairs count as much as the six subsets of code."""
TIES: Final = "Ties"
_IS_TIED: Final = re.compile(r"(ref|tied):\S+")
PAIRS: Final = {"v1": 2985, "v2": 6513}
"""The number of pairs, for the plan. v2: three a prompt, and about 12 for each of 102 with ties."""
QUESTIONS: Final = {"v1": 2985, "v2": 1763 + 51}
"""What `limit` counts. v2: the prompts, and the questions with ties, each of which is two prompts
(ref:N, tied:N)."""


def several(given: object) -> object:
    """Return one text as a list of it: v1 has one answer where v2 has a list."""
    return (given,) if isinstance(given, str) else given


class Answers(DataRow):
    """A prompt with its better and its worse answers."""

    id: Name
    prompt: str
    chosen: Annotated[tuple[str, ...], BeforeValidator(several)] = Field(min_length=1)
    rejected: Annotated[tuple[str, ...], BeforeValidator(several)] = Field(min_length=1)
    subset: str


class RewardBench(PairBenchmark[evaluation.RewardBench]):
    """How often a judge prefers the better answer."""

    name: ClassVar[str] = "reward_bench"
    title: ClassVar[str] = "RewardBench"
    protocol: ClassVar[str] = (
        "v1: pairs, four sections, the mean of the sections. v2: the right answer must win against "
        "each of three wrong ones; with ties the official score, of the strengths that fit the "
        "verdicts; the mean of six subsets. Both orders must agree, but for ties."
    )

    @property
    def sources(self) -> tuple[Source, ...]:
        """The published pairs of the chosen version."""
        if self.settings.data:
            return self.settings.data
        if self.settings.version == "v1":
            return (Source(source="hub:allenai/reward-bench", split="filtered"),)
        return (Source(source="hub:allenai/reward-bench-2", split="test"),)

    def __init__(self, settings: evaluation.RewardBench, recipe: Recipe) -> None:
        super().__init__(settings, recipe)
        self.count = QUESTIONS[settings.version]
        self.pairs_each = PAIRS[settings.version] / self.count

    def items(self, rows: Iterable[Row]) -> list[Item]:
        """Return the pairs of RewardBench's rows (`id`, `prompt`, `chosen`,
        `rejected`, `subset`)."""
        return [item for row in rows for item in self._pairs(row)]

    def limited(self, items: Sequence[Item]) -> list[Item]:
        """Return all pairs of at most `limit` questions, evenly spread: a right answer must win
        against each wrong one, and ties are scored over both prompts of a question."""
        questions: dict[str, list[Item]] = {}
        for item in items:
            questions.setdefault(_question(item), []).append(item)
        kept = evenly(list(questions), self.settings.limit)
        return [item for question in kept for item in questions[question]]

    def accuracies(self, name: str, judged: Sequence[tuple[Item, Row]]) -> list[Score]:
        """Return the mean of the sections, and each section."""
        sections = dict.fromkeys(item.group for item, _ in judged)
        of_section = self._of_v1 if self.settings.version == "v1" else self._of_v2
        found = {
            section: of_section(section, [(i, row) for i, row in judged if i.group == section])
            for section in sections
        }
        overall = combined({section: (1.0, each) for section, each in found.items()})
        return [
            Score(name, "accuracy", overall, main=True, about=not_judged(judged)),
            *(Score(name, "accuracy", each, subset=section) for section, each in found.items()),
        ]

    def incomparable(self, items: Sequence[Item]) -> str:
        """Return how the leaderboard judges differently: it shows each pair in one order."""
        reason = (
            "The leaderboard takes one order of a pair, drawn at random; here both must agree, "
            "which is stricter"
        )
        if self.settings.version == "v2":
            reason += "; and its ties take the scores of answers, here the strengths of a judge"
        return f"{reason}. These are {len(items)} pairs, digest {digest(items)}."

    def _of_v1(self, section: str, judged: Sequence[tuple[Item, Row]]) -> Estimate:
        weights = SECTIONS[section]
        subsets: dict[str, list[tuple[Item, Row]]] = {}
        for item, row in judged:
            subsets.setdefault(item.given["subset"], []).append((item, row))
        return combined({key: (weights[key], right_share(each)) for key, each in subsets.items()})

    def _of_v2(self, section: str, judged: Sequence[tuple[Item, Row]]) -> Estimate:
        prompts = by_prompt(judged)
        if section == TIES:
            return ties.score(
                {name.partition("/")[2]: _stats(pairs) for name, pairs in prompts.items()}
            )
        right = [all(is_right(item, row) for item, row in pairs) for pairs in prompts.values()]
        return share(sum(right), len(right))

    def _pairs(self, row: Row) -> list[Item]:
        version = self.settings.version
        hint = f"Set `version`, or give the published rows of RewardBench {version}."
        asked = read(Answers, row, self.name, hint)
        chosen, rejected = asked.chosen, asked.rejected
        known = {key: section for section, keys in SECTIONS.items() for key in keys}
        if version == "v1" and asked.subset not in known:
            raise refusal(row, self.name, f"{asked.subset!r} is an unknown subset", hint)
        prompt = f"{asked.subset}/{asked.id}"
        n = len(chosen), len(rejected)
        tied = asked.subset == TIES
        if tied and not _IS_TIED.fullmatch(str(asked.id)):
            problem = (
                f"its id is {asked.id!r}, but RewardBench 2 calls rows of {TIES} ref:N and tied:N"
            )
            raise refusal(row, self.name, problem, hint)
        pairs = ties.spread(*n, self.settings.ties_pairs if tied else math.prod(n))
        query = [Message(role="user", content=asked.prompt)]
        section = known[asked.subset] if version == "v1" else asked.subset
        found = [
            pair(f"{prompt}/{k}", query, chosen[good], rejected[bad], prompt=prompt, group=section,
                 subset=asked.subset)
            for k, (good, bad) in enumerate(pairs)
        ]  # fmt: skip
        if not tied:
            return found
        return [
            replace(item, given={**item.given, "answers": [*indices, *n]})
            for item, indices in zip(found, pairs, strict=True)
        ]


def _question(item: Item) -> str:
    prompt: str = item.given["prompt"]
    section, _, number = prompt.partition("/")
    return f"{section}/{number.partition(':')[2]}" if section == TIES else prompt


def _stats(judged: Sequence[tuple[Item, Row]]) -> ties.Stats:
    """Return the result of a prompt with ties, from the verdicts on its pairs."""
    verdicts: dict[ties.Pair, float | None] = {}
    for item, row in judged:
        good, bad, right, wrong = item.given["answers"]
        p = row["p"]
        verdicts[good, bad] = p if p is None or item.given["better"] == "a" else 1 - p
    return ties.stats(verdicts, right, wrong)
