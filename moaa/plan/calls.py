"""The calls that the method makes, and their tokens under the recipe's assumptions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

from moaa import templates
from moaa.declaration import RoleCalls, Trained
from moaa.judge import criteria
from moaa.recipe.evaluation import PRODUCTION
from moaa.recipe.labelling import LabellerName
from moaa.recipe.schema import Judge, Member, Mixture, Recipe, Source

CHARACTERS_PER_TOKEN = 4
CRITERIA_REPLY_TOKENS = 9
VERDICT_TOKENS = 1
NUMBER_TOKENS = 4
"""The `1. ` before a proposal and the blank line after it."""

SetName = Literal["sft", "preference", "evaluation"]


def sizes(recipe: Recipe, name: SetName) -> Iterator[tuple[Source, int, float]]:
    """Yield (source, prompts, user turns) for each source of a set.

    Sources without a limit share `plan.prompts`.
    """
    sources: tuple[Source, ...] = getattr(recipe.prompts, name)
    unlimited = sum(source.limit is None for source in sources)
    for source in sources:
        stated = recipe.plan.turns.get(source.name, recipe.plan.turns_per_prompt)
        turns = stated if source.turns is None else min(stated, source.turns)
        yield source, source.limit or recipe.plan.prompts.get(name, 0) // unlimited, turns


def of_generate(recipe: Recipe) -> Iterator[RoleCalls]:
    """Yield the calls of the stage generate."""
    for _, prompts, turns in sizes(recipe, "sft"):
        yield from generation(recipe, prompts, turns)


def of_sample(recipe: Recipe) -> Iterator[RoleCalls]:
    """Yield the calls of the stage sample."""
    for _, prompts, turns in sizes(recipe, "preference"):
        yield from sampling(recipe, prompts, turns)


def of_label(recipe: Recipe) -> Iterator[RoleCalls]:
    """Yield the calls of the stage label."""
    for _, prompts, _ in sizes(recipe, "preference"):
        yield from labelling(recipe, prompts)


def of_sft(recipe: Recipe) -> Trained:
    """Return the training of the stage sft."""
    answer = answer_tokens(recipe, recipe.generate.mixture.aggregator)
    times = len(recipe.generate.writers) if recipe.generate.source == "all" else 1
    sets = [(source, times * prompts, turns) for source, prompts, turns in sizes(recipe, "sft")]
    trained = 1 - recipe.sft.validation
    conversations = round(trained * sum(prompts for _, prompts, _ in sets))
    turn = recipe.plan.prompt_tokens + answer
    tokens = trained * sum(prompts * turns * turn for _, prompts, turns in sets)
    packed = math.ceil(tokens / recipe.sft.max_length) if recipe.sft.packing else conversations
    return Trained(recipe.sft, packed, tokens)


def of_dpo(recipe: Recipe) -> Trained:
    """Return the training of the stage dpo."""
    prompts = sum(prompts for _, prompts, _ in sizes(recipe, "preference"))
    pairs = round((1 - recipe.dpo.validation) * prompts)
    tokens = pairs * 2 * (recipe.plan.prompt_tokens + sampled_tokens(recipe))
    # The reference's log-probabilities are computed once: a forward pass, about a third of the work
    # of a training step.
    return Trained(recipe.dpo, pairs, tokens, once_tokens=tokens / 3)


def generation(recipe: Recipe, conversations: int, turns: float) -> Iterator[RoleCalls]:
    """Yield the calls that write the SFT data of these conversations and user turns, by the mixture
    (paper, Eq. 1-3) or by the recipe's other source."""
    generate, mixture = recipe.generate, recipe.generate.mixture
    calls = conversations * turns
    share = 1 / len(generate.writers) if generate.source == "random" else 1
    for member in generate.writers:
        answer = answer_tokens(recipe, member)
        alone = member.model_copy(update={"sampling": member.sampling.model_copy(update={"n": 1})})
        seen = _history(recipe, turns, answer)
        yield _asked("writer", alone, calls * share, seen, answer)
    if generate.mixes:
        yield from mixing(recipe, calls, turns)
    if recipe.best_by:
        answer = answer_tokens(recipe, mixture.aggregator)
        yield from ranking(recipe, recipe.best_by, calls, mixture.proposals + 1, answer)


def mixing(recipe: Recipe, calls: float, turns: float) -> Iterator[RoleCalls]:
    """Yield the calls of the mixture for this many answers, in conversations of this many user
    turns."""
    mixture = recipe.generate.mixture
    answer = answer_tokens(recipe, mixture.aggregator)
    seen = _history(recipe, turns, answer)
    injected = _injected(recipe, mixture)
    for layer in range(mixture.layers - 1):
        for member in mixture.proposers:
            yield _asked(
                "proposer",
                member,
                calls,
                seen + (injected if layer else 0),
                answer_tokens(recipe, member),
            )
    yield _asked("aggregator", mixture.aggregator, calls, seen + injected, answer)


def sampling(recipe: Recipe, prompts: int, turns: float) -> Iterator[RoleCalls]:
    """Yield the SFT model's calls: n answers to the last turn, one to each earlier turn."""
    name, chosen = f"{recipe.target}+sft", recipe.sample.sampling
    turn, answer = recipe.plan.prompt_tokens, sampled_tokens(recipe)
    earlier = prompts * (turns - 1)
    if earlier:
        yield RoleCalls(
            "earlier turn",
            name,
            earlier,
            earlier * _history(recipe, turns - 1, answer),
            earlier * answer,
        )
    seen = turn + (turns - 1) * (turn + answer)
    yield RoleCalls("sample", name, prompts, prompts * seen, prompts * answer * chosen.n)


def judging(
    recipe: Recipe, judge: Judge, pairs: float, answer: float, prompts: float | None = None
) -> Iterator[RoleCalls]:
    """Yield the judge's calls for these pairs of answers, in both orders. `prompts`: how many
    prompts the answers belong to (default: one a pair).

    Paper: 90 calls for the 10 pairs of 5 answers.
    """
    every, three = tuple(criteria.CRITERIA), tuple(criteria.CRITERIA)[:3]
    shown = recipe.plan.prompt_tokens + 2 * answer
    picks = {
        "per-pair": pairs,
        "per-order": 2 * pairs,
        "per-prompt": pairs if prompts is None else prompts,
        "all": 0,
    }[judge.criteria]
    if picks:
        prompt = _instruction(judge.criteria_instruction, "criteria") + tokens_of(
            criteria.described(every)
        )
        yield _asked("criteria", judge.aggregator, picks, prompt + shown, CRITERIA_REPLY_TOKENS)
    shown += tokens_of(criteria.described(every if judge.criteria == "all" else three))
    assessments = 0
    for member in judge.proposers:
        completion = min(recipe.plan.assessment_tokens, member.sampling.max_tokens)
        assessments += member.sampling.n * (completion + NUMBER_TOKENS)
        yield _asked(
            "assessment",
            member,
            2 * pairs,
            _instruction(judge.assess_instruction, "assess") + shown,
            completion,
        )
    verdict = min(recipe.plan.assessment_tokens, judge.aggregator.sampling.max_tokens)
    if judge.verdict == "soft":
        verdict = VERDICT_TOKENS
    decided = _instruction(judge.verdict_instruction, "verdict") + shown + assessments
    yield _asked("verdict", judge.aggregator, 2 * pairs, decided, verdict)


def labelling(recipe: Recipe, prompts: int) -> Iterator[RoleCalls]:
    """Yield the labeller's calls for a prompt's n answers."""
    n, answer = recipe.sample.sampling.n, sampled_tokens(recipe)
    yield from ranking(recipe, recipe.label.labeller, prompts, n, answer)


def ranking(
    recipe: Recipe, labeller: LabellerName, prompts: float, n: int, answer: float
) -> Iterator[RoleCalls]:
    """Yield this labeller's calls to rank n answers to each prompt.

    A judge compares every pair. A reward model reads each answer once, ArmoRM also the prompt.
    """
    if judge := recipe.label.judge_of(labeller):
        pairs = n * (n - 1) / 2
        share = recipe.plan.adaptive_share if judge.mode == "adaptive" else 1
        yield from judging(recipe, judge, prompts * pairs * share, answer, prompts)
    elif model := recipe.label.model_of(labeller):
        alone = 1 if labeller == "armorm" else 0
        tokens = (n + alone) * recipe.plan.prompt_tokens + n * answer
        yield RoleCalls("score", model, prompts * (n + alone), prompts * tokens, 0)


def answering(recipe: Recipe, questions: float, turns: int, answer: float) -> Iterator[RoleCalls]:
    """Yield the contestants' answers to the questions of a benchmark."""
    prompt = _history(recipe, turns, answer)
    calls = questions * turns
    for name in recipe.measured:
        if name == "mixture":
            yield from mixing(recipe, calls, turns)
            continue
        model = {
            "base": recipe.target,
            "sft": f"{recipe.target}+sft",
            "dpo": f"{recipe.target}+dpo",
            **({PRODUCTION: f"{recipe.target}+{PRODUCTION}"} if recipe.measures_production else {}),
        }.get(name, name)
        yield RoleCalls("answer", model, calls, calls * prompt, calls * answer)


def rating(recipe: Recipe, judge: Judge, ratings: float, read: float) -> Iterator[RoleCalls]:
    """Yield the judge's calls to rate answers one by one: each proposer assesses, the aggregator
    rates. A judge of one model with parsed verdicts rates in one call. `read`: tokens of the rated
    answer and of the instruction."""
    assessments = 0.0
    alone = len(judge.proposers) == 1 and judge.models == {judge.aggregator.model}
    if not (alone and judge.verdict == "parsed"):
        for member in judge.proposers:
            completion = min(recipe.plan.assessment_tokens, member.sampling.max_tokens)
            assessments += completion + NUMBER_TOKENS
            yield _asked("assessment", member, ratings, read, completion)
    written = min(recipe.plan.assessment_tokens, judge.aggregator.sampling.max_tokens)
    if judge.verdict == "soft":
        written = VERDICT_TOKENS
    yield _asked("rating", judge.aggregator, ratings, read + assessments, written)


def tokens_of(text: str | None) -> int:
    """Return the tokens of a text, estimated from its length."""
    return math.ceil(len(text or "") / CHARACTERS_PER_TOKEN)


def answer_tokens(recipe: Recipe, member: Member) -> int:
    """Return the tokens of a member's answer."""
    return min(recipe.plan.answer_tokens, member.sampling.max_tokens)


def sampled_tokens(recipe: Recipe) -> int:
    """Return the tokens of an answer in the sample stage."""
    return min(recipe.plan.answer_tokens, recipe.sample.sampling.max_tokens)


def _asked(role: str, member: Member, calls: float, prompt: float, completion: float) -> RoleCalls:
    """Return the calls. A call with n answers counts its prompt and the member's persona once."""
    seen = prompt + tokens_of(member.system)
    return RoleCalls(
        role, member.model, calls, calls * seen, calls * completion * member.sampling.n
    )


def _history(recipe: Recipe, turns: float, answer: float) -> float:
    """Return the tokens that an average turn sees: its question, and earlier turns with answers."""
    turn = recipe.plan.prompt_tokens
    return turn + (turns - 1) / 2 * (turn + answer)


def _injected(recipe: Recipe, mixture: Mixture) -> float:
    """Return the tokens of the aggregate instruction and one layer's numbered proposals."""
    proposals = sum(
        m.sampling.n * (answer_tokens(recipe, m) + NUMBER_TOKENS) for m in mixture.proposers
    )
    return _instruction(mixture.instruction, "aggregate") + proposals


def _instruction(given: str | None, name: str) -> int:
    return tokens_of(given or templates.text(name))
