"""Scales down engines and deletes trainings on which nobody holds a lease.

    python -m moaa.kubernetes.reaper --namespace NAMESPACE [--once] [--dry-run]

The platform chart runs it as a Deployment of one pod. It judges by the changes that it sees, not by
clocks: a lease is dead once it was not renewed for its whole period while the reaper watched.
Objects without any lease are ended only after the same time. It touches only objects with our
labels: Deployments that serve a model (`moaa.dev/model`), and TrainJobs and Jobs that train
(`moaa.dev/training`). A training without a holder that has ended by itself stays for people to
read: for example a failed one, after its launcher has reported the failure.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import Final

from moaa.errors import MoaaError
from moaa.kubernetes import leases, names, pods, replicas
from moaa.kubernetes.api import Cluster
from moaa.kubernetes.errors import Conflict, NotFound
from moaa.kubernetes.kinds import DEPLOYMENTS, JOBS, LEASES, TRAIN_JOBS, Kind, Object, Objects
from moaa.kubernetes.leases import LEASE_S, Observer, State
from moaa.progress.messages import log, say, show

LOOK_EVERY_S: Final = 5.0
ENGINES: Final = f"{names.PART_OF}={names.OURS},{names.MODEL}"
TRAININGS: Final = f"{names.PART_OF}={names.OURS},{names.TRAINING}"


class Reaper:
    """Looks again and again, and ends what nobody has held for a whole period."""

    def __init__(
        self, cluster: Cluster, observer: Observer | None = None, *, dry_run: bool = False
    ) -> None:
        self._cluster, self.dry_run = cluster, dry_run
        self._observer = observer or Observer()
        self._leases: Objects = []
        self._objects: list[tuple[Kind, Object]] = []

    def look(self) -> Iterator[str]:
        """Look once; yield a line for each object or lease that was ended.

        Raises MoaaError, after all the others, if something could not be ended.
        """
        dead = self._observer.look(self._read)
        by_target: dict[str, Objects] = {}
        for lease in self._leases:
            by_target.setdefault(leases.target_of(lease), []).append(lease)
        steps = []
        for kind, found in self._objects:
            held = by_target.pop(_target(kind, found), [])
            if held or _unheld(kind, found) in dead:
                steps.append(partial(self._end, kind, found, held, dead))
        steps += [partial(self._remove, held, dead) for held in by_target.values()]
        yield from _all(steps)

    def _read(self) -> dict[str, State]:
        # The leases first: a holder takes its lease before it touches the object.
        self._leases = self._cluster.list(LEASES, leases.OURS)
        self._objects = [(DEPLOYMENTS, each) for each in self._cluster.list(DEPLOYMENTS, ENGINES)]
        for kind in (TRAIN_JOBS, JOBS):
            with suppress(NotFound):  # Trainer is not installed
                self._objects += [(kind, each) for each in self._cluster.list(kind, TRAININGS)]
        states = {_key(lease): State.of(lease) for lease in self._leases}
        held = {leases.target_of(lease) for lease in self._leases}
        for kind, found in self._objects:
            if _target(kind, found) not in held and _is_at_work(kind, found):
                states[_unheld(kind, found)] = State("unheld")
        return states

    def _end(self, kind: Kind, found: Object, held: Objects, dead: set[str]) -> str:
        if any(_key(lease) not in dead for lease in held):
            return self._remove(held, dead)
        target = _target(kind, found)
        if any(_key(lease) not in dead for lease in leases.on(self._cluster, target)):
            return ""  # just taken
        last = ", ".join(sorted(map(leases.holder_of, held))) or "nobody"
        if kind is DEPLOYMENTS:
            line = self._scale_down(found, dead)
        elif found["metadata"].get("deletionTimestamp"):
            line = ""
        else:
            line = "deleted"
            if not self.dry_run:
                try:
                    self._cluster.delete(kind, found["metadata"]["name"], seen=found)
                except Conflict:  # just taken, or its status changed: look again later
                    return ""
        removed = self._remove(held, dead)
        if not line:
            return removed
        name = found["metadata"]["name"]
        return f"{kind.name} {name} {self._would}{line}: no live lease (last: {last})"

    def _scale_down(self, found: Object, dead: set[str]) -> str:
        name = found["metadata"]["name"]
        before = found["spec"].get("replicas", 1)
        after = replicas.wanted(found, leased=False)
        if not self.dry_run:
            before, after = replicas.scale(self._cluster, name, leased=False, known=found)
            # A holder takes its lease, then looks at the replicas; we write the replicas, then look
            # at the leases. So the second of the two always sees the first.
            taken = leases.on(self._cluster, _target(DEPLOYMENTS, found))
            if any(_key(lease) not in dead for lease in taken):
                replicas.scale(self._cluster, name, leased=True)
                return ""
        return f"scaled from {before} to {after}" if before != after else ""

    def _remove(self, held: Objects, dead: set[str]) -> str:
        """Remove the dead leases among these."""
        gone = []
        for lease in held:
            if _key(lease) in dead:
                with suppress(Conflict):  # just renewed
                    if not self.dry_run:
                        self._cluster.delete(LEASES, lease["metadata"]["name"], seen=lease)
                    gone.append(leases.holder_of(lease))
        if not gone:
            return ""
        target = leases.target_of(held[0]).replace("/", " ")
        return f"{target}: lease of {', '.join(sorted(gone))} {self._would}removed, not renewed"

    @property
    def _would(self) -> str:
        return "would be " if self.dry_run else ""


def end_run(cluster: Cluster, run_id: str) -> Iterator[str]:
    """Give back a run's engines, and delete its unfinished trainings; yield a line for each."""
    by_target: dict[str, Objects] = {}
    for lease in leases.of_run(cluster, run_id):
        by_target.setdefault(leases.target_of(lease), []).append(lease)
    yield from _all(
        partial(_give_back, cluster, target, mine) for target, mine in by_target.items()
    )


def _give_back(cluster: Cluster, target: str, mine: Objects) -> str:
    kind_name, _, name = target.partition("/")
    kind = {kind.name: kind for kind in (DEPLOYMENTS, TRAIN_JOBS, JOBS)}[kind_name]
    gone = f"released: {', '.join(sorted(map(leases.holder_of, mine)))}"
    names_of_mine = {lease["metadata"]["name"] for lease in mine}
    try:
        found = cluster.get(kind, name)
    except NotFound:
        found = None
    others = [
        each for each in leases.on(cluster, target) if each["metadata"]["name"] not in names_of_mine
    ]
    done = "kept: others hold it"
    if found is None:
        done = "is gone"
    elif kind is not DEPLOYMENTS and pods.ended(found):
        done = "kept: it has ended"
    elif kind is not DEPLOYMENTS and not others:
        with suppress(Conflict):  # just taken: then it stays
            cluster.delete(kind, name, seen=found)
            done = "deleted"
    for lease in mine:
        cluster.delete(LEASES, lease["metadata"]["name"])
    if kind is DEPLOYMENTS and found is not None and not others:
        before, after = replicas.scale(cluster, name, leased=False, known=found)
        done = f"scaled from {before} to {after}"
        if leases.on(cluster, target):  # just taken
            replicas.scale(cluster, name, leased=True)
            done = "kept: others hold it"
    return f"{kind_name} {name} {done} ({gone})"


def _all(steps: Iterable[Callable[[], str]]) -> Iterator[str]:
    failures = []
    for each in steps:
        try:
            if line := each():
                yield line
        except NotFound:  # another process was faster
            pass
        except MoaaError as error:  # continue with the others
            failures.append(str(error))
    if failures:
        raise MoaaError("\n".join(failures))


def _target(kind: Kind, found: Object) -> str:
    return f"{kind.name}/{found['metadata']['name']}"


def _key(lease: Object) -> str:
    return f"lease {lease['metadata']['uid']} {lease['metadata']['resourceVersion']}"


def _unheld(kind: Kind, found: Object) -> str:
    return f"{_target(kind, found)} {found['metadata']['uid']}"


def _is_at_work(kind: Kind, found: Object) -> bool:
    """Return whether ending it would free anything."""
    if kind is DEPLOYMENTS:
        return bool(replicas.wanted(found, leased=False) != found["spec"].get("replicas", 1))
    return not pods.ended(found) and not found["metadata"].get("deletionTimestamp")


def main(arguments: list[str] | None = None) -> int:
    """Run the reaper with these arguments; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m moaa.kubernetes.reaper",
        description="Scale down engines and delete trainings that nobody holds a lease on.",
    )
    parser.add_argument(
        "--namespace", help="default: MOAA_NAMESPACE, else this pod's, else the context's"
    )
    parser.add_argument(
        "--once", action="store_true", help=f"stop after a lease's period ({LEASE_S:.0f} s)"
    )
    parser.add_argument("--dry-run", action="store_true", help="only print what would be done")
    options = parser.parse_args(arguments)
    show()
    try:
        cluster = Cluster.connect(options.namespace)
    except MoaaError as error:
        log.error(f"reaper: {error}")
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # process 1 of a pod has no default
    reaper = Reaper(cluster, dry_run=options.dry_run)
    stop_at = time.monotonic() + LEASE_S + 2 * LOOK_EVERY_S if options.once else float("inf")
    say(f"watches the leases of namespace {cluster.namespace}")
    return watch(reaper, stop_at)


def watch(reaper: Reaper, stop_at: float) -> int:
    """Look every few seconds until `stop_at`; return 1 if the last look failed, else 0."""
    said, printed = "", set[str]()
    while True:
        problem = ""
        try:
            for line in reaper.look():
                if not reaper.dry_run or line not in printed:
                    say(line)
                printed = {*printed, line} if reaper.dry_run else printed
        except MoaaError as error:
            problem = str(error)
            if problem != said:  # print the same problem only once
                log.error(f"reaper: {problem}")
        said = problem
        if time.monotonic() > stop_at:
            return 1 if problem else 0
        time.sleep(LOOK_EVERY_S)


if __name__ == "__main__":
    sys.exit(main())
