"""A pair of answers, judged in both orders: criteria, assessments, verdict.

Paper, mixture of agents as a judge.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self, TypeAlias, TypeVar

from moaa import templates
from moaa.chat.controls import KNOWN, Controls, between, code, fenced
from moaa.chat.message import Ask, Choice, Message
from moaa.concurrency import together
from moaa.errors import CallError, RowRejected
from moaa.judge import criteria, verdict
from moaa.judge.judgement import Judgement, Lost, Order, merged
from moaa.mixture import LeftOut, Proposal, as_member, numbered, propose
from moaa.recipe import Judge, Sampling

CRITERIA_TOKENS = 64
"""Tokens for the longest triple: a smaller `max_tokens` of the aggregator must not cut it."""
ATTEMPTS = 3
"""How many times criteria and verdicts are asked for until a reply can be read."""

T = TypeVar("T")
Indexed: TypeAlias = tuple[int, str]
"""An answer with its index."""


@dataclass(slots=True)
class ReplyRetries:
    """Counts, for one pair, the replies that were asked for again."""

    again: int = 0


class Question(NamedTuple):
    """What the aggregator is asked for in one step, and the form of its reply."""

    step: str
    prompt: str
    form: str
    sampling: Sampling
    choices: Sequence[str] | None = None
    logprobs: bool = False

    def text(self, attempt: int) -> str:
        """Return the prompt. A judge at temperature 0 would repeat itself, so a later attempt says
        that it is one."""
        again = f"(Attempt {attempt} of {ATTEMPTS}: the reply before could not be read.)\n\n"
        return f"{self.prompt}{again if attempt > 1 else ''}{self.form}"

    def sampling_of(self, attempt: int) -> Sampling:
        """Return the sampling. Each attempt has another seed."""
        if self.sampling.seed is None or attempt == 1:
            return self.sampling
        # The step of 65536 is larger than any series of seeds in a recipe.
        return self.sampling.model_copy(update={"seed": self.sampling.seed + (attempt - 1 << 16)})


class Comparison(NamedTuple):
    """What the judge sees of a pair: each text between tags.
    The fields are the placeholders in the templates."""

    query: str
    answer_a: str
    answer_b: str


@dataclass(frozen=True, slots=True)
class Panel:
    """A judge that works on the answers to one query."""

    judge: Judge
    ask: Ask
    query: str
    """The query as text between its tags, neutralised."""
    controls: Controls
    mark: str
    """The mark in the tags around the texts. It is a hash of all these texts, so none of them can
    contain it. It is the same for all pairs, so that the prefix cache works."""
    picked: tuple[str, ...] | None = None
    """The criteria of all pairs, if they are picked once for the prompt."""

    @classmethod
    def over(
        cls,
        judge: Judge,
        query: Sequence[Message],
        answers: Sequence[str],
        ask: Ask,
        controls: Controls,
    ) -> Self:
        """Return the panel for these answers. `query`: the conversation that they answer, which
        ends with the user."""
        mark = code(*[message["content"] for message in query], *answers)
        return cls(judge, ask, rendered(query, mark, controls), controls, mark)

    async def compare(self, a: Indexed, b: Indexed) -> Judgement:
        """Return how much better answer a is than b, judged in both orders (9 calls with three
        proposers).

        If a step fails for good, its order is lost: it is in `lost`.
        """
        tries = ReplyRetries()
        try:
            names = await self.criteria_of(a, b, tries)
        except RowRejected as error:
            lost = (Lost(a[0], b[0], error.reason, error.detail), Lost(b[0], a[0], error.reason))
            return merged(*lost, tries.again)
        one, other = await together(
            [self.in_order(a, b, names, tries), self.in_order(b, a, names, tries)]
        )
        return merged(one, other, tries.again)

    async def criteria_of(
        self, a: Indexed, b: Indexed, tries: ReplyRetries
    ) -> tuple[str, ...] | None:
        """Return the criteria of a pair, for both orders; None if each order picks its own. Raises
        `RowRejected` if none can be read."""
        if self.judge.criteria == "all":
            return tuple(criteria.CRITERIA)
        if self.judge.criteria == "per-order" or self.picked:
            return self.picked
        return await self.pick_criteria(self.shown(a[1], b[1]), tries)

    async def in_order(
        self, first: Indexed, second: Indexed, names: tuple[str, ...] | None, tries: ReplyRetries
    ) -> Order | Lost:
        """Return the verdict with answer `first` shown first. `names`: the criteria; None picks
        them for this order."""
        comparison = self.shown(first[1], second[1])
        try:
            names = names or await self.pick_criteria(comparison, tries)
            assessments, left_out = await self.assess(comparison, names)
            decision, text = await self.decide(comparison, names, assessments, tries)
        except RowRejected as error:
            return Lost(first[0], second[0], error.reason, error.detail)
        return Order(first[0], second[0], names, assessments, left_out, *decision, text)

    def shown(self, a: str, b: str) -> Comparison:
        """Return both answers and the query between their tags, with answer a first."""
        return Comparison(
            self.query,
            fenced("answer_a", self.controls.neutralised(a), self.mark),
            fenced("answer_b", self.controls.neutralised(b), self.mark),
        )

    async def pick_criteria(self, comparison: Comparison, tries: ReplyRetries) -> tuple[str, ...]:
        """Step 1: return the three of the eight criteria that the aggregator picks."""
        described = criteria.described(tuple(criteria.CRITERIA))
        prompt = _prompt(self.judge, "criteria", comparison, criteria=described)
        sampling = self.judge.aggregator.sampling
        room = sampling.model_copy(update={"max_tokens": max(sampling.max_tokens, CRITERIA_TOKENS)})
        # Servers without grammars refuse a request with one; recipes give such servers `parsed`.
        triples = criteria.TRIPLES if self.judge.verdict == "soft" else None
        question = Question("criteria", prompt, criteria.REPLY_FORM, room, triples)
        names, _ = await self._ask(question, lambda choice: criteria.parse(choice.text), tries)
        return names

    async def assess(
        self, comparison: Comparison, names: Sequence[str]
    ) -> tuple[tuple[Proposal, ...], tuple[LeftOut, ...]]:
        """Step 2: return each proposer's assessment of both answers by these criteria, and the
        proposers left out."""
        judge = self.judge
        prompt = _prompt(judge, "assess", comparison, criteria=criteria.described(names))
        assessments, left_out = await propose(
            judge.proposers, [Message(role="user", content=prompt)], self.ask
        )
        if len(assessments) < judge.quorum:
            raise RowRejected(
                "too few assessments",
                f"{len(assessments)} assessments, {judge.quorum} needed; "
                f"left out: {', '.join(map(str, left_out))}",
            )
        return assessments, left_out

    async def decide(
        self,
        comparison: Comparison,
        names: Sequence[str],
        assessments: Sequence[Proposal],
        tries: ReplyRetries,
    ) -> tuple[verdict.Verdict, str]:
        """Step 3: return the aggregator's verdict, and the text it wrote."""
        judge = self.judge
        soft = judge.verdict == "soft"
        numbered_assessments = numbered(assessments, self.controls, self.mark, "assessment")
        prompt = _prompt(
            judge,
            "verdict",
            comparison,
            criteria=criteria.described(names),
            assessments=between("assessments", numbered_assessments, self.mark),
        )
        question = Question(
            "verdict",
            prompt,
            verdict.REPLY_FORM[judge.verdict],
            judge.aggregator.sampling,
            verdict.CHOICES if soft else None,
            logprobs=soft,
        )
        return await self._ask(question, verdict.soft if soft else verdict.parsed, tries)

    async def _ask(
        self, question: Question, read: Callable[[Choice], T], tries: ReplyRetries
    ) -> tuple[T, str]:
        """Return what the aggregator's reply says, and its text. It is asked again a few times if
        its reply cannot be read. Raises `RowRejected` if none can be read, or if a call fails."""
        aggregator = self.judge.aggregator
        for attempt in range(1, ATTEMPTS + 1):
            message = Message(role="user", content=question.text(attempt))
            try:
                reply = await self.ask(
                    aggregator.model,
                    as_member(aggregator, [message]),
                    question.sampling_of(attempt),
                    choices=question.choices,
                    logprobs=question.logprobs,
                )
            except CallError as error:
                raise RowRejected(f"{question.step}: {error.reason}", error.detail) from error
            choice = reply.choices[0]
            try:
                return read(choice), choice.text
            except RowRejected:
                if attempt == ATTEMPTS:
                    raise
                tries.again += 1
        raise AssertionError("the last attempt returns or raises")


async def compare(
    judge: Judge,
    query: Sequence[Message],
    a: str,
    b: str,
    ask: Ask,
    *,
    indices: tuple[int, int] = (0, 1),
    controls: Controls = KNOWN,
) -> Judgement:
    """Return how much better answer `a` is than `b`, judged in both orders. `indices` name the
    answers in the result."""
    i, j = indices
    return await Panel.over(judge, query, (a, b), ask, controls).compare((i, a), (j, b))


def check_instructions(judge: Judge) -> None:
    """Check that the judge's templates can be filled, before engines start.
    Raises `RecipeError` if not."""
    nothing = Comparison("", "", "")
    _prompt(judge, "criteria", nothing, criteria="")
    _prompt(judge, "assess", nothing, criteria="")
    _prompt(judge, "verdict", nothing, criteria="", assessments="")


def rendered(query: Sequence[Message], mark: str, controls: Controls = KNOWN) -> str:
    """Return the conversation for a judge, between tags with this mark. A single message is
    unchanged; several ones each get tags of their role, which no message can forge."""
    texts = [controls.neutralised(message["content"]) for message in query]
    if len(query) == 1:
        return fenced("query", texts[0], mark)
    roles = [message["role"] for message in query]
    turns = [fenced(role, text, mark) for role, text in zip(roles, texts, strict=True)]
    return between("query", "\n\n".join(turns), mark)


def _prompt(judge: Judge, step: str, comparison: Comparison, **more: str) -> str:
    field = f"{step}_instruction"
    return (
        templates.fill(
            f"judge.{field}",
            getattr(judge, field) or templates.text(step),
            {**comparison._asdict(), **more},
        )
        + "\n\n"
    )
