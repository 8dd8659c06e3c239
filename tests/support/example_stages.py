"""The stages of an example run, one by one: what `tests.support.example_run` puts together."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Any

from moaa import judge, statistics
from moaa.benchmarks.head_to_head import win_rates
from moaa.judge.judgement import merged
from moaa.mixture import Proposal
from tests.support.example_scores import benchmarks
from tests.support.example_texts import CRITERIA, PERSONAS, REVIEWERS, TOPICS

if TYPE_CHECKING:
    from tests.support.example_run import ExampleRun

Row = dict[str, Any]
ROOT = "s3://moaa/demo"
RUN_ID = "demo-20261124-213000-4f1c"
STARTED = {
    "prompts": 3,
    "generate": 5,
    "sft": 95,
    "sample": 251,
    "label": 311,
    "dpo": 452,
    "evaluate": 541,
}
SECONDS = {
    "prompts": 1.3,
    "generate": 88.4,
    "sft": 154.9,
    "sample": 58.2,
    "label": 139.8,
    "dpo": 88.0,
    "evaluate": 121.6,
}
KINDS = {
    "prompts": "prompts",
    "generate": "sft-data",
    "sft": "model",
    "sample": "samples",
    "label": "preferences",
    "dpo": "model",
}
PARENTS = {
    "generate": ["prompts"],
    "sft": ["generate"],
    "sample": ["prompts", "sft"],
    "label": ["sample"],
    "dpo": ["label", "sft"],
    "evaluate": ["prompts", "sft", "dpo"],
}


def utc(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    return f"2026-11-24T21:{30 + int(minutes):02d}:{rest:06.3f}+00:00"


def _use(calls: int, prompt: int, completion: int, seconds: float, **more: int) -> Row:
    zero = {"journal": 0, "retries": 0, "failed": 0, "truncated": 0}
    return {
        "calls": calls,
        **zero,
        **more,
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "seconds": seconds,
    }


def add(
    run: ExampleRun,
    stage: str,
    ledger: Row,
    *,
    facts: Row | None = None,
    kind: str = "",
    **tables: list[Row],
) -> None:
    started, seconds = STARTED[stage], SECONDS[stage]
    ledger = {"rows": {}, "rejected": {}, "events": {}, "models": {}, "seconds": {}, **ledger}
    fingerprint = f"{random.Random(stage).getrandbits(96):024x}"
    uri = f"{ROOT}/{stage}/{fingerprint}"
    files = [
        {
            "name": f"{table}-00000.parquet",
            "table": table,
            "rows": len(rows),
            "size": 4096,
            "sha256": "0" * 64,
        }
        for table, rows in tables.items()
    ]
    manifest = {
        "schema_version": 1,
        "kind": kind or KINDS[stage],
        "stage": stage,
        "name": "demo",
        "uri": uri,
        "fingerprint": fingerprint,
        "created": utc(started + seconds),
        "files": files,
        "rows": {table: len(rows) for table, rows in tables.items()},
        "parents": [
            {"name": p, "kind": KINDS[p], "uri": f"{ROOT}/{p}/x", "fingerprint": "x"}
            for p in PARENTS.get(stage, [])
        ],
        "part": {stage: {"temperature": 0.7, "target": "smollm2"}},
        "ledger": ledger,
        "facts": facts or {},
    }
    run.tables[uri] = tables
    run.records.append(
        {
            "run_id": RUN_ID,
            "stage": stage,
            "status": "done",
            "started": utc(started),
            "ended": utc(started + seconds),
            "seconds": seconds,
            "manifest": manifest,
            "error": None,
            "ledger": ledger,
        }
    )


def preflight(run: ExampleRun) -> None:
    """Leaves no artifact: its record itself carries the facts."""
    planned = [
        ("generate", "smollm2", 192, 38_000, 19_500, 0, 0),
        ("sft", "smollm2", 0, 0, 0, 14_800, 16),
        ("sample", "smollm2+sft", 10, 750, 5_500, 0, 0),
        ("label", "smollm2", 900, 520_000, 31_000, 0, 0),
        ("dpo", "smollm2", 0, 0, 0, 13_000, 15),
        ("evaluate", "smollm2", 228, 110_000, 9_000, 0, 0),
        ("evaluate", "smollm2+sft", 12, 900, 1_100, 0, 0),
        ("evaluate", "smollm2+dpo", 12, 900, 1_100, 0, 0),
    ]
    keys = (
        "stage",
        "model",
        "calls",
        "prompt_tokens",
        "completion_tokens",
        "train_tokens",
        "steps",
    )
    plan = [dict(zip(keys, line, strict=True)) for line in planned]
    checks = [
        ("store", f"{ROOT}: write, conditional write, read and delete work"),
        ("engine", "vllm is installed"),
        ("disk", "92 GiB free"),
    ]
    findings = [
        {"check": check, "ok": True, "detail": detail, "fix": ""} for check, detail in checks
    ]
    prices = {"smollm2": {"prompt": 0.1, "completion": 0.4}}
    run.records.append(
        {
            "run_id": RUN_ID,
            "stage": "preflight",
            "status": "done",
            "started": utc(0),
            "ended": utc(2.4),
            "seconds": 2.4,
            "manifest": None,
            "error": None,
            "ledger": {},
            "facts": {"findings": findings, "plan": plan, "prices": prices},
        }
    )


def prompts(run: ExampleRun) -> None:
    def rows(n: int) -> list[Row]:
        return [
            {
                "id": f"{i:016x}",
                "source": "mt-bench",
                "system": None,
                "turns": TOPICS[i % len(TOPICS)].turns,
            }
            for i in range(n)
        ]

    gone = [
        {
            "id": f"{i:016x}",
            "source": "mt-bench",
            "set": "sft",
            "reason": reason,
            "detail": f"of {i + 1:016x} from mt-bench",
            "text": TOPICS[i].turns[0],
        }
        for i, reason in enumerate(["near duplicate", "shares 13 words with an evaluation prompt"])
    ]
    ledger = {
        "rows": {"in": 48, "kept": 46, "sft": 24, "preference": 10, "evaluation": 12},
        "rejected": {row["reason"]: 1 for row in gone},
        "seconds": {"reading": 0.4},
    }
    add(
        run,
        "prompts",
        ledger,
        sft=rows(24),
        preference=rows(10),
        evaluation=rows(12),
        rejected=gone,
    )


def generate(run: ExampleRun, chance: random.Random) -> None:
    data = []
    for i in range(23):
        topic = TOPICS[i % len(TOPICS)]
        messages: list[Row] = []
        turns = []
        for number, question in enumerate(topic.turns):
            members = PERSONAS if not (i == 2 and number) else PERSONAS[:2]
            answer = topic.answer(chance, 4)
            messages += [
                {"role": "user", "content": question},
                {"role": "assistant", "content": answer},
            ]
            turns.append(
                {
                    "proposals": [
                        Proposal(name, "smollm2", 0, topic.answer(chance, 3)).to_json()
                        for name in members
                    ],
                    "left_out": [{"name": "creative", "layer": 0, "reason": "timeout"}]
                    if len(members) < 3
                    else [],
                    "answer": answer,
                    "finish_reason": "length" if i == 4 else "stop",
                }
            )
        data.append({"id": f"{i:016x}", "source": "mt-bench", "messages": messages, "turns": turns})
    rejected = [
        {
            "id": "17",
            "source": "mt-bench",
            "system": None,
            "turns": TOPICS[0].turns,
            "reason": "too few proposals",
            "detail": "concise: context_length; thorough: context_length",
        }
    ]
    ledger = {
        "rows": {"in": 24, "kept": 23, "turns": 46},
        "rejected": {"too few proposals": 1},
        "events": {"left out: creative (timeout)": 1, "engine restarted: smollm2": 1},
        "seconds": {"engines": 39.2, "asking": 47.1, "writing": 0.3},
        "models": {
            "smollm2": _use(
                189, 36_214, 18_022, 512.0, journal=14, retries=5, failed=3, truncated=2
            )
        },
    }
    add(run, "generate", ledger, data=data, rejected=rejected)


def model(run: ExampleRun, stage: str, *, steps: int, chance: random.Random) -> None:
    curve = []
    for step in range(1, steps + 1):
        share = step / steps
        point = {"step": step, "epoch": round(share * 2, 3), "learning_rate": 1e-4 * (1 - share)}
        if stage == "sft":
            point["loss"] = round(
                1.35 + 0.95 * math.exp(-4 * share) + chance.uniform(-0.05, 0.05), 4
            )
        else:
            margin = 0.9 * (1 - math.exp(-2.5 * share)) + chance.uniform(-0.08, 0.08)
            point |= {
                "loss": round(0.693 - 0.35 * margin, 4),
                "rewards/margins": round(margin, 4),
                "rewards/accuracies": round(
                    min(1, 0.5 + 0.55 * share + chance.uniform(-0.1, 0.1)), 3
                ),
            }
        curve.append(point)
    rows = 46 if stage == "sft" else 9
    facts = {
        "curve": curve,
        "steps": steps,
        "tokens": 14_336,
        "rows": rows,
        "dropped": {"too_long": 1} if stage == "sft" else {},
        "seconds": SECONDS[stage] - 14,
        "world_size": 2,
    }
    ledger = {
        "rows": {"in": rows + (stage == "sft"), "kept": rows},
        "rejected": facts["dropped"],
        "seconds": {"training": SECONDS[stage] - 3},
    }
    add(run, stage, ledger, facts=facts)


def sample(run: ExampleRun, chance: random.Random) -> None:
    data = []
    for i in range(10):
        topic = TOPICS[i % len(TOPICS)]
        samples = [
            {"text": topic.answer(chance, 3), "count": 1, "finish_reason": "stop"} for _ in range(5)
        ]
        messages = [{"role": "user", "content": topic.turns[0]}]
        data.append(
            {
                "id": f"{i:016x}",
                "source": "mt-bench",
                "messages": messages,
                "samples": samples,
                "cut_turns": 0,
            }
        )
    ledger = {
        "rows": {"in": 10, "kept": 10, "merged answers": 2},
        "seconds": {"engines": 41.0, "asking": 6.4},
        "models": {"smollm2+sft": _use(10, 742, 5_630, 61.0)},
    }
    add(run, "sample", ledger, data=data, rejected=[])


def _order(first: int, second: int, p: float, criteria: tuple[str, ...]) -> judge.Order:
    """A verdict of p that the answer shown first is better, with what three reviewers said."""
    said = (
        f"Answer A is strong on {criteria[0].lower()}: it names the facts. "
        "Answer B is adequate; its example helps the reader."
    )
    assessments = tuple(Proposal(name, "smollm2", 0, said) for name in REVIEWERS)
    letter = "A" if p >= 0.5 else "B"
    return judge.Order(first, second, criteria, assessments, (), letter, p, True, letter)


def _judgement(a: int, b: int, chance: random.Random, lean: float = 0.5) -> Row:
    """Of two answers: the judge likes what it sees first a little better, whichever it is."""
    p_ab, p_ba = (
        min(0.97, max(0.03, lean + shift + chance.uniform(-0.2, 0.2))) for shift in (0.12, -0.12)
    )
    criteria = tuple(chance.sample(CRITERIA, 3))
    return merged(_order(a, b, p_ab, criteria), _order(b, a, 1 - p_ba, criteria)).to_json()


def label(run: ExampleRun, chance: random.Random) -> None:
    data, judgements = [], []
    for i in range(9):
        topic = TOPICS[i % len(TOPICS)]
        answers = [topic.answer(chance, 3) for _ in range(5)]
        wins = [0.0] * 5
        for a in range(5):
            for b in range(a + 1, 5):
                judged = _judgement(a, b, chance, 0.5 + 0.08 * (a - b))
                wins[a], wins[b] = wins[a] + judged["p"], wins[b] + 1 - judged["p"]
                judgements.append({"id": f"{i:016x}", **judged})
        best, worst = wins.index(max(wins)), wins.index(min(wins))
        data.append(
            {
                "id": f"{i:016x}",
                "source": "mt-bench",
                "messages": [{"role": "user", "content": topic.turns[0]}],
                "chosen": answers[best],
                "rejected": answers[worst],
                "chosen_cut": False,
                "rejected_cut": False,
                "chosen_index": best,
                "rejected_index": worst,
                "margin": round(wins[best] - wins[worst], 4),
                "wins": [round(w, 4) for w in wins],
            }
        )
    ledger = {
        "rows": {"in": 10, "kept": 9, "pairs": 9},
        "rejected": {"too few proposals": 1},
        "events": {"left out: strict (timeout)": 2},
        "seconds": {"engines": 38.6, "asking": 99.8},
        "models": {"smollm2": _use(898, 531_020, 33_480, 2210.0, retries=2, truncated=412)},
    }
    rejected = [
        {
            "id": "9",
            "source": "mt-bench",
            "reason": "too few proposals",
            "detail": "strict: timeout; fair: timeout",
            "messages": [{"role": "user", "content": TOPICS[1].turns[0]}],
            "samples": [],
            "cut_turns": 0,
        }
    ]
    add(
        run,
        "label",
        ledger,
        facts=_judging(judgements),
        data=data,
        judgements=judgements,
        rejected=rejected,
    )


def _judging(judgements: list[Row]) -> Row:
    tally = judge.Tally()
    for each in judgements:
        tally.add(judge.Judgement.from_json(each))
    return tally.facts()


def evaluate(run: ExampleRun, chance: random.Random) -> None:
    answers, judgements = [], []
    for i in range(12):
        topic = TOPICS[i % len(TOPICS)]
        for number, model in enumerate(("base", "sft", "dpo")):
            answers.append(
                {
                    "id": f"{i:016x}",
                    "benchmark": "head_to_head",
                    "group": "mt-bench",
                    "turn": 1,
                    "messages": [{"role": "user", "content": topic.turns[0]}],
                    "model": model,
                    "text": topic.answer(chance, 2 + number),
                    "tokens": 60 + 22 * number + chance.randrange(40),
                    "finish_reason": "stop",
                }
            )
        for model, lean in (("sft", 0.53), ("dpo", 0.6)):
            judged = _judgement(0, 1, chance, lean)
            about = {"id": f"{i:016x}", "benchmark": "head_to_head", "group": "mt-bench"}
            judgements.append({**about, "model_a": model, "model_b": "base", **judged})
    ledger = {
        "rows": {"in": 12, "kept": 12},
        "seconds": {"engines": 84.0, "asking": 34.2},
        "models": {
            "smollm2": _use(228, 98_114, 8_240, 610.0),
            "smollm2+dpo": _use(12, 900, 1_260, 22.0),
            "smollm2+sft": _use(12, 900, 1_020, 19.0),
        },
    }
    played = benchmarks(judgements, answers)
    facts = {
        "benchmarks": played,
        "win_rates": win_rates(played["head_to_head"]["scores"]),
        "lengths": statistics.lengths(answers),
        **_judging(judgements),
    }
    add(
        run,
        "evaluate",
        ledger,
        facts=facts,
        kind="scores",
        answers=answers,
        judgements=judgements,
        rejected=[],
    )
