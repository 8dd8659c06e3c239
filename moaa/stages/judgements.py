"""Code that label and evaluate share."""

from __future__ import annotations

from moaa import templates
from moaa.artifacts.table import Row
from moaa.asking.rejections import Gaps, Loss, absent
from moaa.judge import Tally, check_instructions
from moaa.recipe.schema import Judge
from moaa.stage import Context


def with_instructions(judge: Judge) -> Judge:
    """Return the judge with its instructions as text.

    If moaa's own text changes, the fingerprint of the stage changes too. Raises RecipeError if an
    instruction lacks a placeholder.
    """
    check_instructions(judge)
    return judge.model_copy(
        update={
            "criteria_instruction": judge.criteria_instruction or templates.text("criteria"),
            "assess_instruction": judge.assess_instruction or templates.text("assess"),
            "verdict_instruction": judge.verdict_instruction or templates.text("verdict"),
        }
    )


def gaps_of(row: Row) -> Gaps:
    """Return what is missing in a row with `judgements`: an order that could not be judged counts
    as its share of all orders; and the proposers that assessed nothing."""
    judgements = row["judgements"]
    orders = [order for each in judgements for order in each["orders"]]
    lost = [order for each in judgements for order in each["lost"]]
    # An adaptive judge asks for only one order of some pairs; for a tie it asks none.
    share = 1 / sum(len(each["orders"]) + len(each["lost"]) or 2 for each in judgements)
    return Gaps(
        tuple(Loss(each["reason"], each["detail"], share) for each in lost),
        absent(
            (assessment["name"] for order in orders for assessment in order["assessments"]),
            (gone for order in orders for gone in order["left_out"]),
        ),
    )


def report(tally: Tally, judge: Judge, context: Context) -> None:
    """Add what the judgements say about the judge to the facts,
    and what is missing to the ledger."""
    context.facts.update(tally.facts())
    context.ledger.events.update(
        {f"left out: {name} ({reason})": times for (name, reason), times in tally.left_out.items()}
    )
    context.ledger.events.update(
        {
            **{f"cut at max_tokens: {name}": times for name, times in tally.cut.items()},
            **{f"orders not judged: {reason}": times for reason, times in tally.lost.items()},
        }
    )
    if tally.asked_again:
        context.ledger.events["judge's replies that could not be read, asked again"] += (
            tally.asked_again
        )
    if judge.verdict == "soft" and tally.hard:
        context.ledger.events["verdicts by the letter alone, without log-probabilities"] += (
            tally.hard
        )
