"""A compiled pipeline and the recipe of its run: what decides about pods must agree, and nothing
else need."""

from __future__ import annotations

import json

import pytest

from moaa.placement.compiled import fields
from moaa.preflight.finding import Finding
from moaa.recipe.load import load_file
from moaa.stages.preflight import agreement
from moaa.stages.table import STAGES
from tests.support.paths import PAPER


def compare(*sets: str) -> list[Finding]:
    compiled_from = json.dumps(fields(load_file(PAPER).recipe, STAGES))
    return list(agreement(load_file(PAPER, sets).recipe, compiled_from))


@pytest.mark.parametrize(
    "change",
    [
        "dpo.beta=0.5",
        "prompts.sft=[{name: a, source: a.jsonl}]",
        "runtime.calls.in_flight=2",
        "pools.a100.gpu_hour_usd=9",
        "models.llama-3-1-8b.price={prompt: 1, completion: 1}",
        "runtime.engines.schedule=by-turns",
        "store.root=s3://other/place",
    ],
)
def test_what_decides_about_no_pod_may_differ(change: str) -> None:
    (found,) = compare(change)
    assert found.ok, found


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            "pools.a100.gpus=4",
            "pools.a100.gpus: the pipeline was compiled with 8, this run's recipe has 4",
        ),
        (
            "pools.a100.toleration=null",
            'compiled with "nvidia.com/gpu", this run\'s recipe has null',
        ),
        (
            "pools.b.gpus=1",
            "pools.b.gpus: the pipeline was compiled with none, this run's recipe has 1",
        ),
        ("runtime.cluster.images.serve=moaa/serve:2", "runtime.cluster.images.serve"),
        ("runtime.cluster.s3_secret=other", "runtime.cluster.s3_secret"),
        ("runtime.secret_envs=[]", 'compiled with ["HF_TOKEN"], this run\'s recipe has []'),
        ("runtime.launcher.kind=trainer", "runtime.launcher.kind"),
        ("store.access_key_env=OTHER", "store.access_key_env"),
        ("store.session_token_env=MY_TOKEN", "store.session_token_env"),
        ("models.llama-3-1-8b.tensor_parallel=2", "stages.sample.gpus"),
        (
            "target=gemma-2-27b",
            "stages.sample.gpus: the pipeline was compiled with 1, this run's recipe has 2",
        ),
        (
            "label.judge={proposers: [{model: gemma-2-27b}], aggregator: {model: gemma-2-27b}}",
            "stages.label.gpus",
        ),
        ("models.llama-3-1-8b.pool=null", "stages.sample.pool"),
        (
            "models.gemma-2-27b.tensor_parallel=16",
            "tensor_parallel is 16, but a node of pool 'a100' has 8 GPUs",
        ),
        ("models.qwen2-72b.endpoint={url: https://x/v1, key_env: K}", 'this run\'s recipe has "K"'),
    ],
)
def test_what_decides_about_a_pod_must_agree(change: str, words: str) -> None:
    bad = [finding for finding in compare(change) if not finding.ok]
    assert any(words in finding.detail for finding in bad), bad
    assert all("submit" in finding.fix for finding in bad)


def test_how_the_clusters_engines_are_served_decides_about_no_pod() -> None:
    kubernetes = "runtime.engines.kind=kubernetes"
    compiled_from = json.dumps(fields(load_file(PAPER, [kubernetes]).recipe, STAGES))
    other = load_file(PAPER, [kubernetes, "models.qwen2-72b.tensor_parallel=8"]).recipe
    assert all(finding.ok for finding in agreement(other, compiled_from))
    target = load_file(PAPER, [kubernetes, "models.llama-3-1-8b.tensor_parallel=2"]).recipe
    differ = [
        finding.detail.split(":")[0]
        for finding in agreement(target, compiled_from)
        if not finding.ok
    ]
    assert differ == ["stages.evaluate.gpus", "stages.sample.gpus"]  # they serve what was trained
