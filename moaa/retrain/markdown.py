"""The account of a retraining as Markdown: for a job's summary, or a comment on a change."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from typing import Final

from moaa.plan.lines import dollars
from moaa.report.markdown import plain, table
from moaa.retrain.account import Account, headline, short
from moaa.retrain.budget import Plan

DIFF_LINES: Final = 200
"""The most lines of the recipe's difference: a comment on GitHub has at most 65,536 characters."""
_LINE: Final = 200


def page(account: Account) -> str:
    """Return the whole page."""
    return "\n\n".join(_parts(account)) + "\n"


def _parts(account: Account) -> Iterator[str]:
    outcome = account.outcome
    yield f"## {plain(headline(account))}"
    yield plain(outcome.why)
    yield "\n".join(f"- {line}" for line in _facts(account))
    if account.inputs:
        yield "### Inputs"
        yield _inputs(account)
    if difference := _difference(*account.texts):
        yield "### The recipe, against the one in production"
        yield difference
    if account.findings:
        yield "### Rules of the gate"
        yield table(
            ["rule", "outcome", "what it found", "items that would decide it"],
            [
                [each["rule"], each["outcome"], each["about"], f"{each['needed'] or ''}"]
                for each in account.findings
            ],
            right=False,
        )
        yield plain(str(outcome.decision.get("power", "")))
    if account.plan:
        yield "### Plan"
        yield _plan(account.plan)


def _facts(account: Account) -> Iterator[str]:
    yield f"recipe: {_code(account.recipe)}"
    if account.production:
        entry = account.production
        yield f"compared with version {_code(entry.version)}, in production since {entry.since}"
    else:
        yield "no version is in production"
    if account.outcome.version:
        yield f"version: {_code(account.outcome.version['uri'])}"
    if account.run:
        yield f"run: {_code(account.run)}"
    if account.report:
        yield f"report: {_code(account.report)}"
    yield f"exit status: {account.outcome.exit_status}"


def _inputs(account: Account) -> str:
    rows = [
        [
            each.name,
            short(each.before),
            short(each.now),
            "changed" if each.changed else "" if each.now else "not seen from here",
        ]
        for each in account.inputs
    ]
    return table(["input", "production", "now", ""], rows, right=False)


def _difference(before: str, now: str) -> str:
    """Return how the recipe differs, as a block that GitHub and GitLab show in colour."""
    if not before or before == now:
        return ""
    lines = [
        line.rstrip("\n")[:_LINE]
        for line in difflib.unified_diff(
            before.splitlines(), now.splitlines(), "production", "now", lineterm=""
        )
    ]
    if len(lines) > DIFF_LINES:
        lines = [*lines[:DIFF_LINES], f"… {len(lines) - DIFF_LINES} more lines"]
    # Longer than any fence inside the recipe.
    ticks = max([2, *(len(found) for found in re.findall("`+", "\n".join(lines)))]) + 1
    fence = "`" * ticks
    return "\n".join([f"{fence}diff", *lines, fence])


def _plan(plan: Plan) -> str:
    rows = [
        [
            each.stage,
            each.model,
            f"{each.steps:,} steps" if each.steps else f"{each.calls:,}",
            f"{each.prompt_tokens + each.completion_tokens + each.train_tokens:,}",
            _amount(each.gpu_hours),
            _amount(dollars(each)),
        ]
        for each in plan.lines
    ]
    rows.append(["all", "", "", "", _amount(plan.gpu_hours), _amount(plan.usd)])
    text = table(["stage", "model", "calls", "tokens", "GPU-h", "$"], rows)
    return f"{text}\n\nThe whole run; stages with existing results cost nothing."


def _amount(value: float | None) -> str:
    return "" if value is None else f"{value:,.2f}"


def _code(text: str) -> str:
    """Return a text as code, in one line."""
    return f"`{' '.join(text.replace('`', '').split())}`"
