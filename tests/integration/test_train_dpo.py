"""Real DPO on two ranks of this machine."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

from moaa.store import Store
from moaa.train import process
from moaa.weights import local
from tests.support import training as support
from tests.support.trained import changed, job, model_of, train
from tests.support.training import said

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]
PAIRS = [
    {
        "id": str(n),
        "messages": said(f"What comes after {n}?"),
        "chosen": f"After {n} comes {n + 1}.",
        "rejected": "I do not know.",
    }
    for n in range(8)
]

SAME = {"id": "same", "messages": said("Why?"), "chosen": "Because.", "rejected": "Because."}


def test_held_out_pairs_measure_dpo_before_during_and_after(s3, small_model):
    asked = job(
        s3, "dpo", PAIRS, small_model, "held-dpo", {"validation": 0.3, "epochs": 2, "beta": 0.1}
    )
    found = train(s3, asked)[0]["facts"]["validation"]
    first, *_, last = found["curve"]
    assert first["loss"] == pytest.approx(math.log(2), abs=0.02)
    assert first["rewards/margins"] == pytest.approx(0, abs=0.02)
    assert last["loss"] < first["loss"]
    assert last["rewards/accuracies"] > 0.5
    assert found["kept_step"] is None


def test_dpo_moves_the_model_towards_the_chosen_answers(s3, tmp_path):
    numbers = {
        "max_steps": 4,
        "learning_rate": 1e-5,
        "beta": 0.1,
        "zero_stage": 2,
        "gradient_checkpointing": False,
    }
    asked = job(s3, "dpo", [*PAIRS, SAME], support.SMOLLM2, numbers=numbers)
    result, _ = train(s3, asked)
    facts = result["facts"]
    curve = facts["curve"]
    assert (facts["rows"], facts["sequences"], facts["dropped"]) == (8, 8, {"identical": 1})
    assert curve[0]["loss"] == pytest.approx(math.log(2), abs=1e-3), (
        "before the first step model and reference are the same"
    )
    assert curve[0]["rewards/margins"] == pytest.approx(0, abs=1e-2)
    assert curve[-1]["rewards/margins"] > 0.01
    assert curve[-1]["loss"] < math.log(2)
    model, _ = model_of(s3, asked, result, tmp_path)
    assert changed(model, local.resolve(support.SMOLLM2, Store("s3://unused"))) > 0.01


def test_dpo_on_two_nodes_that_share_no_disk(s3, small_model, tmp_path, monkeypatch):
    """As on a cluster, one rank a node: neither can read what the other node's leader wrote."""
    run = "python -m torch.distributed.run --nnodes 2 --nproc-per-node 1 "
    run += "--master-addr 127.0.0.1 --master-port 29511"
    nodes = [
        f"TMPDIR={tmp_path} {run} --node-rank 0",
        f"mkdir {tmp_path}/b; TMPDIR={tmp_path}/b {run} --node-rank 1",
    ]
    lines = [
        f"export PATH={Path(sys.executable).parent}:$PATH",
        *(f"{node} -m moaa.train dpo --job $1 & nodes+=($!)" for node in nodes),
    ]
    script = "\n".join([*lines, "wait ${nodes[0]} && wait ${nodes[1]}"])
    monkeypatch.setattr(
        process, "torchrun", lambda ranks, kind, job: ["bash", "-c", script, "bash", job]
    )
    result, _ = train(
        s3, job(s3, "dpo", PAIRS, small_model, name="nodes", numbers={"epochs": 1, "beta": 0.1})
    )
    assert result["facts"]["world_size"] == 2
    first = result["facts"]["curve"][0]
    rounding = (
        0.02 if result["facts"]["precision"] == "bfloat16" else 1e-3
    )  # a fifth of a nat, at this beta
    assert first["loss"] == pytest.approx(math.log(2), abs=rounding), (
        "the policy begins as the reference"
    )
    assert abs(first["rewards/chosen"]) + abs(first["rewards/rejected"]) < rounding, (
        "another row's are nats away"
    )
