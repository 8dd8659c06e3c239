"""The stages of an example run that make data and models, one by one: what
`tests.support.example_run` puts together."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

from moaa.artifacts.table import Row
from moaa.mixture import Proposal
from tests.support.example_texts import PERSONAS, TOPICS

if TYPE_CHECKING:
    from tests.support.example_run import ExampleRun
from tests.support.example_parts import ROOT, RUN_ID, SECONDS, STARTED, _use, add, utc


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
            "facts": {
                "findings": findings,
                "plan": plan,
                "prices": prices,
                "stages": ["preflight", *STARTED],
            },
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
