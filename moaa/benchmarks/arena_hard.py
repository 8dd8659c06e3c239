"""Arena-Hard: how often 500 hard prompts of Chatbot Arena are answered better than by a baseline.

Li et al., arXiv 2406.11939. A judge that is a single model gets the prompt of
lmarena/arena-hard-auto, Apache-2.0 (moaa/templates/arena_hard*.txt).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, ClassVar, Final

from pydantic import Field

from moaa import statistics, templates
from moaa.artifacts.table import Row
from moaa.benchmarks.baseline import (
    against_baseline,
    answers_and_judgements,
    baseline_answers,
    fewer_tokens,
)
from moaa.benchmarks.benchmark import Benchmark, Match, Played, Score
from moaa.benchmarks.data import digest
from moaa.benchmarks.differences import to_base
from moaa.benchmarks.items import Item
from moaa.benchmarks.judgements import row_of
from moaa.benchmarks.rating import is_alone
from moaa.benchmarks.rows import DataRow, Name, read, refusal
from moaa.benchmarks.verdicts import five_verdicts, weight_of
from moaa.chat.message import Ask, Message
from moaa.declaration import RoleCalls
from moaa.errors import RecipeError
from moaa.plan.calls import answering, judging, rating, tokens_of
from moaa.recipe import evaluation
from moaa.recipe.schema import Recipe, Source

_REPOSITORY: Final = "hub:lmarena-ai/arena-hard-auto/data/arena-hard"
QUESTIONS: Final = 500
BASELINES: Final[Mapping[str, str]] = {"v0.1": "gpt-4-0314", "v2.0": "o3-mini-2025-01-31"}
JUDGES: Final[Mapping[str, str]] = {"v0.1": "gpt-4-1106-preview", "v2.0": "gpt-4.1"}
REVISIONS: Final[Mapping[str, str | None]] = {
    "v0.1": "c75cc2581ae7ac4b66ce5c804c002fe5a7c6339e",
    "v2.0": None,
}
DIGESTS: Final[Mapping[str, str]] = {"v0.1": "13fddc1f341c50e2", "v2.0": "b290fc230bd393c2"}
CATEGORY: Final = "hard_prompt"
"""The category of v2.0. The other one, creative writing, has another baseline and is left out."""
_PIECES = re.compile(r"\w+|[^\w\s]")


MOST_TOKENS: Final = 4096
"""What most models on the leaderboard may write, and the judge."""


class Question(DataRow):
    """A prompt."""

    uid: Name
    prompt: str
    category: str | None = None
    cluster: str | None = None
    subcategory: str | None = None


class Answered(DataRow):
    """The content of an answer in the published files."""

    answer: str


class Said(DataRow):
    """A message of the baseline's conversation."""

    content: str | Answered

    @property
    def text(self) -> str:
        """What was said."""
        return self.content.answer if isinstance(self.content, Answered) else self.content


class BaselineAnswer(DataRow):
    """The baseline's answer to a prompt: the last message."""

    uid: Name
    messages: tuple[Said, ...] = Field(min_length=1)


class ArenaHard(Benchmark[evaluation.ArenaHard]):
    """Win rates against a baseline's published answers, raw and at the baseline's style."""

    name: ClassVar[str] = "arena_hard"
    title: ClassVar[str] = "Arena-Hard"
    protocol: ClassVar[str] = (
        "Each answer is judged against the baseline's in both orders; a clear verdict of a judge "
        "that is alone ([[A>>B]]) counts three times. The main number is the win rate at the "
        "baseline's length and markdown, by Bradley-Terry with features that are not centred."
    )
    published: ClassVar[tuple[Source, ...]] = ()
    count: ClassVar[int] = QUESTIONS

    @property
    def baseline(self) -> str:
        """The model whose published answers are the baseline."""
        return BASELINES[self.settings.version]

    @property
    def sources(self) -> tuple[Source, ...]:
        """The sources of the chosen version's prompts and of the baseline's answers."""
        if self.settings.data:
            return self.settings.data
        version = self.settings.version
        return tuple(
            Source(source=f"{_REPOSITORY}-{version}/{file}.jsonl", revision=REVISIONS[version])
            for file in ("question", f"model_answer/{self.baseline}")
        )

    def items(self, rows: Iterable[Row]) -> list[Item]:
        """Return the prompts (rows with `uid` and `prompt`) with the baseline's answers (rows with
        `uid`, `model` and `messages`). Raises RecipeError if a prompt has no answer."""
        questions: list[Question] = []
        answers: dict[str, str] = {}
        hint = f"The data of Arena-Hard are question.jsonl (uid, prompt) and {self._answers}."
        for row in rows:
            if "messages" in row:
                found = read(BaselineAnswer, row, self.name, hint)
                text = found.messages[-1].text
                if answers.setdefault(str(found.uid), text) != text:
                    raise refusal(row, self.name, "it is another answer to its prompt", hint)
            else:
                asked = read(Question, row, self.name, hint)
                if asked.category in (CATEGORY, "arena-hard-v0.1", None):
                    questions.append(asked)
        missing = [each.uid for each in questions if str(each.uid) not in answers]
        if missing:
            raise RecipeError(
                f"evaluate.benchmarks.arena_hard: {len(missing)} of {len(questions)} prompts have "
                f"no answer of the baseline, for example {missing[0]}. Give `data` {self._answers} "
                "too."
            )
        return [
            Item(
                id=str(each.uid),
                messages=(Message(role="user", content=each.prompt),),
                group=each.cluster or each.subcategory or "",
                given={"baseline": answers[str(each.uid)]},
            )
            for each in questions
        ]

    @property
    def _answers(self) -> str:
        return f"the baseline's answers, model_answer/{self.baseline}.jsonl (uid, messages)"

    async def judge_match(self, match: Match, ask: Ask) -> Row:
        """Return the judgement against the baseline's answer; `p`: the probability that the
        entrant's answer is better. A judge of one model gets the published prompt, with five
        verdicts."""
        if not is_alone(self.judge):
            return await against_baseline(self.judge, match, self.baseline, ask)
        (answers,) = match.answers
        text, other = answers[-1].text, match.item.given["baseline"]
        judgement = await five_verdicts(self.judge, match, text, other, ask)
        return {"model_b": self.baseline, **row_of(judgement)}

    def scores(self, played: Played) -> list[Score]:
        """Return the scores of each entrant: its win rate, raw and at the baseline's style, and the
        paired difference of the raw one to the base's.

        Intervals are from resampled prompts.
        """
        found: list[Score] = []
        fought: dict[str, dict[str, list[statistics.Battle]]] = {}
        for name in played.entrants:
            judged = answers_and_judgements(played, name)
            if not judged:
                continue
            five = is_alone(self.judge)
            fought[name] = {
                item.id: list(_battles(item, answers[-1].text, row, five))
                for item, answers, row in judged
            }
            battles = list(chain.from_iterable(fought[name].values()))
            about = {"not judged": len(played.items) - len(judged)}
            raw = statistics.battle_rate(battles)
            controlled = statistics.style_controlled(battles)
            found += [
                Score(name, "win rate", raw, self.baseline, about=about),
                Score(name, "win rate at equal style", controlled, self.baseline, main=True),
            ]
        return found + to_base("win rate", fought, _difference)

    def given_answers(self, items: Sequence[Item]) -> dict[str, list[str]]:
        """The baseline's answers."""
        return {self.baseline: baseline_answers(items)}

    def calls(self, recipe: Recipe) -> Iterator[RoleCalls]:
        """Yield one answer of each contestant to each prompt, judged in both orders."""
        questions = self.question_count(QUESTIONS)
        answer = min(recipe.plan.answer_tokens, recipe.evaluate.sampling.max_tokens)
        yield from answering(recipe, questions, 1, answer)
        pairs = questions * len(recipe.measured)
        if is_alone(self.judge):
            read = tokens_of(templates.text("arena_hard_system")) + 2 * answer
            yield from rating(recipe, self.judge, 2 * pairs, read + recipe.plan.prompt_tokens)
        else:
            yield from judging(recipe, self.judge, pairs, answer)

    def is_published(self, items: Sequence[Item]) -> bool:
        """Return whether these are all prompts of the version, with the baseline's answers."""
        return digest(items) == DIGESTS[self.settings.version]

    def deviations(self) -> list[str]:
        """Return how answers are sampled otherwise than most published ones."""
        return fewer_tokens(self.recipe.evaluate.sampling.max_tokens, MOST_TOKENS)

    def incomparable(self, items: Sequence[Item]) -> str:
        """Never empty: the leaderboard's style control depends on the other models in its pool."""
        version = self.settings.version
        reasons = [
            f"the leaderboard's judge is {JUDGES[version]}, and its style control compares with "
            "the average answer of all models in its pool; here with the baseline's"
        ]
        if not self.is_published(items):
            reasons.append(f"these {len(items)} prompts are not the {QUESTIONS} published ones")
        return self.with_deviations(reasons)


def style_of(text: str) -> statistics.Style:
    """Return an answer's style. Tokens are words and punctuation marks on both sides: no tokenizer
    must be fetched, and only the ratio counts."""
    return statistics.style_of(text, len(_PIECES.findall(text)))


def _battles(
    item: Item, text: str, row: Mapping[str, Any], five: bool
) -> Iterator[statistics.Battle]:
    """Yield the two orders of a judgement, from the entrant's side."""
    style = statistics.style_difference(style_of(text), style_of(item.given["baseline"]))
    weights = [weight_of(order["text"]) if five else 1 for order in row["orders"]] or [1, 1]
    for score, weight in zip((row["p_ab"], row["p_ba"]), weights, strict=True):
        yield statistics.Battle(item.id, score, weight, style)


def _difference(
    prompts: Sequence[str],
    ours: Sequence[list[statistics.Battle]],
    theirs: Sequence[list[statistics.Battle]],
) -> statistics.Estimate:
    return statistics.battle_difference(
        *(list(chain.from_iterable(each)) for each in (ours, theirs))
    )
