"""Labels, annotations and names that the charts, the launcher, the engines and the reaper share.

A serving Deployment carries PART_OF and MODEL, and so do its pods and its Service (whose
EndpointSlices inherit them): everything of a model is found by its label, whatever the Helm release
is called.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Iterable
from typing import Final

from moaa.errors import EngineError

PART_OF: Final = "app.kubernetes.io/part-of"
OURS: Final = "moaa"
"""The value of PART_OF."""
MODEL: Final = "moaa.dev/model"
RUN: Final = "moaa.dev/run"
STAGE: Final = "moaa.dev/stage"
TRAINING: Final = "moaa.dev/training"
"""Label of a TrainJob or Job that trains, and of a Job's pods: its own name."""
SPEC: Final = "moaa.dev/spec"
"""Annotation of a TrainJob or Job that trains: digest of what was asked for, so that a corrected
one is told from it."""
CLIENT: Final = "moaa.dev/client"
"""Label of pods that may ask models, `"true"`: the serving chart's network policy lets in no
others."""
LEASES: Final = "moaa.dev/leases"
"""Annotation of a serving Deployment, a TrainJob or a Job: JSON {holder: unix seconds at which the
lease ends}."""
REPLICAS: Final = "moaa.dev/replicas"
"""Annotation of a serving Deployment: scaled up to so many while it is leased; 1 where it is
missing."""
IDLE_REPLICAS: Final = "moaa.dev/idle-replicas"
"""Annotation of a serving Deployment: scaled down to so many when nobody holds a lease; 0 where it
is missing."""

RUN_ENV: Final = "MOAA_RUN_ID"
STAGE_ENV: Final = "MOAA_STAGE"
"""The run and stage that this process works for; the stage frame sets both."""

PORT: Final = 8000
"""Where an engine listens; its OpenAI paths begin with /v1."""
MAX_DNS: Final = 40
"""A model's name on the cluster: leaves room for the release before it and the pod's hash after it
(63 in all)."""


def dns(name: str) -> str:
    """A model's name as Kubernetes takes it: `Qwen2.5-72B_it` is `qwen2-5-72b-it`; a long one is
    cut and ends in a digest."""
    made = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    if not made:
        raise EngineError(
            f"the model name '{name}' has no letter or digit that a Kubernetes name could be made "
            "of. Rename it."
        )
    if len(made) <= MAX_DNS:
        return made
    return f"{made[: MAX_DNS - 7].rstrip('-')}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def by_dns(models: Iterable[str]) -> dict[str, str]:
    """{name on the cluster: the recipe's name}. Raises EngineError when two models would get the
    same."""
    found: dict[str, str] = {}
    for name in models:
        other = found.setdefault(dns(name), name)
        if other != name:
            raise EngineError(
                f"models '{other}' and '{name}' would both be '{dns(name)}' on Kubernetes. Rename "
                "one of them."
            )
    return found


def label(text: str) -> str:
    """`text` as a label's value: what Kubernetes refuses becomes `-`, at most 63 characters."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)[:63].strip("-._")


def holder(run_id: str | None = None, stage: str | None = None) -> str:
    """A new lease holder, `<run id>/<stage>/<random>`; run and stage are those of this process
    unless given."""
    run_id = run_id or os.environ.get(RUN_ENV) or f"by-hand-{os.getpid()}"
    stage = stage or os.environ.get(STAGE_ENV) or "none"
    return f"{run_id}/{stage}/{secrets.token_hex(4)}"


def work_labels(run_id: str, stage: str) -> dict[str, str]:
    """Labels of what a stage creates (TrainJob, Job, their pods)."""
    return {PART_OF: OURS, RUN: label(run_id), STAGE: label(stage)}


def runtime(pool: str | None = None) -> str:
    """Name of the TrainingRuntime that places a training in this pool."""
    return f"moaa-train-{pool or 'default'}"


def training(stage: str, fingerprint: str) -> str:
    """Name of the TrainJob (or Job) of a stage: the same for the same result, so that a retried
    launcher finds it."""
    return f"moaa-{stage}-{fingerprint[:12]}"
