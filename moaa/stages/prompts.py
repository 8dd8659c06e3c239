"""The three sets of prompts: read, deduplicated, and separated from the evaluation prompts.

The stage fails if a set is empty or cannot be read: otherwise a decontamination against nothing
would look successful.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from pydantic import Field

from moaa import registry
from moaa.benchmarks import guard
from moaa.chat.controls import Controls
from moaa.errors import RecipeError, TooManyRejected
from moaa.progress.messages import log
from moaa.prompts import selection, sources
from moaa.prompts.prompt import PromptRow, read_prompt
from moaa.prompts.sources import SETS
from moaa.recipe.rounds import SLICED
from moaa.recipe.schema import Prompts, Recipe, Source
from moaa.registry import production
from moaa.stage import Context, stage
from moaa.stages.table import PROMPTS
from moaa.stages.texts import TextPart, control_texts
from moaa.store import Store

GUARDED = "questions of benchmarks that prompts were compared with"
UNGUARDED = "benchmarks that prompts could not be compared with"
MASKED = "personal data and keys replaced"
TRAINED = "prompts of production that others were compared with"
PRODUCTION = "the version in production"
"""The name of the production version among the contents of the stage's sources."""
NOTHING = "none"
FORGED = "prompts with control tokens, neutralised"


class PromptsPart(TextPart):
    """What the sets depend on, besides the content of their sources."""

    prompts: Prompts
    answers: bool = False
    guarded: dict[str, tuple[Source, ...]] = Field({})
    """The sources of benchmarks: no training prompt may be near to their questions."""


def part_of(recipe: Recipe) -> PromptsPart:
    """Return the stage's part of the recipe."""
    return PromptsPart(
        prompts=recipe.prompts,
        control_texts=control_texts(recipe),
        answers=recipe.generate.source == "original",
        guarded=guard.guarded(recipe),
    )


def content_of(recipe: Recipe, store: Store, *_: object) -> dict[str, str]:
    """Return the current content of the sources:
    changed prompts at an old address are another input."""
    found = sources.contents(recipe.prompts, store) | guard.contents(recipe, store)
    if _skips_trained(recipe):
        found[PRODUCTION] = _compared_with(recipe, store, found)
    return found


@stage(PROMPTS, part=part_of, content=content_of, schema=4)
def prompts(part: PromptsPart, context: Context) -> None:
    """Write the prompts of each set, and the rejected ones with their reasons."""
    found: dict[str, list[PromptRow]] = {name: [] for name in SETS}
    for name in SETS:
        for source in getattr(part.prompts, name):
            context.progress.note(f"reading {source.source} for {name}")
            before = context.ledger.rows["in"]
            for raw in sources.rows(source, context.store):
                context.ledger.rows["in"] += 1
                context.progress.advance()
                row = read_prompt(raw, source, answers=part.answers and name == "sft")
                if source.masks:
                    row, replaced = row.masked()
                    context.ledger.events.update(
                        {f"{MASKED}: {kind}": n for kind, n in replaced.items()}
                    )
                context.ledger.events.update(f"left out: {what}" for what in row.left_out)
                found[name].append(row)
            if context.recipe.rounds.sliced and name in SLICED:
                read = context.ledger.rows["in"] - before
                sources.refuse_short(name, source, read, context.recipe.rounds.round)
    _refuse_if_changed(context)
    most = context.recipe.runtime.max_rejected_share
    asked = _asked_by_benchmarks(context)
    chosen = selection.build(found, part.prompts, asked, _trained(context))
    context.ledger.rejected.update(gone.reason for gone in chosen.rejected)
    for name, rows in found.items():
        if given := getattr(part.prompts, name):
            refuse_unless_usable(name, given, len(rows), chosen, most)
    controls = Controls(part.control_texts)
    for name, rows in chosen.kept.items():
        context.ledger.rows[name] += len(rows)
        context.ledger.rows["kept"] += len(rows)
        for row in rows:
            written = neutralised(row, controls)
            if written != row:
                context.ledger.events[FORGED] += 1
            context.out.write(written.to_json(), table=name)
    for gone in chosen.rejected:
        context.out.write(gone.to_json(), table="rejected")


def _asked_by_benchmarks(context: Context) -> list[PromptRow]:
    """Return the questions of the recipe's benchmarks;
    count them, and those that cannot be read."""
    asked, missing = guard.prompts(context.recipe, context.store)
    for title, why in missing.items():
        log.warning(f"prompts are not compared with the questions of {title}: {why}")
    context.ledger.events.update({f"{UNGUARDED}: {title}": 1 for title in missing})
    context.ledger.events.update({GUARDED: len(asked)} if asked else {})
    return asked


def _trained(context: Context) -> list[PromptRow]:
    """Return the prompts that production was trained on,
    if a source leaves them out; count them."""
    uri = context.content.get(PRODUCTION, NOTHING)
    if uri == NOTHING:
        return []
    context.progress.note(f"reading what {uri} was trained on")
    found = {row.id: row for row in registry.prompts_of(context.store, uri)}
    context.ledger.events[TRAINED] += len(found)
    return list(found.values())


def _skips_trained(recipe: Recipe) -> bool:
    return any(each.skip_trained for each in (*recipe.prompts.sft, *recipe.prompts.preference))


def _compared_with(recipe: Recipe, store: Store, held: Mapping[str, str]) -> str:
    """Return the address of the version in production, or NOTHING.

    If the sources still have the content from which that version was made, return the version that
    it was compared with. So a run that is repeated after its promotion has the same prompts.
    """
    assert recipe.publishes_as
    current = production.read(store, recipe.publishes_as).current
    if not current:
        return NOTHING
    before = registry.contents_of(store, current.uri)
    of_its_own = before.pop(PRODUCTION, NOTHING)
    return of_its_own if before == held else current.uri


def neutralised(row: PromptRow, controls: Controls) -> PromptRow:
    """Return the prompt without control tokens of any model: with them a prompt could start turns
    of its own."""
    return replace(
        row,
        system=row.system and controls.neutralised(row.system),
        turns=tuple(controls.neutralised(turn) for turn in row.turns),
    )


def _refuse_if_changed(context: Context) -> None:
    """Raise an error if a source changed while it was read:
    the result would have a wrong fingerprint."""
    now = content_of(context.recipe, context.store)
    changed = [name for name, held in context.content.items() if now.get(name) != held]
    if changed:
        raise RecipeError(
            f"{', '.join(changed)} changed while it was read. Run again when it is complete."
        )


def refuse_unless_usable(
    name: str, given: Sequence[Source], rows: int, chosen: selection.Selection, most: float
) -> None:
    """Check a set. Raise, with the table of reasons, if nothing of it is left or if more than the
    share `most` of its `rows` is unreadable.

    Repeated and contaminated prompts never count as unreadable.
    """
    lost = [gone for gone in chosen.rejected if gone.set == name]
    unreadable = sum(gone.reason == "unreadable" for gone in lost)
    named = ", ".join(
        f"{each.source}{f' (field {each.field!r})' if each.field else ''}" for each in given
    )
    if not chosen.kept[name]:
        raise RecipeError(
            f"no prompt is left for prompts.{name} of the {rows} rows of {named}.{_reasons(lost)}\n"
            "  Correct `field` (a column that the rows have), `offset` and `limit` of its "
            "sources, or name other ones."
        )
    if unreadable > most * rows:
        raise TooManyRejected(
            f"{unreadable} of {rows} rows of prompts.{name} are unreadable "
            f"({unreadable / rows:.1%}); the limit is {most:.1%} "
            f"(runtime.max_rejected_share). They are from {named}.{_reasons(lost)}\n"
            "  Correct `field` (a column that the rows have), or the rows."
        )


def _reasons(lost: Sequence[selection.Rejected]) -> str:
    """Return a line for each source and reason, with the first row's detail."""
    counts = Counter((gone.row.source, gone.reason) for gone in lost)
    details = {(gone.row.source, gone.reason): gone.detail[:200] for gone in reversed(lost)}
    return "".join(
        f"\n  {n:>6}  {source}: {reason}   e.g. {details[source, reason]}"
        for (source, reason), n in counts.items()
    )
