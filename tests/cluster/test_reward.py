"""Labels by reward models on leased Deployments of the chart: `task: reward`, and ArmoRM's body.

Needs the image serve (CPU) on the nodes.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from moaa import __version__
from moaa.artifacts import Artifact
from moaa.chat.message import Message
from moaa.kubernetes import names
from moaa.recipe.load import load_file
from moaa.stages.label import label
from moaa.weights import armorm
from tests.charts.render import PLATFORM, SERVING
from tests.cluster.charts import IMAGE, install
from tests.cluster.leased import as_account
from tests.cluster.s3 import S3, s3
from tests.cluster.tools import Namespace, namespace, needs_cluster, until
from tests.support import tiny_rewards
from tests.support.paths import DEMO
from tests.support.sampled import ANSWERS, answer, question, samples

pytestmark = [needs_cluster, pytest.mark.timeout(900)]
NAME = "reward-engines"
PROMPTS = 4
REWARD, ARMORM = "s3://moaa/models/reward", "s3://moaa/models/armorm"
ENGINE = {
    "dtype": "float32",
    "sizeGib": 1,
    "kvCacheGib": 0.25,
    "resources": {
        "requests": {"cpu": "200m", "memory": "1Gi"},
        "limits": {"cpu": "2", "memory": "5Gi"},
    },
}


@pytest.fixture(scope="module")
def ns() -> Iterator[Namespace]:
    with namespace(NAME, **{"pod-security.kubernetes.io/enforce": "restricted"}) as made:
        platform = {"images": {"core": IMAGE, "train": IMAGE}, "reaper": {"enabled": False}}
        install(made, "platform", PLATFORM, platform)
        yield made


@pytest.fixture(scope="module")
def store(ns: Namespace) -> Iterator[S3]:
    with s3(ns) as made:
        made.secret(ns)
        yield made


@pytest.fixture(scope="module")
def expected(
    ns: Namespace, store: S3, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[list[float]]]:
    """The models on S3 and in the chart, at no replicas; their scores by transformers."""
    folder = tmp_path_factory.mktemp("models")
    plain, published, body = (folder / name for name in ("plain", "published", "body"))
    scorer = tiny_rewards.reward_model(plain)
    vectors, heads = tiny_rewards.armorm_model(published)
    armorm.split(published, body)
    store.upload(plain, REWARD)
    store.upload(body, ARMORM)
    values = {
        "images": {"serve": f"moaa/serve:{__version__}-cpu", "core": f"moaa/core:{__version__}"},
        "poolDefaults": {"device": "cpu", "shmGib": 0.5},
        "modelDefaults": ENGINE,
        "models": [
            {"name": "reward", "task": "reward", "source": REWARD},
            {"name": "armorm", "task": "embed", "source": ARMORM},
        ],
        "networkPolicy": {"enabled": False},  # this process is no pod
    }
    install(ns, "ens", SERVING, values)
    asked: list[list[Message]] = [
        [Message(role="user", content=question(number))] for number in range(PROMPTS)
    ]
    ways = range(ANSWERS)
    return {
        "reward": [
            [tiny_rewards.score(plain, scorer, query, answer(number, way)) for way in ways]
            for number, query in enumerate(asked)
        ],
        "armorm": [
            [
                tiny_rewards.armorm_score(published, vectors, heads, query, answer(number, way))
                for way in ways
            ]
            for number, query in enumerate(asked)
        ],
    }


@pytest.mark.parametrize(
    ("labeller", "task", "source"),
    [("reward", "reward", REWARD), ("armorm", "embed", ARMORM)],
)
def test_the_stage_label_leases_the_model_and_gets_its_scores(
    ns: Namespace,
    store: S3,
    expected: dict[str, list[list[float]]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    labeller: str,
    task: str,
    source: str,
) -> None:
    for name, value in store.outside.items():
        monkeypatch.setenv(name, value)
    key = base64.b64decode(ns.get("secret", "moaa-engines")["data"][names.ENGINES_KEY])
    monkeypatch.setenv(names.ENGINES_KEY, key.decode())
    recipe = load_file(
        DEMO,
        [
            f"models.{labeller}={{source: '{source}', task: {task}, dtype: float32}}",
            f"label.labeller={labeller}",
            f"label.model={labeller}",
            "runtime.engines.kind=kubernetes",
            f"runtime.cluster.namespace={NAME}",
        ],
    ).recipe
    with as_account(ns, "moaa-pipeline", tmp_path):
        manifest, _ = label.run(recipe, store.store, samples(store.store, PROMPTS))
    found = Artifact(store.store, manifest)
    scores: dict[str, Any] = {row["id"]: row["scores"] for row in found.rows("scores")}
    for number, wanted in enumerate(expected[labeller]):
        assert scores[str(number)] == pytest.approx(wanted, abs=1e-4)
    for row in found.rows():
        given = scores[row["id"]]
        assert given[row["chosen_index"]] == max(given)
        assert given[row["rejected_index"]] == min(given)
    assert manifest.ledger["models"][labeller]["calls"] >= PROMPTS * ANSWERS
    deployment = ns.get("deployment", f"ens-{labeller}")
    assert deployment["spec"]["replicas"] == 0
    gone = f"moaa.dev/model={labeller}"
    until(lambda: not ns.items("pods", gone), "the end of the engine", 60)
