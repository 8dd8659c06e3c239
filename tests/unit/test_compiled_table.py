"""What the compiled pipeline asks of the cluster, task by task, read from the YAML that Kubeflow
gets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from moaa import __version__
from moaa.pipelines.compiling import compile_recipe
from moaa.recipe.load import load_file
from moaa.recipe.secrets import DESTINATIONS_ENV
from tests.support.paths import PAPER

pytestmark = pytest.mark.xdist_group("kfp")

ON_CLUSTER = [
    "runtime.engines.kind=kubernetes",
    "runtime.launcher.kind=trainer",
    "runtime.cluster.namespace=moaa",
]
ORDER = ("preflight", "prompts", "generate", "sft", "sample", "label", "dpo", "evaluate", "report")

# Engines and trainings are processes: who asks, serves its models on GPUs of its own; who trains,
# trains in its own pod.
PROCESSES = """
task       image  cpu     memory       accelerators      selector                                      tolerates
preflight  core   500m-4  1Gi-8Gi      -                 -                                             -
prompts    core   500m-4  1Gi-8Gi      -                 -                                             -
generate   serve  64      512Gi        nvidia.com/gpu 8  nvidia.com/gpu.product=NVIDIA-A100-SXM4-80GB  nvidia.com/gpu Exists
sft        train  64      512Gi        nvidia.com/gpu 8  nvidia.com/gpu.product=NVIDIA-A100-SXM4-80GB  nvidia.com/gpu Exists
sample     serve  8       64Gi         nvidia.com/gpu 1  nvidia.com/gpu.product=NVIDIA-A100-SXM4-80GB  nvidia.com/gpu Exists
label      serve  64      512Gi        nvidia.com/gpu 8  nvidia.com/gpu.product=NVIDIA-A100-SXM4-80GB  nvidia.com/gpu Exists
dpo        train  64      512Gi        nvidia.com/gpu 8  nvidia.com/gpu.product=NVIDIA-A100-SXM4-80GB  nvidia.com/gpu Exists
evaluate   serve  64      512Gi        nvidia.com/gpu 8  nvidia.com/gpu.product=NVIDIA-A100-SXM4-80GB  nvidia.com/gpu Exists
report     core   500m-4  1Gi-8Gi      -                 -                                             -
"""

# Engines and trainings are the cluster's: only who asks what the run itself has trained holds GPUs.
CLUSTER = """
task       image  cpu     memory   accelerators      selector                                      tolerates
preflight  core   500m-4  1Gi-8Gi  -                 -                                             -
prompts    core   500m-4  1Gi-8Gi  -                 -                                             -
generate   core   500m-4  1Gi-8Gi  -                 -                                             -
sft        core   500m-4  1Gi-8Gi  -                 -                                             -
sample     serve  8       64Gi     nvidia.com/gpu 1  nvidia.com/gpu.product=NVIDIA-A100-SXM4-80GB  nvidia.com/gpu Exists
label      core   500m-4  1Gi-8Gi  -                 -                                             -
dpo        core   500m-4  1Gi-8Gi  -                 -                                             -
evaluate   serve  24      192Gi    nvidia.com/gpu 3  nvidia.com/gpu.product=NVIDIA-A100-SXM4-80GB  nvidia.com/gpu Exists
report     core   500m-4  1Gi-8Gi  -                 -                                             -
"""

# A lost pod is replaced twice. `until`: Kubeflow's deadline for all attempts together, so above
# each one's own.
RUNNING = """
task       hours  retries  wait     until  cached
preflight  0.5    2        5s x 2   168 h  no
prompts    12     2        5s x 2   168 h  yes
generate   144    2        5s x 2   168 h  yes
sft        144    2        5s x 2   168 h  yes
sample     48     2        5s x 2   168 h  yes
label      144    2        5s x 2   168 h  yes
dpo        144    2        5s x 2   168 h  yes
evaluate   48     2        5s x 2   168 h  yes
report     1      2        5s x 2   168 h  no
"""

# `?` after a Secret's key: the pod starts without it too.
SECRETS = """
task       secrets                                                                   non-root  volumes
preflight  moaa-s3: id key url? region? token?  moaa-env: HF_TOKEN?  pull: registry  yes       /tmp 20Gi
prompts    moaa-s3: id key url? region? token?  moaa-env: HF_TOKEN  pull: registry   yes       /tmp 20Gi
generate   moaa-s3: id key url? region? token?  moaa-env: HF_TOKEN  pull: registry   yes       /tmp 2000Gi, /dev/shm 16Gi Memory
sft        moaa-s3: id key url? region? token?  moaa-env: HF_TOKEN  pull: registry   yes       /tmp 2000Gi, /dev/shm 16Gi Memory
sample     moaa-s3: id key url? region? token?  moaa-env: HF_TOKEN  pull: registry   yes       /tmp 2000Gi, /dev/shm 16Gi Memory
label      moaa-s3: id key url? region? token?  moaa-env: HF_TOKEN  pull: registry   yes       /tmp 2000Gi, /dev/shm 16Gi Memory
dpo        moaa-s3: id key url? region? token?  moaa-env: HF_TOKEN  pull: registry   yes       /tmp 2000Gi, /dev/shm 16Gi Memory
evaluate   moaa-s3: id key url? region? token?  moaa-env: HF_TOKEN  pull: registry   yes       /tmp 2000Gi, /dev/shm 16Gi Memory
report     moaa-s3: id key url? region? token?  pull: registry                       yes       /tmp 20Gi
"""

ENDPOINTS = """
task       environment                                                                                                labels
preflight  HOME=/tmp MOAA_CACHE=/tmp/moaa MOAA_NAMESPACE=moaa moaa-env: HF_TOKEN QWEN_KEY                             part-of=moaa client=true stage=preflight
prompts    HOME=/tmp MOAA_CACHE=/tmp/moaa MOAA_NAMESPACE=moaa moaa-env: HF_TOKEN                                      part-of=moaa client=true stage=prompts
generate   HOME=/tmp MOAA_CACHE=/tmp/moaa MOAA_NAMESPACE=moaa moaa-engines: VLLM_API_KEY moaa-env: HF_TOKEN QWEN_KEY  part-of=moaa client=true stage=generate
sft        HOME=/tmp MOAA_CACHE=/tmp/moaa MOAA_NAMESPACE=moaa moaa-env: HF_TOKEN                                      part-of=moaa client=true stage=sft
sample     HOME=/tmp MOAA_CACHE=/tmp/moaa MOAA_NAMESPACE=moaa moaa-env: HF_TOKEN QWEN_KEY                             part-of=moaa client=true stage=sample
label      HOME=/tmp MOAA_CACHE=/tmp/moaa MOAA_NAMESPACE=moaa moaa-engines: VLLM_API_KEY moaa-env: HF_TOKEN QWEN_KEY  part-of=moaa client=true stage=label
dpo        HOME=/tmp MOAA_CACHE=/tmp/moaa MOAA_NAMESPACE=moaa moaa-env: HF_TOKEN                                      part-of=moaa client=true stage=dpo
evaluate   HOME=/tmp MOAA_CACHE=/tmp/moaa MOAA_NAMESPACE=moaa moaa-engines: VLLM_API_KEY moaa-env: HF_TOKEN QWEN_KEY  part-of=moaa client=true stage=evaluate
report     HOME=/tmp MOAA_CACHE=/tmp/moaa MOAA_NAMESPACE=moaa                                                         part-of=moaa client=true stage=report
"""

Task = dict[str, Any]


def placed(task: Task) -> Iterator[str]:
    resources = task["container"]["resources"]
    yield task["container"]["image"].removeprefix("moaa/").removesuffix(f":{__version__}")
    for what in ("Cpu", "Memory"):
        asked, most = resources[f"resource{what}Request"], resources[f"resource{what}Limit"]
        yield asked if asked == most else f"{asked}-{most}"
    accelerator = resources.get("accelerator", {})
    yield f"{accelerator['resourceType']} {accelerator['resourceCount']}" if accelerator else "-"
    selector = task["platform"].get("nodeSelector", {}).get("labels", {})
    yield ",".join(f"{key}={value}" for key, value in selector.items()) or "-"
    yield (
        ",".join(
            f"{each['key']} {each['operator']}" for each in task["platform"].get("tolerations", ())
        )
        or "-"
    )


def running(task: Task) -> Iterator[str]:
    retry = task["task"]["retryPolicy"]
    yield f"{int(task['platform']['activeDeadlineSeconds']) / 3600:g}"
    yield str(retry["maxRetryCount"])
    yield f"{retry['backoffDuration']} x {retry['backoffFactor']:g}"
    yield f"{int(retry['backoffMaxDuration'].removesuffix('s')) / 3600:g} h"
    yield "yes" if task["task"].get("cachingOptions", {}).get("enableCache") else "no"


def guarded(task: Task) -> Iterator[str]:
    short = {
        "AWS_ACCESS_KEY_ID": "id",
        "AWS_SECRET_ACCESS_KEY": "key",
        "AWS_ENDPOINT_URL_S3": "url",
        "AWS_REGION": "region",
        "AWS_SESSION_TOKEN": "token",
    }
    found: dict[str, list[str]] = {}
    for secret in task["platform"]["secretAsEnv"]:
        for each in secret["keyToEnv"]:
            assert each["secretKey"] == each["envVar"]
            mark = "?" if secret["optional"] else ""
            found.setdefault(secret["secretName"], []).append(
                short.get(each["envVar"], each["envVar"]) + mark
            )
    pulls = [f"pull: {each['secretName']}" for each in task["platform"].get("imagePullSecret", ())]
    yield "  ".join([*(f"{name}: {' '.join(keys)}" for name, keys in found.items()), *pulls])
    yield "yes" if task["platform"]["securityContext"] == {"runAsNonRoot": True} else "no"
    mounts = task["platform"]["emptyDirMounts"]
    yield ", ".join(
        f"{m['mountPath']} {m['sizeLimit']} {m.get('medium', '')}".strip() for m in mounts
    )


def told(task: Task) -> Iterator[str]:
    given = {each["name"]: each["value"] for each in task["container"]["env"]}
    del given[DESTINATIONS_ENV]  # test_recipe_secrets.py
    words = [f"{name}={value}" for name, value in given.items()]
    for secret in task["platform"]["secretAsEnv"][2:]:
        words += [f"{secret['secretName']}:", *(each["envVar"] for each in secret["keyToEnv"])]
    yield " ".join(words)
    yield " ".join(
        f"{key.split('/')[1]}={value}"
        for key, value in task["platform"]["podMetadata"]["labels"].items()
    )


def table(path: Path, columns: Callable[[Task], Iterator[str]]) -> list[list[str]]:
    """One row a task in the order of the run: what `columns` reads of its task, container and
    platform settings."""
    pipeline, platform = yaml.safe_load_all(path.read_text())
    tasks = {
        **pipeline["components"]["comp-exit-handler-1"]["dag"]["tasks"],
        **pipeline["root"]["dag"]["tasks"],
    }
    tasks.pop("exit-handler-1")
    executors = pipeline["deploymentSpec"]["executors"]
    settings = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert set(tasks) == set(ORDER)
    return [
        [
            name,
            *columns(
                {
                    "task": tasks[name],
                    "container": executors[f"exec-{name}"]["container"],
                    "platform": settings[f"exec-{name}"],
                }
            ),
        ]
        for name in ORDER
    ]


def read(text: str) -> list[list[str]]:
    """The rows of a table written above: its columns begin where the words of its first line do."""
    head, *lines = text.strip("\n").splitlines()
    starts = [at for at in range(len(head)) if head[at] != " " and (at == 0 or head[at - 1] == " ")]
    return [
        [line[a:b].strip() for a, b in zip(starts, [*starts[1:], None], strict=True)]
        for line in lines
    ]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    made: dict[tuple[str, ...], Path] = {}

    def compile_with(*sets: str) -> Path:
        if sets not in made:
            made[sets] = tmp_path_factory.mktemp("compiled") / "align.yaml"
            compile_recipe(load_file(PAPER, sets), made[sets])
        return made[sets]

    return compile_with


PULL = "runtime.cluster.image_pull_secrets=[registry]"
KEY = "models.qwen2-72b.endpoint={url: https://qwen/v1, key_env: QWEN_KEY}"


@pytest.mark.parametrize(
    ("sets", "columns", "expected"),
    [
        ([], placed, PROCESSES),
        (ON_CLUSTER, placed, CLUSTER),
        ([], running, RUNNING),
        ([PULL], guarded, SECRETS),
        ([*ON_CLUSTER, KEY], told, ENDPOINTS),
    ],
    ids=["processes", "cluster", "running", "secrets", "environment"],
)
def test_the_table(
    compiled: Callable[..., Path],
    sets: list[str],
    columns: Callable[[Task], Iterator[str]],
    expected: str,
) -> None:
    assert table(compiled(*sets), columns) == read(expected)
