"""Checks which kinds of conversations the target's chat template can be trained on, before the
answers are paid for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Final

from moaa.errors import MoaaError, RowRejected
from moaa.preflight.finding import Finding, unseen
from moaa.preflight.run import PlannedRun
from moaa.prompts import sources
from moaa.prompts.prompt import read_prompt
from moaa.recipe.schema import Source
from moaa.store import Store
from moaa.train.rendering import Rendering, conversation
from moaa.weights import local, tokenizer
from moaa.weights.control import control_texts

CHECK: Final = "chat template"
ROWS: Final = 500
"""This many rows of each source show which kinds of conversations a run has."""
TRAINED_SETS: Final = {"sft": "sft", "dpo": "preference"}
"""The sets of prompts that each training uses."""


@dataclass(frozen=True, slots=True, order=True)
class ConversationKind:
    """A kind of conversation."""

    several_turns: bool
    system: bool

    def __str__(self) -> str:
        turns = "several turns" if self.several_turns else "one turn"
        return f"{turns} and a system message" if self.system else turns


KINDS: Final = tuple(
    ConversationKind(turns, system) for turns in (False, True) for system in (False, True)
)


def lost_kinds(rendering: Rendering, stage: str) -> dict[ConversationKind, str]:
    """Return the kinds of conversations that this training cannot train on, each with the reason.

    dpo trains only the last answer: if that is lost, the conversation is lost.
    """
    lost = {}
    for kind in KINDS:
        messages = conversation(turns=3 if kind.several_turns else 1, system=kind.system)
        try:
            if stage == "dpo":
                rendering.answer(messages[:-1], messages[-1]["content"])
            else:
                rendering.sequences(messages)
        except RowRejected as error:
            lost[kind] = f"{error.reason}: {error.detail}"
    return lost


def _ways(rendering: Rendering) -> Iterator[str]:
    """Yield in words how conversations are trained that a template does not simply extend."""
    if not rendering.knows_system:
        yield "system messages go into the first user turn"
    try:
        found, left_out = rendering.sequences(conversation(turns=3, system=False))
    except RowRejected:
        return
    if len(found) > 1:
        yield "each answer of several turns becomes a sequence of its own"
    if left_out:
        yield f"{left_out.total()} of 3 answers are not trained ({', '.join(left_out)})"


def found_kinds(given: Iterable[Source], store: Store) -> Counter[ConversationKind]:
    """Return how many of the first rows of these sources are of each kind.

    A source that cannot be read counts none: another check reports it.
    """
    found: Counter[ConversationKind] = Counter()
    for source in given:
        try:
            for raw in islice(sources.rows(source, store), ROWS):
                row = read_prompt(raw, source)
                if row.turns:
                    found[ConversationKind(len(row.turns) > 1, bool(row.system))] += 1
        except MoaaError:
            continue
    return found


def findings(run: PlannedRun, *, hub_away: bool) -> Iterator[Finding]:
    """Render the target's template with every kind of conversation, and report what would be lost.

    `hub_away`: the hub did not answer another check, and is not asked again.
    """
    trained = [stage.name for stage in run.stages if stage.name in TRAINED_SETS]
    if not trained:
        return
    name = run.recipe.target
    fix = (
        f"give models.{name}.engine_args another template (--chat-template FILE) or its variables "
        "(--default-chat-template-kwargs '{\"enable_thinking\": false}'), or choose another target"
    )
    try:
        rendering = _rendering(run, hub_away=hub_away)
    except _Unseen as error:
        yield unseen(CHECK, f"{name}: {error}")
        return
    except MoaaError as error:
        yield Finding(CHECK, False, f"{name}: {error}", fix)
        return
    for stage in trained:
        given = [
            source
            for source in getattr(run.recipe.prompts, TRAINED_SETS[stage])
            if not (hub_away and source.source.startswith("hub:"))
        ]
        found = found_kinds(given, run.store)
        yield _of_prompts(stage, found, lost_kinds(rendering, stage), run, fix)
    kept = "; ".join(_ways(rendering)) or "every answer is trained as it is served"
    yield Finding(CHECK, True, f"{name}: answers end with {rendering.end}; {kept}")


class _Unseen(Exception):
    """The target's tokenizer is not available here."""


def _rendering(run: PlannedRun, *, hub_away: bool) -> Rendering:
    """Return what the target's template does. Raises a MoaaError if it cannot be used for training,
    _Unseen if its tokenizer is not available here."""
    name = run.recipe.target
    model = run.recipe.models[name]
    args = tokenizer.TemplateArgs.of(model)
    if hub_away and local.is_hub_id(model.source):
        raise _Unseen("its tokenizer is on the hub, which does not answer")
    try:
        place = tokenizer.place_of(model, run.store)
    except MoaaError as error:
        first = str(error).split("\n")[0]
        raise _Unseen(f"its tokenizer cannot be read here: {first}") from None
    template = tokenizer.template_in(place, args)
    return Rendering.of(template.render, control_texts(template), name)


def _of_prompts(
    stage: str,
    found: Counter[ConversationKind],
    lost: Mapping[ConversationKind, str],
    run: PlannedRun,
    fix: str,
) -> Finding:
    """Return the finding for the prompts that this training is about."""
    total = found.total()
    gone = sum(found[kind] for kind in lost)
    limit = run.recipe.runtime.max_rejected_share
    named = "; ".join(
        f"{kind} ({found[kind]} of the first {total} prompts): {reason}"
        for kind, reason in sorted(lost.items())
    )
    if gone > limit * total:
        detail = (
            f"{stage} would lose {gone / total:.0%} of its conversations under the chat template "
            f"of {run.recipe.target}; the limit is {limit:.1%}. {named}"
        )
        return Finding(CHECK, False, detail, fix)
    if lost:
        return Finding(CHECK, True, f"{stage} can train all but: {named}")
    return Finding(CHECK, True, f"{stage} can train every kind of conversation")
