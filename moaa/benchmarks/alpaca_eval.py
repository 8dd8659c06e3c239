"""AlpacaEval 2: how often 805 instructions are answered better than by gpt-4-1106-preview.

Li et al., "AlpacaEval"; length control: Dubois et al., arXiv 2404.04475. The data are CC BY-NC 4.0:
they are fetched when the benchmark runs, and no part of them is in moaa.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Final

import numpy as np

from moaa import statistics
from moaa.artifacts.table import Row
from moaa.benchmarks.baseline import (
    against_baseline,
    answers_and_judgements,
    baseline_answers,
    fewer_tokens,
)
from moaa.benchmarks.benchmark import Benchmark, Match, Played, Score
from moaa.benchmarks.data import digest
from moaa.benchmarks.differences import of_means, to_base
from moaa.benchmarks.items import Item
from moaa.benchmarks.rows import DataRow, read
from moaa.chat.message import Ask, Message
from moaa.declaration import RoleCalls
from moaa.plan.calls import answering, judging
from moaa.recipe import evaluation
from moaa.recipe.schema import Recipe, Source

REVISION: Final = "2edc6fad8be6b14ea7230aabfd08188da6b8b814"
QUESTIONS: Final = 805
BASELINE: Final = "gpt-4-1106-preview"


MOST_TOKENS: Final = 2048
"""What most models on the leaderboard may write."""
HINT: Final = (
    "The data of AlpacaEval are alpaca_eval_gpt4_baseline.json (instruction, output) and "
    "df_gamed.csv (index, instruction_difficulty, std_delta_len, preference)."
)


class Baseline(DataRow):
    """An instruction with the baseline's answer."""

    instruction: str
    output: str
    dataset: str | None = None


class Gamed(DataRow):
    """What the length control needs of one instruction, by its place in the published file."""

    index: int
    instruction_difficulty: float
    std_delta_len: float
    preference: float


class AlpacaEval(Benchmark[evaluation.AlpacaEval]):
    """Win rates against published answers of gpt-4-1106-preview, raw and length-controlled."""

    name: ClassVar[str] = "alpaca_eval"
    title: ClassVar[str] = "AlpacaEval 2"
    protocol: ClassVar[str] = (
        "Each answer is judged against the published one of gpt-4-1106-preview, in both orders. "
        "The main number is the mean probability to win at equal length, by the published "
        "regression."
    )
    official_judges: ClassVar[frozenset[str]] = frozenset({BASELINE})
    published: ClassVar[tuple[Source, ...]] = tuple(
        Source(source=f"hub:tatsu-lab/alpaca_eval/{file}", revision=REVISION)
        for file in ("alpaca_eval_gpt4_baseline.json", "df_gamed.csv")
    )
    digest: ClassVar[str] = "d35b7c05e790aab4"
    beside: ClassVar[str] = "instruction_difficulty"
    order: ClassVar[str] = "defbd813b565439f"
    """`order_of` the published instructions: difficulties refer to their positions in the file."""
    count: ClassVar[int] = QUESTIONS

    def items(self, rows: Iterable[Row]) -> list[Item]:
        """Return the instructions with the baseline's answers (rows with `instruction` and
        `output`) and the data of the length control (rows with `instruction_difficulty`, of
        `df_gamed.csv`)."""
        questions: list[Baseline] = []
        gamed: dict[int, list[Gamed]] = {}
        for row in rows:
            if "instruction_difficulty" in row:
                found = read(Gamed, row, self.name, HINT)
                gamed.setdefault(found.index, []).append(found)
            else:
                questions.append(read(Baseline, row, self.name, HINT))
        in_order = order_of(each.instruction for each in questions) == self.order
        return [
            _item(each, _controls(gamed[i]) if in_order and i in gamed else {})
            for i, each in enumerate(questions)
        ]

    async def judge_match(self, match: Match, ask: Ask) -> Row:
        """Return the judgement against the baseline's answer; `p`: the probability that the
        entrant's answer is better."""
        return await against_baseline(self.judge, match, BASELINE, ask)

    def scores(self, played: Played) -> list[Score]:
        """Return the scores of each entrant: its mean probability to win, raw and at equal length,
        and the paired difference of the raw one to the base's.

        Equal length is by the published regression if all questions were asked and have their
        difficulties, else by our own.
        """
        found: list[Score] = []
        won: dict[str, dict[str, float]] = {}
        for name in played.entrants:
            judged = answers_and_judgements(played, name)
            if not judged:
                continue
            won[name] = {item.id: row["p"] for item, _, row in judged}
            p = list(won[name].values())
            lengths = (
                [len(item.given["baseline"]) for item, _, _ in judged],
                [len(answers[-1].text) for _, answers, _ in judged],
            )
            about = {"not judged": len(played.items) - len(judged)}
            controlled = self._controlled(played.items)
            raw = Score(
                name, "win rate", statistics.mean(p), BASELINE, main=not controlled, about=about
            )
            found.append(raw)
            if controlled:
                estimate = statistics.length_controlled(
                    [item.id for item, _, _ in judged], p, lengths, controlled
                )
                metric = "length-controlled win rate"
                found.append(Score(name, metric, estimate, BASELINE, main=True))
            elif len(p) >= statistics.FEWEST:
                estimate = statistics.length_adjusted(p, (lengths[1], lengths[0]))
                found.append(Score(name, "win rate at equal length", estimate, BASELINE))
        return found + to_base("win rate", won, of_means)

    def given_answers(self, items: Sequence[Item]) -> dict[str, list[str]]:
        """The baseline's answers."""
        return {BASELINE: baseline_answers(items)}

    def calls(self, recipe: Recipe) -> Iterator[RoleCalls]:
        """Yield one answer of each contestant to each instruction, judged in both orders."""
        questions = self.question_count(QUESTIONS)
        answer = min(recipe.plan.answer_tokens, recipe.evaluate.sampling.max_tokens)
        yield from answering(recipe, questions, 1, answer)
        yield from judging(recipe, self.judge, questions * len(recipe.measured), answer)

    def is_published(self, items: Sequence[Item]) -> bool:
        """Return whether these are all instructions, with the baseline's answers."""
        return digest([_bare(item) for item in items]) == self.digest

    def deviations(self) -> list[str]:
        """Return how answers are sampled otherwise than most published ones."""
        return fewer_tokens(self.recipe.evaluate.sampling.max_tokens, MOST_TOKENS)

    def incomparable(self, items: Sequence[Item]) -> str:
        """Never empty: the published judge is no longer available."""
        reasons = [
            f"the leaderboard's judge, {BASELINE}, was shut down by its provider; another judge "
            "gives other numbers, and asks in both orders"
        ]
        if not self.is_published(items):
            reasons.append(f"these {len(items)} questions are not the {QUESTIONS} published ones")
        if not self._controlled(items):
            reasons.append("no length control: not all questions have a difficulty")
        return self.with_deviations(reasons)

    def _controlled(self, items: Sequence[Item]) -> statistics.Difficulties | None:
        """Return the data of the published regression; None unless all questions are there."""
        if len(items) != self.count or not all("difficulty" in item.given for item in items):
            return None
        of = {item.id: item.given["difficulty"] for item in items}
        gamed = [
            (math.tanh(delta), item.given["difficulty"], preference)
            for item in items
            for delta, preference in item.given["gamed"]
        ]
        return statistics.Difficulties(of, np.array(gamed))


def order_of(instructions: Iterable[str]) -> str:
    """Return the first 16 hex digits of the sha256 of these instructions, in this order."""
    text = "\n\0".join(instructions)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _item(asked: Baseline, controls: Mapping[str, Any]) -> Item:
    instruction = asked.instruction
    return Item(
        id=hashlib.sha256(instruction.encode("utf-8", "surrogatepass")).hexdigest()[:16],
        messages=(Message(role="user", content=instruction),),
        group=asked.dataset or "",
        given={"baseline": asked.output, **controls},
    )


def _controls(gamed: Sequence[Gamed]) -> dict[str, Any]:
    return {
        "difficulty": gamed[0].instruction_difficulty,
        "gamed": [[each.std_delta_len, each.preference] for each in gamed],
    }


def _bare(item: Item) -> Item:
    return replace(item, given={"baseline": item.given["baseline"]})
