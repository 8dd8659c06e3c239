"""The plan in words: next to the paper's numbers, its assumptions, and the disk space."""

from __future__ import annotations

from collections.abc import Sequence

from moaa.plan import calls
from moaa.plan.calls import CHARACTERS_PER_TOKEN, SetName, sizes
from moaa.plan.lines import Line, cost, total
from moaa.recipe import places
from moaa.recipe.model_size import CHECKPOINT_BYTES, WEIGHT_BYTES, parameters
from moaa.recipe.schema import Recipe, Runtime

SETS: tuple[SetName, ...] = ("sft", "preference", "evaluation")

PAPER_GENERATION = (
    "paper: $366 for 61k prompts, $0.0060 each, 63% of it the aggregator's; GPT-4o would be $429"
)
PAPER_JUDGE = "paper: 540,000 calls for 6,000 prompts, 90 each"
"""The numbers of the paper's own run."""


def comparison(recipe: Recipe, planned: Sequence[Line]) -> list[str]:
    """Return the plan's numbers that the paper has too, then the paper's."""
    sentences = [
        sentence
        for source, prompts, turns in sizes(recipe, "sft")
        if (sentence := _generation(recipe, source.name or source.source, prompts, turns))
    ]
    if sentences:
        sentences.append(PAPER_GENERATION)
    judged = sum(prompts for _, prompts, _ in sizes(recipe, "preference"))
    if judged:
        asked = sum(line.calls for line in planned if line.stage == "label")
        sentences += [
            f"label: {asked:,} calls for {judged:,} prompts, {asked / judged:g} each",
            PAPER_JUDGE,
        ]
    return sentences


def _generation(recipe: Recipe, name: str, prompts: int, turns: float) -> str | None:
    """Return the cost of one source's conversations, and the aggregator's share;
    None if a price is missing."""
    dollars: dict[str, float] = {}
    for asked in calls.generation(recipe, prompts, turns):
        usd = cost(recipe, asked.model, asked.prompt_tokens, asked.completion_tokens)
        if usd is None:
            return None
        dollars[asked.role] = dollars.get(asked.role, 0) + usd
    whole = sum(dollars.values())
    if not whole or "aggregator" not in dollars:
        return None
    turned = f"{turns:g} turn{'s' if turns != 1 else ''}"
    return (
        f"generate, {name}: ${whole:,.0f} for {prompts:,} conversations of {turned}, "
        f"${whole / prompts:.4f} each, "
        f"{dollars['aggregator'] / whole:.0%} of it the aggregator's"
    )


def assumptions(recipe: Recipe, planned: Sequence[Line]) -> list[str]:
    """Return what the numbers assume (`recipe.plan`), and what the recipe does not say."""
    assumed = recipe.plan
    turns = "".join(f", {name}: {value:g}" for name, value in assumed.turns.items())
    sentences = [
        f"tokens: {assumed.prompt_tokens} a user turn, {assumed.answer_tokens} an answer, "
        f"{assumed.assessment_tokens} an "
        f"assessment, each at most its max_tokens; instructions at {CHARACTERS_PER_TOKEN} "
        "characters a token",
        f"turns of a conversation: {assumed.turns_per_prompt:g}{turns}",
        f"training: {assumed.train_tokens_per_gpu_s:,g} tokens a second and GPU; a GPU-hour at "
        f"${assumed.gpu_hour_usd:g} unless "
        "its pool says otherwise",
        _in_flight(recipe.runtime),
        "no prompt is dropped, no two answers are the same, no call fails, no prefix is cached",
    ]
    if recipe.measures_production:
        sentences.append(
            f"a version of {recipe.publishes_as} is in production: it is measured too (its answers "
            "are asked again only if questions or settings changed)"
        )
    judge = recipe.label.judge_of(recipe.label.labeller)
    if judge and judge.mode == "adaptive":
        sentences.append(
            f"the adaptive judge asks {assumed.adaptive_share:.0%} of the exhaustive one's calls "
            "(plan.adaptive_share)"
        )
    sentences += [f"missing: {each}" for each in uncounted(recipe)]
    used = {line.model.split("+")[0]: None for line in planned if line.calls}
    for what, gives in (("price", "dollars"), ("rate", "GPU-hours")):
        without = [name for name in used if getattr(recipe.models[name], what) is None]
        if without:
            sentences.append(f"no {gives} for {', '.join(without)}: models.*.{what} is not stated")
    if code := [name for name in used if recipe.models[name].trust_remote_code]:
        sentences.append(f"code of the models' repositories runs: {', '.join(code)}")
    return sentences


def uncounted(recipe: Recipe) -> list[str]:
    """Return a sentence for each source with an unknown number of prompts."""
    return [
        f"the number of prompts in {source.source} is not known (counted as 0). Set its limit, or "
        f"plan.prompts.{name}"
        for name in SETS
        for source, prompts, _ in sizes(recipe, name)
        if not prompts
    ]


def _in_flight(runtime: Runtime) -> str:
    """Return how many requests and conversations are in progress, and why."""
    busy = (
        f"{runtime.calls.window} conversations in progress (runtime.calls.window)"
        if runtime.calls.window
        else f"{places.CONVERSATIONS} conversations in progress for each"
    )
    if given := runtime.calls.in_flight:
        return f"requests in flight at each server: {given} (runtime.calls.in_flight); {busy}"
    if seqs := runtime.engines.max_num_seqs:
        said = (
            f"{seqs} at our engines (runtime.engines.max_num_seqs; fewer on GPUs while a queue or "
            "preemptions grow)"
        )
    else:
        said = (
            f"{places.GPU_SEQS} on GPUs at first, up to {places.MOST:,} while none waits and none "
            f"is preempted, {places.CPU_SEQS} on CPUs"
        )
    return f"requests in flight at each server: {said}, {places.ENDPOINT} at endpoints; {busy}"


def rounds(by_round: Sequence[Sequence[Line]]) -> list[str]:
    """Return the cost of each round if all are won, and of all together; nothing for one round."""
    if len(by_round) == 1:
        return []
    each = [f"round {number}: {_sum(found)}" for number, found in enumerate(by_round, 1)]
    every = [line for found in by_round for line in found]
    return [*each, f"all {len(by_round)}, if each but the last is won: {_sum(every)}"]


def _sum(found: Sequence[Line]) -> str:
    parts = [f"{sum(line.calls for line in found):,} calls"]
    if (hours := total(line.gpu_hours for line in found)) is not None:
        parts.append(f"{hours:,.1f} GPU-hours")
    if (gpu := total(line.gpu_usd for line in found)) is not None:
        parts.append(f"${gpu:,.2f} of GPUs")
    if (usd := total(line.cost_usd for line in found)) is not None:
        parts.append(f"${usd:,.2f} of tokens")
    return ", ".join(parts)


def disk(recipe: Recipe, planned: Sequence[Line]) -> list[str]:
    """Return sentences: the disk space for weights, checkpoints and texts. Sizes are estimated from
    the models' names."""
    used = dict.fromkeys([recipe.target, *(line.model.split("+")[0] for line in planned)])
    known = {name: parameters(recipe.models[name].source) for name in used}
    unknown = [name for name, count in known.items() if count is None]
    weights = (total(known.values()) or 0) * WEIGHT_BYTES
    sentences = [
        f"models to fetch: {_size(weights)}"
        + (f", without {', '.join(unknown)} (size unknown)" if unknown else "")
    ]
    if count := known[recipe.target]:
        trained, checkpoint = 2 * count * WEIGHT_BYTES, count * CHECKPOINT_BYTES
        sentences.append(
            f"store: {_size(trained)} for the SFT and the DPO model, {_size(checkpoint)} for each "
            "checkpoint kept"
        )
    text = sum(line.completion_tokens for line in planned) * CHARACTERS_PER_TOKEN
    sentences.append(f"store: {_size(text)} of generated text before compression")
    return sentences


def _size(count: float) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"
