"""Scales down engines and deletes trainings that no live lease holds.

    python -m moaa.kubernetes.reaper --namespace NAMESPACE [--dry-run]

The platform chart runs it every few minutes. It only touches objects with our labels: Deployments
that serve a model (`moaa.dev/model`), and TrainJobs and Jobs that were leased at least once
(`moaa.dev/leases`). A lease taken at the same moment wins. Exit status 1: something could not be
scaled down or deleted.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial

from moaa.errors import MoaaError
from moaa.kubernetes import leases, names, pods
from moaa.kubernetes.api import Cluster
from moaa.kubernetes.errors import Conflict, NotFound
from moaa.kubernetes.kinds import DEPLOYMENTS, JOBS, TRAIN_JOBS, Kind, Object
from moaa.progress.messages import log, say, show

OURS = f"{names.PART_OF}={names.OURS}"
DELETE_TRIES = 5
Change = Callable[[Mapping[str, str], float], dict[str, str]]
"""Changes an object's leases: (annotations, now) -> {annotation: value}."""


def reap(cluster: Cluster, *, dry_run: bool = False) -> Iterator[str]:
    """Scale down and delete what no live lease holds; yield a line for each.

    Raises MoaaError, after all others are done, if something could not be scaled down or deleted.
    """
    engines = cluster.list(DEPLOYMENTS, f"{OURS},{names.MODEL}")
    steps = [partial(_scale_down, cluster, each, leases.expire, dry_run) for each in engines]
    for kind in (TRAIN_JOBS, JOBS):
        try:
            steps += [
                partial(_delete, cluster, kind, each, leases.expire, dry_run)
                for each in cluster.list(kind, OURS)
            ]
        except NotFound:
            yield f"no {kind.plural} here: {kind.right} is not installed"
    yield from _all(steps)


def end_run(cluster: Cluster, run_id: str) -> Iterator[str]:
    """Give back a run's engines, delete its unfinished trainings; yield a line for each."""

    def give_back(annotations: Mapping[str, str], now: float) -> dict[str, str]:
        return leases.release_run(annotations, run_id, now)

    engines = cluster.list(DEPLOYMENTS, f"{OURS},{names.MODEL}")
    steps = [
        partial(_scale_down, cluster, each, give_back, False)
        for each in engines
        if leases.of_run(_annotations(each), run_id)
    ]
    for kind in (TRAIN_JOBS, JOBS):
        with suppress(NotFound):  # Trainer is not installed
            found = cluster.list(kind, f"{OURS},{names.RUN}={names.label(run_id)}")
            steps += [
                partial(_delete, cluster, kind, each, give_back, False)
                for each in found
                if not pods.ended(each)
            ]
    yield from _all(steps)


def _all(steps: Iterable[Callable[[], str]]) -> Iterator[str]:
    failures = []
    for each in steps:
        try:
            if line := each():
                yield line
        except NotFound:  # somebody else was faster
            pass
        except MoaaError as error:  # go on with the others
            failures.append(str(error))
    if failures:
        raise MoaaError("\n".join(failures))


def _scale_down(cluster: Cluster, found: Object, change: Change, dry_run: bool) -> str:
    done = ""

    def decide(deployment: Object) -> Object | None:
        """Called again if somebody leases the engine between our read and our write; the last
        call decides."""
        nonlocal done
        now, annotations = time.time(), _annotations(deployment)
        patch = leases.patch(deployment, change(annotations, now), now)
        gone = sorted(
            leases.read(annotations).keys() - leases.read(patch["metadata"]["annotations"]).keys()
        )
        replicas = patch.get("spec", {}).get("replicas")
        if replicas is None and not gone:
            done = ""
            return None
        now_has = deployment["spec"]["replicas"]
        done = (
            f"kept at {now_has}"
            if replicas is None
            else f"scaled from {now_has} to {replicas}: no live lease"
        )
        done += f" (released: {', '.join(gone)})" if gone else ""
        return None if dry_run else patch

    name = found["metadata"]["name"]
    cluster.update(DEPLOYMENTS, name, decide, known=found)
    return done and _line(f"Deployment {name}", done, dry_run)


def _delete(cluster: Cluster, kind: Kind, found: Object, change: Change, dry_run: bool) -> str:
    name = found["metadata"]["name"]
    for _ in range(DELETE_TRIES):
        now, annotations = time.time(), _annotations(found)
        leased_once = names.LEASES in annotations
        leaving = found["metadata"].get("deletionTimestamp")
        if leaving or not leased_once or leases.live(change(annotations, now), now):
            return ""
        try:
            if not dry_run:
                cluster.delete(kind, name, seen=found)
        except Conflict:  # perhaps its lease was renewed
            found = cluster.get(kind, name)
            continue
        gone = ", ".join(sorted(leases.read(annotations))) or "nobody"
        return _line(f"{kind.name} {name}", f"deleted: no live lease (last: {gone})", dry_run)
    return f"{kind.name} {name} changes too fast to be deleted now"


def _annotations(found: Object) -> dict[str, str]:
    return found["metadata"].get("annotations") or {}


def _line(what: str, done: str, dry_run: bool) -> str:
    return f"{what} {'would be ' if dry_run else ''}{done}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m moaa.kubernetes.reaper",
        description="Scale down engines and delete trainings that no live lease holds.",
    )
    parser.add_argument(
        "--namespace", help="default: MOAA_NAMESPACE, else this pod's, else the context's"
    )
    parser.add_argument("--dry-run", action="store_true", help="only print what would be done")
    options = parser.parse_args(arguments)
    show()
    try:
        cluster = Cluster.connect(options.namespace)
        count = 0
        for line in reap(cluster, dry_run=options.dry_run):
            say(line)
            count += 1
        if not count:
            say(f"nothing to scale down or delete in namespace {cluster.namespace}")
    except MoaaError as error:
        log.error(f"reaper: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
