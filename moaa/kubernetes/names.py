"""Labels, annotations and names that the charts, the launcher, the engines and the reaper share.

A serving Deployment has PART_OF and MODEL, and so do its pods and its Service (whose EndpointSlices
inherit them). All objects of a model can be found by its label, for any name of the Helm release.
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
DIGEST: Final = "moaa.dev/digest"
"""Annotation of a TrainJob or Job that trains: the digest of its settings. Another digest means
another training."""
OLD_DIGEST: Final = "moaa.dev/spec"
"""The label in which trainings of moaa 0.1 have that digest."""
CLIENT: Final = "moaa.dev/client"
"""Label of pods that may call models, `"true"`:
the serving chart's network policy refuses all others."""
HOLDS: Final = "moaa.dev/holds"
"""Label and annotation of a Lease: the object that it holds, `Deployment/moaa-smol`. (The label has
a `.`, and may be cut.)"""
JOINED: Final = "moaa.dev/joined"
"""Annotation of a TrainJob or Job that trains: the last holder that found it running. Writing it
gives the object a new version, so that a process that is about to delete it looks at its leases
again."""
REPLICAS: Final = "moaa.dev/replicas"
"""Annotation of a serving Deployment: its replicas while it is leased; 1 if it is missing."""
IDLE_REPLICAS: Final = "moaa.dev/idle-replicas"
"""Annotation of a serving Deployment: its replicas without a lease; 0 if it is missing."""

PROMOTED: Final = "moaa.dev/promoted"
"""Label of a promoted model's ConfigMap: the model's name."""
SLOTS: Final = "moaa.dev/slots"
"""Annotation of that ConfigMap: the Deployments of its slots, as JSON."""
POINTERS: Final = "moaa.dev/pointers"
"""Annotation of that ConfigMap: the s3:// folder of the slots' pointers, `a.json` and `b.json`."""
SERVICE: Final = "moaa.dev/service"
"""Annotation of that ConfigMap without a gateway: the Service that selects one of the slots."""

RUN_ENV: Final = "MOAA_RUN_ID"
STAGE_ENV: Final = "MOAA_STAGE"
"""Variables with the run and stage that this process works for; the stage frame sets both."""

ENGINES_KEY: Final = "VLLM_API_KEY"
"""The engines' API key: the key's name in the serving chart's Secret, and the variable for an
engine and its callers."""

PORT: Final = 8000
"""The port of an engine; its OpenAI paths begin with /v1."""
MAX_DNS: Final = 40
"""The longest name of a model on the cluster. With the release before it and the pod's hash after
it, the name must stay within 63 characters."""


def dns(name: str) -> str:
    """Return a model's name in a form that Kubernetes accepts: `Qwen2.5-72B_it` gives
    `qwen2-5-72b-it`.

    A long name is cut and ends in a digest.
    """
    made = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    if not made:
        raise EngineError(
            f"the model name '{name}' has no letter or digit that a Kubernetes name could use. "
            "Rename it."
        )
    if len(made) <= MAX_DNS:
        return made
    return f"{made[: MAX_DNS - 7].rstrip('-')}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def by_dns(models: Iterable[str]) -> dict[str, str]:
    """Return {name on the cluster: the recipe's name}.

    Raises EngineError if two models would get the same name.
    """
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
    """Return `text` as a label's value: `-` for each forbidden character, at most 63 characters."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)[:63].strip("-._")


def holder(run_id: str | None = None, stage: str | None = None) -> str:
    """Return a new lease holder, `<run id>/<stage>/<random>`.

    Run and stage are those of this process unless given.
    """
    run_id = run_id or os.environ.get(RUN_ENV) or f"by-hand-{os.getpid()}"
    stage = stage or os.environ.get(STAGE_ENV) or "none"
    return f"{run_id}/{stage}/{secrets.token_hex(4)}"


def work_labels(run_id: str, stage: str) -> dict[str, str]:
    """Return the labels of objects that a stage creates (TrainJob, Job, their pods)."""
    return {PART_OF: OURS, RUN: label(run_id), STAGE: label(stage)}


def runtime(pool: str | None = None) -> str:
    """Return the name of the TrainingRuntime for this pool."""
    return f"moaa-train-{pool or 'default'}"


def training(stage: str, fingerprint: str) -> str:
    """Return the name of a stage's TrainJob or Job.

    It is the same for the same result, so that a retried launcher finds it.
    """
    return f"moaa-{stage}-{fingerprint[:12]}"
