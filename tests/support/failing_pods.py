"""Pods of a training that failed, and what is said of them."""

from __future__ import annotations

import json

from moaa.progress import Progress
from moaa.train import failure
from moaa.train.log_reader import LogReader

T0 = "2026-01-01T00:00:10Z"
T1 = "2026-01-01T00:00:11Z"
T5 = "2026-01-01T00:00:15Z"
SEGFAULT = (
    "torch.distributed.elastic.multiprocessing.errors.ChildFailedError:",
    "Root Cause (first observed failure):",
    "[0]:",
    "  rank      : 0 (local_rank: 0)",
    "  exitcode  : -11 (pid: 42)",
)


def pod(
    name,
    *,
    exit_code=None,
    reason="Error",
    at=T0,
    deleted=None,
    phase=None,
    status=None,
    disrupted=False,
):
    metadata = {"name": name, "uid": f"u-{name}"}
    if deleted:
        metadata |= {"deletionTimestamp": deleted, "deletionGracePeriodSeconds": 0}
    ended = (
        {"terminated": {"exitCode": exit_code, "reason": reason, "finishedAt": at}}
        if exit_code is not None
        else {"running": {}}
    )
    found = {
        "phase": phase or ("Failed" if exit_code else "Running"),
        "containerStatuses": [{"name": "node", "state": ended}],
    }
    if disrupted:
        found["conditions"] = [{"type": "DisruptionTarget", "status": "True"}]
    return {"metadata": metadata, "spec": {}, "status": found | (status or {})}


def heard(*lines):
    listener = LogReader(Progress.silent())
    for line in lines:
        listener.read(line)
    return listener


def says(kind, message, at=1.0):
    return "moaa-error " + json.dumps({"rank": 0, "time": at, "type": kind, "message": message})


def error(*seen, gone=(), said="Failed: jobset failed", **logs):
    listeners = {f"u-{name}": listener for name, listener in logs.items()}
    return failure.explain_failure(
        "TrainJob t", list(seen), {f"u-{name}" for name in gone}, listeners, said, "kubectl logs "
    )
