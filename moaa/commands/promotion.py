"""`moaa promote`, `moaa rollback` and `moaa models`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from moaa import registry
from moaa.artifacts import Artifact
from moaa.commands.runs import chosen_store
from moaa.errors import ClusterError, MoaaError, StoreError, without_stop
from moaa.gateway.canary_check import CanaryCheck, OtherModel
from moaa.gateway.places import PromotedDeployment, place_of, places, slots_of, up
from moaa.gateway.promotion import Canary, Promotion
from moaa.gateway.slots import Slots
from moaa.kubernetes import names
from moaa.kubernetes.api import Cluster
from moaa.kubernetes.errors import NoCluster
from moaa.kubernetes.kinds import DEPLOYMENTS
from moaa.progress.messages import log, say
from moaa.progress.terminal import out, out_data
from moaa.recipe.mistakes import checked
from moaa.recipe.promote import Promote
from moaa.recipe.read import Given, dump, given_of, value_of
from moaa.registry import Version, production
from moaa.registry.production import Production, ProductionEntry
from moaa.store import Store

SHOWN: Final = 3
"""The main scores that a list of versions shows."""
OPTIONS: Final = {
    "steps": "--steps",
    "hold_s": "--hold",
    "hold_requests": "--hold-requests",
    "deadline_s": "--deadline",
}
"""The options of `moaa promote` that are fields of `promote` in a recipe."""


@dataclass(frozen=True, slots=True)
class Where:
    """Where published versions and served models are."""

    recipe: Path | None = None
    root: str | None = None
    namespace: str | None = None
    slots: str | None = None
    """The name below `promoted` in moaa-serving's values. Default: the model's name."""


def promote(name: str, given: str, options: Mapping[str, Any], where: Where, *, why: str) -> None:
    """`options`: the values of `_how`."""
    how = _how(options)
    with _version(name, given, where) as (store, version, source):
        found = _place(name, where, needed=version is None)
        if isinstance(found, str):
            say(found)
        else:
            cluster, place = found
            canary = _canary(Artifact.open(store, version.uri)) if version else lambda urls: None
            out(_state(place.name, Promotion(cluster, place).promote(store, source, how, canary)))
        if version:
            entry = ProductionEntry(version=version.version, uri=version.uri, why=why)
            _move(store, version.name, entry)


def values(name: str, given: str, where: Where) -> None:
    """Print the values of moaa-serving that serve a version; change nothing."""
    with _version(name, given, where) as (_, version, source):
        dns = names.dns(version.name if version else name)
        out_data(dump({"models": [{"name": dns, "servedName": name, "source": source}]}))


def rollback(name: str, reason: str, where: Where) -> None:
    """Give all conversations back to the previous version, on the cluster and in the pointer."""
    found = _place(name, where, needed=False)
    if not isinstance(found, str):
        cluster, place = found
        state = _rolled_back(Promotion(cluster, place), reason)
        out(_state(place.name, state))
        source = state.slots[state.production].source
        if there := registry.version_at(source):
            root, version = there
            entry = ProductionEntry(
                version=version.version, uri=version.uri, why=f"rolled back: {reason}"
            )
            _move(Store(root), version.name, entry)
        return
    with chosen_store(where.recipe, where.root) as store:
        before = production.read(store, name).before
        if before is None:
            raise MoaaError(f"'{name}' has no version to go back to in {store.root}.")
        entry = replace(before, why=f"rolled back: {reason}", since="", run="", decision="")
        say(found)
        _move(store, name, entry)


def _move(store: Store, name: str, entry: ProductionEntry) -> None:
    """Move the production pointer, and print the version that is now in production."""
    out(_production(registry.put_into_production(store, name, entry)[0]))


def _rolled_back(promotion: Promotion, reason: str) -> Slots:
    """Go back to the other slot. If it is empty,
    start the version that was in production before."""
    state = slots_of(promotion.cluster, promotion.place)
    there = registry.version_at(state.slots[state.production].source)
    if there and not state.slots[state.candidate].source:
        store = Store(there[0])
        if before := production.read(store, there[1].name).before:
            say(f"{promotion.place.name}: the other slot is empty: {before.version} is started")
            return promotion.promote(store, before.uri, Promote(steps=(100,), hold_s=0))
    return promotion.roll_back(reason)


def models(where: Where) -> None:
    """Print the published versions and what the cluster serves."""
    served = _served(where)
    try:
        with chosen_store(where.recipe, where.root) as store:
            published = list(_published(store))
    except StoreError as error:
        if served is None:
            raise
        log.debug(f"no store is known: {error}")
        published = []
    for line in (*published, *(served or ())):
        out(line)
    if not published and not served:
        out("no model is published or served")


def _published(store: Store) -> Iterator[str]:
    """Yield the versions of each published model, and which is in production,
    since when and why."""
    below = f"{store.root}/{registry.MODELS}/"
    for name in sorted({uri.removeprefix(below).split("/")[0] for uri, _ in store.list(below)}):
        now = production.read(store, name)
        yield _production(now)
        for version in registry.versions(store, name):
            uri = version.uri
            mark = "  in production" if now.current and now.current.uri == uri else ""
            made = version.manifest
            yield f"  {made.fingerprint}  {made.created}  {_scores(version)}{mark}"


def _scores(version: Artifact) -> str:
    """Return the main scores of a version, in words."""
    try:
        lineage = registry.lineage_of(version)
        candidate = lineage["decision"]["candidate"]
        main = [
            f"{each['title']} {score['value']:.3f}"
            for each in lineage["scores"].values()
            for score in each["main"]
            if score["entrant"] == candidate
        ]
    except (MoaaError, ValueError, KeyError, TypeError):
        return "scores unknown"
    return ", ".join(main[:SHOWN]) or "no scores"


def _served(where: Where) -> list[str] | None:
    """Return what the cluster serves; None without a cluster."""
    try:
        cluster = Cluster.connect(where.namespace)
        return list(_on_cluster(cluster))
    except ClusterError as error:
        say(f"no cluster is shown: {error}")
        return None


def _on_cluster(cluster: Cluster) -> Iterator[str]:
    slots_here: set[str] = set()
    for name, place in sorted(places(cluster).items()):
        slots_here |= set(place.deployments.values())
        state = slots_of(cluster, place)
        yield _state(name, state)
        for slot, deployment in place.deployments.items():
            each = state.slots[slot]
            what = f"{each.revision}  {each.source}" if each.source else "empty"
            mark = "  in production" if slot == state.production and each.source else ""
            yield f"  {slot}  {each.share:>3} %  {up(cluster, deployment)} up  {what}{mark}"
    for found in cluster.list(DEPLOYMENTS, f"{names.PART_OF}={names.OURS},{names.MODEL}"):
        metadata = found["metadata"]
        if metadata["name"] not in slots_here:
            wanted = found["spec"].get("replicas", 1)
            ready = found.get("status", {}).get("readyReplicas", 0)
            words = "asleep" if not wanted else f"{ready} of {wanted} up"
            yield f"{metadata['labels'][names.MODEL]}: {words}"


@contextmanager
def _version(name: str, given: str, where: Where) -> Iterator[tuple[Store, Version | None, str]]:
    """Yield the store, the version (None for an address of no version), and its address."""
    if given.startswith("s3://"):
        found = registry.version_at(given)
        yield Store(found[0] if found else given), found and found[1], given.rstrip("/")
        return
    with chosen_store(where.recipe, where.root) as store:
        version = Version.of(store, name, given)
        if not store.exists(f"{version.uri}/manifest.json"):
            there = ", ".join(each.manifest.fingerprint for each in registry.versions(store, name))
            raise MoaaError(
                f"'{name}' has no version '{given}' in {store.root} (there: {there or 'none'}). "
                "`moaa models` lists them; --recipe or --root names another store."
            )
        yield store, version, version.uri


def _place(name: str, where: Where, *, needed: bool) -> tuple[Cluster, PromotedDeployment] | str:
    """Return the promoted model on the cluster, or why only the production pointer moves.

    `needed`: without a promoted model there is nothing to do. Raises ClusterError if a cluster is
    configured and cannot be asked: it may serve another version than the pointer would name.
    """
    try:
        cluster = Cluster.connect(where.namespace)
        if not needed and not where.slots and name not in places(cluster):
            return (
                f"moaa-serving in namespace '{cluster.namespace}' has no promoted model '{name}': "
                "only the production pointer moves"
            )
        return cluster, place_of(cluster, where.slots or name)
    except NoCluster as error:
        if needed or where.slots or where.namespace:
            raise
        return (
            f"no cluster is configured: only the production pointer moves ({without_stop(error)})"
        )
    except ClusterError as error:
        if needed or where.slots or where.namespace:
            raise
        raise ClusterError(
            f"{error}\nThis cluster may serve '{name}', so nothing was changed. Try again when it "
            "can be asked. If no cluster serves this model: KUBECONFIG=/dev/null, and only the "
            "production pointer moves."
        ) from error


def _canary(version: Artifact) -> Canary:
    """Return the check that asks the slot's pods. If this machine cannot reach the pods they are
    not asked, and a warning says so."""
    canary = CanaryCheck.of(version)

    def ask(urls: Sequence[str]) -> None:
        try:
            say(canary.check(urls))
        except OtherModel:
            raise
        except MoaaError as error:
            log.warning(f"not asked from here: {error}")

    return ask


def _production(found: Production) -> str:
    now = found.current
    if now is None:
        return f"{found.name}: nothing in production"
    by = f", by run {now.run}" if now.run else ""
    return f"{found.name}: {now.version} in production since {now.since} ({now.why}{by})"


def _state(name: str, state: Slots) -> str:
    slot = state.slots[state.production]
    since = f" since {state.changed}" if state.changed else ""
    why = f" ({state.reason})" if state.reason else ""
    what = f"{slot.revision}, {slot.share} %" if slot.source else "no version yet: `moaa promote`"
    return f"{name}: {what}{since}{why}"


def _how(options: Mapping[str, Any]) -> Promote:
    """Return the settings of a promotion from the options; None means the default. Raises MoaaError
    for a wrong value."""
    errors: list[str] = []
    given: dict[str, Given] = {}
    for name, value in options.items():
        option = OPTIONS[name]
        if name == "steps" and value is not None:
            given[name] = value_of(f"[{value}]", option, errors)
        elif value is not None:
            given[name] = given_of(value, option)
    how = checked(Given(given, "moaa promote"), Promote, errors)
    if how is None or errors:
        raise MoaaError("\n".join(errors))
    return how
