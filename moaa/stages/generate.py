"""The SFT data (paper, stage 1): one row for each conversation that the mixture answered, with its
proposals. Other sources (`generate.source`) are the paper's ablations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeAlias

from moaa import mixture, writers
from moaa.artifacts.table import Row
from moaa.asking.rejections import Gaps, Loss, absent
from moaa.chat.controls import Controls
from moaa.chat.message import Ask
from moaa.concurrency import together
from moaa.errors import RowRejected
from moaa.mixture import Conversation, Respond
from moaa.recipe.method import CutAnswers
from moaa.recipe.schema import Member, Mixture, Recipe
from moaa.stage import Context, stage
from moaa.stages.labeller import Labelling, labeller_of, labelling_of
from moaa.stages.table import GENERATE
from moaa.stages.texts import NEUTRALISED, TextPart, control_texts, with_instruction

Write: TypeAlias = Callable[[Row, Ask], Awaitable[Row]]


class GeneratePart(TextPart):
    """What the data depends on. The instruction is a text, so a new default makes a new part."""

    mixture: Mixture | None = None
    models: dict[str, Any]
    cut_answers: CutAnswers = "reject"
    source: str = "mixture"
    writers: tuple[Member, ...] = ()
    labelling: Labelling | None = None


def part_of(recipe: Recipe) -> GeneratePart:
    """Return the stage's part of the recipe."""
    generate = recipe.generate
    best_by = recipe.best_by
    return GeneratePart(
        mixture=with_instruction(generate.mixture) if generate.mixes else None,
        models=recipe.identities(recipe.generating),
        cut_answers=generate.cut_answers,
        control_texts=control_texts(recipe),
        source=generate.source,
        writers=generate.writers,
        labelling=labelling_of(recipe.label, best_by) if best_by else None,
    )


def gaps_of(row: Row) -> Gaps:
    """Return the proposers that gave nothing to this conversation, or that have no conversation of
    their own."""
    lost = row.get("lost", ())
    share = 1 / (len(lost) + len(row["conversations"])) if lost else 0
    turns = [turn for conversation in _conversations(row) for turn in conversation["turns"]]
    spoke = (proposal["name"] for turn in turns for proposal in turn["proposals"])
    return Gaps(
        tuple(Loss(each["reason"], each["detail"], share) for each in lost),
        absent(spoke, (gone for turn in turns for gone in turn["left_out"])),
    )


def _conversations(row: Row) -> list[Row]:
    return list(row["conversations"]) if "conversations" in row else [row]


def _write_of(part: GeneratePart, context: Context) -> Write:
    """Return the function that writes the conversation of a prompt, or several ones."""
    controls = Controls(part.control_texts)
    labeller = labeller_of(part.labelling, controls, context) if part.labelling else None

    async def turns(row: Row, answer: Respond) -> Conversation:
        system, cut = row["system"], part.cut_answers
        return await mixture.turn_by_turn(
            answer, system, row["turns"], cut_answers=cut, controls=controls
        )

    async def own_of(row: Row, member: Member, ask: Ask) -> Row:
        try:
            return (await turns(row, writers.alone(member, ask))).to_json()
        except RowRejected as error:
            return {"reason": error.reason, "detail": f"{member.label}: {error.detail}"}

    async def by_all(row: Row, ask: Ask) -> Row:
        members = writers.each_of(part.writers)
        made = await together(own_of(row, member, ask) for member in members)
        conversations = [each for each in made if "turns" in each]
        lost = [each for each in made if "turns" not in each]
        if not conversations:
            raise RowRejected(lost[0]["reason"], lost[0]["detail"])
        return {"conversations": conversations, "lost": lost}

    async def write(row: Row, ask: Ask) -> Row:
        if part.source == "original":
            given = row.get("answers", ())
            return (await writers.original(row["system"], row["turns"], given)).to_json()
        if part.writers:
            member = writers.drawn(part.writers, row["id"])
            return (await turns(row, writers.alone(member, ask))).to_json()
        assert part.mixture is not None
        if labeller:
            chosen = part.mixture, labeller, row["id"], ask
            answer = writers.best(*chosen, cut_answers=part.cut_answers, controls=controls)
            return (await turns(row, answer)).to_json()
        made = partial(mixture.respond, part.mixture, ask=ask, controls=controls)
        return (await turns(row, made)).to_json()

    return by_all if part.source == "all" else write


@stage(GENERATE, part=part_of, schema=4)
def generate(part: GeneratePart, context: Context) -> None:
    """Write every conversation that was answered.
    The events count what is missing, cut or neutralised."""
    controls = Controls(part.control_texts)
    prompts = context.inputs["prompts"].rows("sft")
    for prompt, row in context.ask_each(
        prompts, _write_of(part, context), models=part.models.keys(), gaps_of=gaps_of
    ):
        context.ledger.events.update(
            f"conversations missing: {each['reason']}" for each in row.get("lost", ())
        )
        for number, conversation in enumerate(_conversations(row), 1):
            for turn in conversation["turns"]:
                context.ledger.rows["turns"] += 1
                context.ledger.rows["cut turns"] += turn["finish_reason"] == "length"
                context.ledger.events.update(events(turn, controls))
                if part.source == "best":
                    context.ledger.events[f"best answer: {_writer(turn)}"] += 1
            id = f"{prompt['id']}.{number}" if part.source == "all" else prompt["id"]
            context.out.write({"id": id, "source": prompt["source"], **conversation})


def _writer(turn: Row) -> str:
    """Return the name of the writer of the answer; the last proposal is the aggregator's."""
    named = {each["text"].strip(): each["name"] for each in turn["proposals"]}
    return str(named[turn["answer"]])


def events(turn: Row, controls: Controls) -> Counter[str]:
    """Return what did not go as planned in a turn."""
    found = Counter(f"left out: {gone['name']} ({gone['reason']})" for gone in turn["left_out"])
    for proposal in turn["proposals"]:
        found[f"cut at max_tokens: {proposal['name']}"] += proposal["finish_reason"] == "length"
    texts = [turn["answer"], *(proposal["text"] for proposal in turn["proposals"])]
    found[NEUTRALISED] = sum(controls.count(text) > 0 for text in texts)
    return +found
