"""`moaa retrain` from the first model to a refused one: Kubeflow's local runner, S3 and trainings
are real; the engines only pretend, and their trained models win in the eyes of the judge."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from moaa import records
from moaa.registry import production
from moaa.store import Store
from moaa.weights import local
from tests.conftest import S3
from tests.support import training
from tests.support.engine_server import EngineServer
from tests.support.paths import DEMO, ROOT

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]
PROMPTS = 12
"""The gate looks at ten at least."""
BAD = ("truncated", "empty", "repeated", "refused")
"""So few prompts show no smaller share than 12 % of each."""


def model(folder: Path) -> Path:
    """A tiny model with the tokenizer of the small one."""
    from transformers import AutoTokenizer, LlamaForCausalLM

    source = local.resolve(training.SMOLLM2, Store("s3://none"))
    tokenizer: Any = AutoTokenizer.from_pretrained(source)
    config = training.tiny_llama(tokenizer, tokenizer.eos_token_id)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def judge() -> Iterator[EngineServer]:
    """It prefers the answer that begins with `Taught`; of two such ones the one whose words come
    first, which says nothing about the models."""

    def verdict(body: dict[str, Any]) -> str:
        text = body["messages"][-1]["content"]
        first, second = (
            re.findall(rf"<answer_{which} \w+>\n(.*?)\n</", text, re.S) for which in "ab"
        )
        words = [
            found[0] if found and found[0].startswith("Taught") else "~"
            for found in (first, second)
        ]
        return "[[A]]" if words[0] <= words[1] else "[[B]]"

    with EngineServer("judge") as server:
        server.say = verdict
        yield server


@pytest.fixture
def recipe(judge: EngineServer, s3: S3, tmp_path: Path) -> Path:
    (tmp_path / "ask.jsonl").write_text(
        "".join(f'{{"prompt": "Why number {n}?"}}\n' for n in range(PROMPTS))
    )
    (tmp_path / "teach.jsonl").write_text(
        "".join(f'{{"prompt": "What is {n} good for?"}}\n' for n in range(2))
    )
    data = yaml.safe_load(DEMO.read_text())
    data |= {
        "name": "mine",
        "trainings": "sft",
        "gate": {"candidate": "sft", "min_prompts": 2, "more": dict.fromkeys(BAD, 0.2)},
        "publish": {"name": "aligned"},
        "promote": {},
    }
    data["store"]["root"] = s3.root
    data["models"] = {
        "tiny": {
            "source": str(model(tmp_path / "tiny")),
            "max_model_len": 512,
            "engine_args": ["--pretend=taught"],
        },
        "judge": {"source": "judge", "endpoint": {"url": judge.url}},
    }
    data["target"] = "tiny"
    taught, asked = (
        [{"source": str(tmp_path / f"{name}.jsonl"), "field": "prompt", "name": name}]
        for name in ("teach", "ask")
    )
    data["prompts"] = {"sft": taught, "evaluation": asked}
    mixture = data["generate"]["mixture"]
    for member in (*mixture["proposers"], mixture["aggregator"]):
        member["model"] = "tiny"
    label = data["label"]["judge"]
    for member in (*label["proposers"], label["aggregator"]):
        member["model"] = "judge"
    data["evaluate"]["benchmarks"] = {"head_to_head": {"judge_model": "judge"}}
    data["sft"] |= {"max_steps": 1, "global_batch": 1}
    data["runtime"]["launcher"]["ranks"] = 1
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def begin(recipe: Path, *options: str) -> subprocess.Popen[str]:
    """Start the command in the recipe's folder."""
    packages = os.environ.get("MOAA_PACKAGES", str(ROOT / ".cache" / "pkgs"))
    pretending = os.pathsep.join([str(ROOT), str(ROOT / "tests/support/fake_vllm")])
    return subprocess.Popen(
        [sys.executable, "-m", "moaa.cli", "retrain", str(recipe), "-o", "out", *options],
        cwd=recipe.parent,
        env={**os.environ, "PYTHONPATH": pretending, "MOAA_PACKAGES": packages},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def retrain(recipe: Path, *options: str) -> tuple[int, dict[str, Any], str]:
    """Do it to the end: the exit status, retrain.json, and all that was printed."""
    process = begin(recipe, *options)
    out, err = process.communicate(timeout=600)
    said = f"{out}{err}"
    assert "Traceback" not in said, said
    return process.returncode, json.loads((recipe.parent / "out/retrain.json").read_text()), said


def test_killed_promoted_nothing_new_undecided_refused(recipe: Path, s3: S3) -> None:
    killed = begin(recipe)
    run = under_way(s3, killed)
    killed.kill()
    killed.communicate()
    status, found, said = retrain(recipe)
    assert f"continues run {run}" in said
    assert (status, found["state"], found["run"]) == (0, "promoted", run), said
    version = found["version"]["version"]
    assert in_production(s3) == version
    status, found, said = retrain(recipe)
    assert (status, found["state"], found["run"]) == (0, "nothing new", "")
    compared = {each["name"]: each for each in found["inputs"]}
    assert {"recipe", "code (moaa)", "models.tiny"} <= compared.keys()
    assert not any(each["changed"] for each in found["inputs"])

    with (recipe.parent / "teach.jsonl").open("a") as prompts:
        prompts.write('{"prompt": "What else is there?"}\n')
    status, found, said = retrain(recipe)
    assert (status, found["state"]) == (4, "undecided"), said
    changed = [each["name"] for each in found["inputs"] if each["changed"]]
    assert changed == [f"prompts: {recipe.parent}/teach.jsonl"]
    assert found["decision"]["against"] == "production"

    status, found, said = retrain(recipe, "--set", "gate.max_length_ratio=0.1")
    assert (status, found["state"]) == (3, "refused"), said
    assert in_production(s3) == version, "production is as it was"


def in_production(s3: S3) -> str:
    current = production.read(s3.store, "aligned").current
    return current.version if current else ""


def under_way(s3: S3, process: subprocess.Popen[str]) -> str:
    """The run's id, once its stage sft is at work."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        for uri, _ in s3.store.list(f"{s3.root}/runs/"):
            run = uri.removeprefix(f"{s3.root}/runs/").split("/")[0]
            if [r for r in records.read(s3.store, run) if r["stage"] == "sft"]:
                return run
        time.sleep(0.2)
    raise AssertionError("sft did not begin within five minutes")
