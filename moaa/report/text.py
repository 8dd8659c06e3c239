"""A run as plain text, for the terminal; one stage as Markdown, for the Kubeflow UI."""

from __future__ import annotations

from moaa.declaration import Declaration
from moaa.recipe.evaluation import HEAD_TO_HEAD
from moaa.records import Record
from moaa.report.markdown import plain, table
from moaa.report.rounds import said
from moaa.report.scores import interval, value
from moaa.report.tables import cost_usd
from moaa.report.view import RunView, StageView, by_model, judged
from moaa.report.words import NBSP, count, number, percent, seconds

_MOST_LINES = 32
_WIDTH = 118
_USES = (
    ("calls", "calls"),
    ("journal", "journal"),
    ("retries", "retries"),
    ("failed", "failed"),
    ("truncated", "truncated"),
    ("tokens in", "prompt_tokens"),
    ("tokens out", "completion_tokens"),
)
"""Columns of the table of models: (title, field of ModelUse)."""


def summary(run: RunView) -> str:
    """Return at most 32 lines: verdict, stages with seconds and rows, win rates, tokens, cost.

    Errors are not in it: the caller shows them once, below the summary.
    """
    lines = [f"{run.name}: {run.status} in {seconds(run.wall_s)}"]
    lines += [said(run)] if run.earlier else []
    lines += [run.verdict, ""]
    shown = [stage for stage in run.stages if stage.record or stage.name != "preflight"]
    lines += [_stage_line(stage) for stage in shown]
    if run.win_rates:
        lines.append("")
        longest = max(len(rate["against"]) for rate in run.win_rates)
        lines += [
            f"  {rate['model']:<6} against {rate['against']:<{longest}}  "
            f"{percent(rate['rate']):>7}   {percent(rate['low'])} to {percent(rate['high'])}   "
            f"{count(rate['wins'])} won, {count(rate['ties'])} tied of {count(rate['n'])}"
            for rate in run.win_rates
        ]
    lines += _benchmarks(run)
    lines += ["", *_tokens(run)]
    return "\n".join(line.rstrip() for line in lines[:_MOST_LINES]).rstrip().replace(NBSP, " ")


def _stage_line(stage: StageView) -> str:
    status = {"missing": "not run", "running": "killed?"}.get(stage.status, stage.status)
    parts = [f"  {stage.name:<10}{status:<10}"]
    if stage.record:
        parts.append(f"{seconds(stage.seconds) if stage.status != 'running' else '':>12}")
    if stage.rows_in:
        parts.append(f"   {count(stage.kept)} of {count(stage.rows_in)} rows")
    if stage.headline and not stage.headline.startswith(f"{count(stage.kept)} "):
        parts.append(f"   {stage.headline}")
    line = "".join(parts)
    return line if len(line) <= _WIDTH else f"{line[: _WIDTH - 1]}…"


def _benchmarks(run: RunView) -> list[str]:
    """Return a line for each benchmark but head to head: its main numbers, or why it has none."""
    lines = []
    for name, facts in (run.stage("evaluate").facts.get("benchmarks") or {}).items():
        if name == HEAD_TO_HEAD:
            continue
        main = [score for score in facts["scores"] if score["main"]]
        numbers = ", ".join(f"{score['entrant']} {value(score)}" for score in main[:5])
        more = f" and {len(main) - 5} more" if len(main) > 5 else ""
        failed = facts["failed"].splitlines()[0] if facts["failed"] else ""
        shown = f"failed: {failed}" if failed else f"{numbers}{more}"
        lines.append(f"  {facts['title']:<16}{shown}"[:_WIDTH])
    return ["", *lines] if lines else []


def _tokens(run: RunView) -> list[str]:
    lines = []
    for label, reused in (("tokens", False), ("reused", True)):
        uses = [
            use for s in run.present if (s.status == "reused") == reused for use in s.uses.values()
        ]
        if uses:
            cost = cost_usd(run, reused=reused)
            tokens_in = count(sum(use.prompt_tokens for use in uses))
            tokens_out = count(sum(use.completion_tokens for use in uses))
            text = f"{tokens_in} in, {tokens_out} out, {count(sum(u.calls for u in uses))} calls"
            lines.append(f"  {label:<10}{text}{f', ${cost:,.2f}' if cost is not None else ''}")
    return lines


def stage_markdown(record: Record, declaration: Declaration | None = None) -> str:
    """Return one stage as a short Markdown page: status, rows, models and its main facts."""
    stage = StageView(record["stage"], record, declaration)
    status = {"running": "not finished"}.get(stage.status, stage.status)
    parts = [f"## {plain(stage.name)}: {status} in {seconds(stage.seconds)}"]
    if stage.error:
        message = f"{stage.error.get('type', 'error')}: {stage.error.get('message', '')}"
        parts.append("\n".join(f"    {line}" for line in message.splitlines()))
    if stage.headline:
        parts.append(plain(stage.headline))
    ledger, facts = stage.ledger, stage.facts
    rows = [
        *ledger.rows.items(),
        *((f"rejected: {reason}", n) for reason, n in ledger.rejected.most_common()),
    ]
    if rows:
        parts.append(table(["rows", ""], [[name, count(n)] for name, n in rows]))
    if stage.uses:
        head = ["model", *(title for title, _ in _USES)]
        uses = sorted(stage.uses.items())
        counts = [[name, *(count(getattr(use, key)) for _, key in _USES)] for name, use in uses]
        parts.append(table(head, counts))
    if ledger.attempts > 1:
        asked = sum(use.calls for use in ledger.models.values())
        attempts = f"Calls and tokens of all {ledger.attempts} attempts"
        parts.append(f"{attempts}; the last one made {count(asked)} calls.")
    if ledger.events:
        parts.append(
            table(["event", ""], [[name, count(n)] for name, n in ledger.events.most_common()])
        )
    for rate in by_model(facts.get("win_rates") or []):
        parts.append(f"- {plain(judged(rate))}")
    for each in (facts.get("benchmarks") or {}).values():
        if each["failed"]:
            parts.append(f"- {plain(each['title'])} failed: {plain(each['failed'])}")
        parts += [
            f"- {plain(each['title'])}, {plain(score['entrant'])}: {value(score)} "
            f"({interval(score)}, n {count(score['n'])})"
            for score in each["scores"]
            if score["main"]
        ]
    if decision := facts.get("decision"):
        parts.append(plain(decision["power"]))
        found = [
            [each["outcome"], each["rule"], each["about"], count(each["needed"] or 0)]
            for each in decision["findings"]
        ]
        parts.append(table(["", "rule", "what it found", "items that would decide it"], found))
    if facts.get("steps"):
        parts.append(
            f"- {count(facts['steps'])} steps, {count(facts.get('tokens'))} tokens, "
            f"{number(facts.get('world_size'))} ranks"
        )
    if stage.manifest:
        parts.append(f"`{stage.manifest['uri'].replace('`', '')}`")
    return "\n\n".join(parts).replace(NBSP, " ") + "\n"
