"""What `moaa promote`, `moaa rollback` and `moaa models` do."""

from __future__ import annotations

from moaa.errors import MoaaError
from moaa.gateway.promotion import Promotion, place_of, places, slots_of, up
from moaa.gateway.slots import Slots
from moaa.kubernetes import names
from moaa.kubernetes.api import Cluster
from moaa.kubernetes.kinds import DEPLOYMENTS
from moaa.progress.terminal import out
from moaa.store import Store


def promote(name: str, source: str, steps: str, hold_s: float, namespace: str | None) -> None:
    shares = _steps(steps)
    cluster = Cluster.connect(namespace)
    promotion = Promotion(cluster, place_of(cluster, name))
    out(_state(name, promotion.promote(Store(source), source, shares, hold_s)))


def rollback(name: str, reason: str, namespace: str | None) -> None:
    cluster = Cluster.connect(namespace)
    out(_state(name, Promotion(cluster, place_of(cluster, name)).roll_back(reason)))


def models(namespace: str | None) -> None:
    cluster = Cluster.connect(namespace)
    slots_here: set[str] = set()
    for name, place in sorted(places(cluster).items()):
        slots_here |= set(place.deployments.values())
        state = slots_of(cluster, place)
        out(_state(name, state))
        for slot, deployment in place.deployments.items():
            each = state.slots[slot]
            what = f"{each.revision}  {each.source}" if each.source else "empty"
            mark = "  in production" if slot == state.production and each.source else ""
            out(f"  {slot}  {each.share:>3} %  {up(cluster, deployment)} up  {what}{mark}")
    for found in cluster.list(DEPLOYMENTS, f"{names.PART_OF}={names.OURS},{names.MODEL}"):
        metadata = found["metadata"]
        if metadata["name"] not in slots_here:
            wanted = found["spec"].get("replicas", 1)
            ready = found.get("status", {}).get("readyReplicas", 0)
            words = "asleep" if not wanted else f"{ready} of {wanted} up"
            out(f"{metadata['labels'][names.MODEL]}: {words}")


def _state(name: str, state: Slots) -> str:
    slot = state.slots[state.production]
    since = f" since {state.changed}" if state.changed else ""
    why = f" ({state.reason})" if state.reason else ""
    what = f"{slot.revision}, {slot.share} %" if slot.source else "no version yet: `moaa promote`"
    return f"{name}: {what}{since}{why}"


def _steps(text: str) -> list[int]:
    try:
        steps = [int(each) for each in text.split(",")]
    except ValueError:
        steps = []
    if not steps or steps[-1] != 100 or sorted(set(steps)) != steps or steps[0] < 1:
        raise MoaaError(
            f"--steps is '{text}'. Write growing shares in per cent that end with 100: 5,25,100."
        )
    return steps
