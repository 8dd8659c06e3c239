"""Rows of a run's artifacts for the examples on the page: a few of each kind.

Long texts are cut, and the page says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from moaa.artifacts.table import Row
from moaa.recipe.evaluation import HEAD_TO_HEAD
from moaa.report.view import RunView, StageView

Read = Callable[[Mapping[str, Any], str], Iterator[Row]]
"""(manifest, table) -> rows of this table of the artifact."""

MOST = 10
"""Rows of each kind."""
BUDGET = 150_000
"""Characters of each kind: the report stays below 1 MB."""
TEXT = 3_000
"""Characters of each text."""
MOST_REJECTED = 5
"""Rejected rows of each stage."""


def gather(run: RunView, read: Read) -> tuple[dict[str, list[Row]], list[str]]:
    """Return examples by kind, and a sentence for each table that could not be read."""
    found: dict[str, list[Row]] = {
        "conversations": [],
        "pairs": [],
        "evaluations": [],
        "rejected": [],
    }
    problems: list[str] = []

    def attempt(
        stage: StageView, kind: str, make: Callable[[Mapping[str, Any], Read], Iterable[Row]]
    ) -> None:
        if not stage.manifest:
            return
        try:
            found[kind] += make(stage.manifest, read)
        except Exception as error:  # the report of a broken run must not fail itself
            problems.append(
                f"{kind} of {stage.name} could not be read: {type(error).__name__}: {error}"
            )

    attempt(run.stage("generate"), "conversations", conversations)
    attempt(run.stage("label"), "pairs", pairs)
    attempt(run.stage("evaluate"), "evaluations", evaluations)
    for stage in run.present:
        if (stage.manifest.get("rows") or {}).get("rejected"):
            attempt(stage, "rejected", partial(rejected, stage.name))
    return found, problems


def conversations(manifest: Mapping[str, Any], read: Read) -> list[Row]:
    """Return conversations of SFT data: each user turn with its proposals and its answer."""
    return _few(_conversation(row) for row in read(manifest, "data"))


def _conversation(row: Row) -> Row:
    questions = [message["content"] for message in row["messages"] if message["role"] == "user"]
    turns = [
        {
            "user": _cut(question),
            "proposals": [
                {**proposal, "text": _cut(proposal["text"])} for proposal in turn["proposals"]
            ],
            "left_out": turn["left_out"],
            "answer": _cut(turn["answer"]),
            "finish_reason": turn["finish_reason"],
        }
        for question, turn in zip(questions, row["turns"], strict=False)
    ]
    return {
        "id": row["id"],
        "source": row["source"],
        "title": _title(questions),
        "system": _system(row["messages"]),
        "turns": turns,
    }


def pairs(manifest: Mapping[str, Any], read: Read) -> list[Row]:
    """Return preference pairs, with the judgement of the chosen against the rejected answer."""
    chosen = _few(
        {**row, "title": _title(_questions(row)), "query": _query(row["messages"])}
        for row in read(manifest, "data")
    )
    judged: dict[str, list[Row]] = {row["id"]: [] for row in chosen}
    expected = sum(len(row["wins"]) * (len(row["wins"]) - 1) // 2 for row in chosen)
    for judgement in read(manifest, "judgements"):
        if expected <= 0:
            break  # all judgements of these pairs are read
        if judgement["id"] in judged:
            judged[judgement["id"]].append(judgement)
            expected -= 1
    for row in chosen:
        ends = {row["chosen_index"], row["rejected_index"]}
        row["p"] = {(j["a"], j["b"]): j["p"] for j in judged[row["id"]] if j["p"] is not None}
        row["judgement"] = next(
            (_judgement(j) for j in judged[row["id"]] if {j["a"], j["b"]} == ends), None
        )
        row["chosen"], row["rejected"] = _cut(row["chosen"]), _cut(row["rejected"])
    return chosen


def evaluations(manifest: Mapping[str, Any], read: Read) -> list[Row]:
    """Return held-out prompts with every contestant's answer and the judgements of all pairs."""
    by_prompt: dict[str, Row] = {}
    for answer in filter(_head_to_head, read(manifest, "answers")):
        if answer["id"] not in by_prompt:
            if len(by_prompt) == MOST:
                break
            by_prompt[answer["id"]] = {
                "id": answer["id"],
                "title": _title(_questions(answer)),
                "query": _query(answer["messages"]),
                "answers": [],
                "judgements": [],
            }
        by_prompt[answer["id"]]["answers"].append(
            {**answer, "messages": None, "text": _cut(answer["text"])}
        )
    seen = set()
    for judgement in filter(_head_to_head, read(manifest, "judgements")):
        seen.add(judgement["id"])
        if len(seen) > MOST:
            break
        if judgement["id"] in by_prompt:
            by_prompt[judgement["id"]]["judgements"].append(_judgement(judgement))
    return _few(by_prompt.values())


def _head_to_head(row: Row) -> bool:
    """Return whether a row of evaluate is about held-out prompts; earlier runs had no others."""
    return bool(row.get("benchmark", HEAD_TO_HEAD) == HEAD_TO_HEAD)


def rejected(stage: str, manifest: Mapping[str, Any], read: Read) -> list[Row]:
    """Return rows that a stage rejected, with the reason."""
    rows = _few(read(manifest, "rejected"), MOST_REJECTED)
    return [
        {
            "stage": stage,
            "reason": row["reason"],
            "detail": row.get("detail") or "",
            "text": _cut(row.get("text") or "\n\n".join(_questions(row)), 600),
        }
        for row in rows
    ]


def _judgement(judgement: Row) -> Row:
    orders = []
    for order in judgement["orders"]:
        assessments = [{**each, "text": _cut(each["text"], 1_500)} for each in order["assessments"]]
        orders.append({**order, "assessments": assessments, "text": _cut(order["text"], 1_500)})
    return {**judgement, "orders": orders}


def _few(rows: Iterable[Row], most: int = MOST) -> list[Row]:
    found: list[Row] = []
    size = 0
    for row in rows:
        size += _size(row)
        if found and size > BUDGET:
            break
        found.append(row)
        if len(found) == most:
            break
    return found


def _size(value: Any) -> int:
    if isinstance(value, dict):
        return sum(map(_size, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(_size, value))
    return len(value) if isinstance(value, str) else 8


def _cut(text: str, most: int = TEXT) -> str:
    more = len(text) - most
    return text if more <= 0 else f"{text[:most]} […and {more:,} more characters]"


def _questions(row: Row) -> list[str]:
    return row.get("turns") or [
        message["content"] for message in row.get("messages") or [] if message["role"] == "user"
    ]


def _system(messages: list[Row]) -> str:
    texts = (message["content"] for message in messages if message["role"] == "system")
    return _cut("\n".join(texts), 1_000)


def _query(messages: list[Row]) -> list[Row]:
    return [{"role": message["role"], "content": _cut(message["content"])} for message in messages]


def _title(questions: list[str]) -> str:
    text = " ".join((questions or [""])[0].split())
    return text if len(text) <= 110 else f"{text[:110].rsplit(' ', 1)[0]} …"
