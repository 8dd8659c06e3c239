"""MT-Bench: 80 questions of two turns; the judge rates each answer from 1 to 10.

Zheng et al., arXiv 2306.05685. The judge's prompts (moaa/templates/mt_bench_*.txt) and the
temperatures are those of FastChat's llm_judge, Apache-2.0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import ClassVar, Final

from pydantic import Field

from moaa import statistics, templates
from moaa.artifacts.table import Row
from moaa.benchmarks.benchmark import Benchmark, Match, Played, Score, TableName
from moaa.benchmarks.differences import to_base
from moaa.benchmarks.items import Item
from moaa.benchmarks.rating import is_alone, rate
from moaa.benchmarks.rows import DataRow, Name, read, refusal
from moaa.chat.message import Ask, Message
from moaa.declaration import RoleCalls
from moaa.errors import RowRejected
from moaa.plan.calls import answering, rating, tokens_of
from moaa.recipe import evaluation
from moaa.recipe.schema import Recipe, Sampling, Source

TEMPERATURES: Final[Mapping[str, float]] = {
    "writing": 0.7,
    "roleplay": 0.7,
    "extraction": 0.0,
    "math": 0.0,
    "coding": 0.0,
    "reasoning": 0.0,
    "stem": 0.1,
    "humanities": 0.1,
}
MAX_TOKENS: Final = 1024
"""Of an answer, in FastChat."""
OTHER_TEMPERATURE: Final = 0.7
"""The temperature for any other category, as in FastChat."""
WITH_REFERENCE: Final = ("math", "reasoning", "coding")
"""The categories in which the judge sees a reference answer."""
QUESTIONS: Final = 80
SYSTEM: Final = "You are a helpful assistant."
"""The system message of the published prompt for the first turn."""
_PACKAGE: Final = "package:instructlab/eval/data/mt_bench"


HINT: Final = (
    "Questions of MT-Bench have question_id, category and turns (one or two texts); reference "
    "answers have question_id and choices."
)


class Question(DataRow):
    """A question."""

    question_id: Name
    category: str
    turns: tuple[str, ...] = Field(min_length=1, max_length=2)
    reference: tuple[str, ...] | None = None


class Choice(DataRow):
    """The reference answers to both turns."""

    turns: tuple[str, ...] = Field(min_length=1)


class Reference(DataRow):
    """The reference answers to a question."""

    question_id: Name
    choices: tuple[Choice, ...] = Field(min_length=1)


class MtBench(Benchmark[evaluation.MtBench]):
    """Ratings of single answers, over two turns."""

    name: ClassVar[str] = "mt_bench"
    title: ClassVar[str] = "MT-Bench"
    protocol: ClassVar[str] = (
        "Two turns, each answer rated alone from 1 to 10; with a reference answer in math, "
        "reasoning and coding. The number is the mean over all answers that have a rating."
    )
    table: ClassVar[TableName] = "ratings"
    official_judges: ClassVar[frozenset[str]] = frozenset({"gpt-4", "gpt-4-0613"})
    published: ClassVar[tuple[Source, ...]] = (
        Source(source=f"{_PACKAGE}/question.jsonl"),
        Source(source=f"{_PACKAGE}/reference_answer/gpt-4.jsonl"),
    )
    digest: ClassVar[str] = "6aedf23b36812830"
    schema: ClassVar[int] = 2

    def items(self, rows: Iterable[Row]) -> list[Item]:
        """Return the questions (`question_id`, `category`, `turns`), with the reference answers of
        rows that have `choices`."""
        questions: list[Question] = []
        references: dict[str, Sequence[str]] = {}
        for row in rows:
            if "choices" in row:
                found = read(Reference, row, self.name, HINT)
                turns = found.choices[0].turns
                if references.setdefault(str(found.question_id), turns) != turns:
                    raise refusal(row, self.name, "it is another reference of its question", HINT)
            else:
                questions.append(read(Question, row, self.name, HINT))
        return [self._item(each, references) for each in questions]

    async def judge_match(self, match: Match, ask: Ask) -> Row:
        """Return the rating of each turn. Raises RowRejected if there is none."""
        ratings: list[Row] = []
        lost: list[Row] = []
        for turn in range(1, len(match.answers[0]) + 1):
            try:
                rated = await rate(self.judge, _prompt(match, turn), ask, match.controls)
                ratings.append({"turn": turn, **rated.to_json()})
            except RowRejected as error:
                lost.append({"turn": turn, "reason": error.reason, "detail": error.detail})
        if not ratings:
            raise RowRejected(lost[0]["reason"], lost[0]["detail"])
        return {"ratings": ratings, "lost": lost}

    def scores(self, played: Played) -> list[Score]:
        """Return the mean rating of each contestant: over all answers, each turn, each category;
        and its paired difference to the base's."""
        group = {item.id: item.group for item in played.items}
        found: list[Score] = []
        ratings: dict[str, dict[tuple[str, int], float]] = {}
        for name in played.entrants:
            rows = played.judgements.get((name,), {})
            rated = [(id, each) for id, row in rows.items() for each in row["ratings"]]
            if not rated:
                continue
            ratings[name] = {(id, each["turn"]): float(each["rating"]) for id, each in rated}
            without = sum(len(row["lost"]) for row in rows.values())
            without += sum(1 + len(item.later) for item in played.items if item.id not in rows)
            subsets = {
                "": rated,
                **{
                    f"turn {turn}": [(id, each) for id, each in rated if each["turn"] == turn]
                    for turn in (1, 2)
                },
                **{
                    category: [(id, each) for id, each in rated if group[id] == category]
                    for category in dict.fromkeys(group.values())
                },
            }
            for subset, some in subsets.items():
                if some:
                    values = [float(each["rating"]) for _, each in some]
                    estimate = statistics.mean(values, [id for id, _ in some], unit="rating")
                    about = {} if subset else {"answers without a rating": without}
                    found.append(Score(name, "rating", estimate, "", subset, not subset, about))
        return found + to_base("rating", ratings, _difference)

    def calls(self, recipe: Recipe) -> Iterator[RoleCalls]:
        """Yield two answers of each contestant to each question, and a rating of each."""
        questions = self.question_count(QUESTIONS)
        answer = min(recipe.plan.answer_tokens, self.settings.max_tokens)
        yield from answering(recipe, questions, 2, answer)
        ratings = 2 * questions * len(recipe.measured)
        shown = 2 * (recipe.plan.prompt_tokens + answer)
        shown += tokens_of(templates.text("mt_bench_1"))
        yield from rating(recipe, self.judge, ratings, shown)

    def deviations(self) -> list[str]:
        """Return how answers are sampled, and rated by the published judge, otherwise than by
        FastChat."""
        found = []
        if self.settings.max_tokens != MAX_TOKENS:
            found.append(
                f"answers have at most {self.settings.max_tokens:,} tokens, published ones "
                f"{MAX_TOKENS:,}"
            )
        if stop := self.recipe.evaluate.sampling.stop:
            found.append(f"answers stop at {', '.join(map(repr, stop))}, published ones do not")
        if self.officially_judged:
            if not is_alone(self.judge):
                found.append("the judge rates after assessments; the published one in one reply")
            if temperature := self.judge.aggregator.sampling.temperature:
                found.append(f"the judge's temperature is {temperature:g}, the published one is 0")
            if self.judge.aggregator.system:
                found.append("the judge has a persona; the published one has none")
        return found

    def _item(self, asked: Question, references: Mapping[str, Sequence[str]]) -> Item:
        id, category = str(asked.question_id), asked.category
        reference: Sequence[str] = ()
        if category in WITH_REFERENCE:
            reference = references.get(id) or asked.reference or ()
        first, *later = asked.turns
        return Item(
            id=id,
            messages=(Message(role="user", content=first),),
            later=tuple(later),
            sampling=Sampling(
                temperature=TEMPERATURES.get(category, OTHER_TEMPERATURE),
                max_tokens=self.settings.max_tokens,
                stop=self.recipe.evaluate.sampling.stop,
            ),
            group=category,
            given={"reference": list(reference)},
        )


def _difference(
    turns: Sequence[tuple[str, int]], ours: Sequence[float], theirs: Sequence[float]
) -> statistics.Estimate:
    """The difference of two mean ratings; both turns of a question may be alike."""
    questions = [id for id, _ in turns]
    return statistics.difference(ours, theirs, questions, unit="difference of ratings")


def _prompt(match: Match, turn: int) -> list[Message]:
    """Return the published prompt of the judge for one turn of an answer."""
    item, answers = match.item, match.answers[0]
    reference = [match.controls.neutralised(text) for text in item.given["reference"]]
    texts = [match.controls.neutralised(answer.text) for answer in answers]
    questions = [item.messages[-1]["content"], *item.later]
    referred = "_reference" if len(reference) >= turn else ""
    values: dict[str, str]
    if turn == 1:
        system = SYSTEM
        values = {"question": questions[0], "answer": texts[0]}
        if referred:
            values["reference"] = reference[0]
    else:
        system = templates.text(f"mt_bench_2{referred}_system")
        values = {
            "question_1": questions[0],
            "question_2": questions[1],
            "answer_1": texts[0],
            "answer_2": texts[1],
        }
        if referred:
            values |= {"reference_1": reference[0], "reference_2": reference[1]}
    name = f"mt_bench_{turn}{referred}"
    prompt = templates.fill(name, templates.text(name), values)
    return [Message(role="system", content=system), Message(role="user", content=prompt)]
