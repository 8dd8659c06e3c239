"""The stage promote: what is published comes into production; and the commands beside it."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from moaa.artifacts import Artifact, Draft, Output
from moaa.commands import promotion
from moaa.commands.promotion import Where
from moaa.errors import ClusterError, MoaaError, RecipeError
from moaa.gateway.promotion import Promotion
from moaa.kubernetes.api import Cluster
from moaa.kubernetes.errors import NoCluster, Unreachable
from moaa.recipe.load import load_file
from moaa.recipe.schema import Recipe
from moaa.registry import production
from moaa.stages.promote import promote
from moaa.stages.publish import publish
from moaa.stages.table import PROMOTE, of_recipe
from tests.support.kube_server import KubeServer
from tests.support.memory_store import MemoryStore
from tests.support.paths import DEMO
from tests.support.promotions import World
from tests.support.publishing import inputs

PROMOTING = ("gate={}", "publish={}", "promote={}")


def recipe(*sets: str) -> Recipe:
    return load_file(DEMO, [*PROMOTING, *sets]).recipe


def run(store: MemoryStore, verdict: str = "promote", *sets: str) -> dict[str, Any]:
    """Publish and promote; return the facts of promote."""
    given = inputs(store, verdict)
    made, _ = publish.run(recipe(), store, given)
    stage_inputs = {"version": Artifact(store, made), "decision": given["decision"]}
    manifest, _ = promote.run(recipe(*sets), store, stage_inputs)
    return dict(manifest.facts)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> MemoryStore:
    """A store that commands find; no cluster is reached."""
    made = MemoryStore()

    @contextmanager
    def chosen(*_: Any) -> Iterator[MemoryStore]:
        yield made

    def unreached(namespace: str | None = None) -> Cluster:
        raise NoCluster("there is no kubeconfig")

    monkeypatch.setattr(promotion, "chosen_store", chosen)
    monkeypatch.setattr(Cluster, "connect", unreached)
    return made


def test_without_slots_only_the_pointer_moves_and_that_is_said(store: MemoryStore) -> None:
    facts = run(store)
    now = production.read(store, "demo").current
    assert now is not None
    assert facts["promoted"] == {"name": "demo", "version": now.version, "uri": now.uri}
    assert "only the production pointer moves" in now.why
    assert now.decision == f"{store.root}/gate/x"
    assert PROMOTE.headline({}, facts) == f"demo, version {now.version}, is in production"


@pytest.mark.parametrize("verdict", ["refuse", "undecided"])
def test_what_the_gate_does_not_promote_leaves_production_untouched(
    store: MemoryStore, verdict: str
) -> None:
    facts = run(store, verdict)
    assert (facts["promoted"], facts["why"]) == (None, f"{verdict}: because")
    assert not store.exists(production.address(store, "demo"))


def test_without_a_version_to_go_back_to_nothing_is_said_to_move(
    store: MemoryStore, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(MoaaError, match="no version to go back to"):
        promotion.rollback("demo", "by hand", Where())
    assert "pointer moves" not in caplog.text + capsys.readouterr().out


def test_a_configured_cluster_that_does_not_answer_keeps_the_pointer_where_it_is(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(namespace: str | None = None) -> Cluster:
        raise Unreachable("the API server did not answer")

    earlier(store)
    version = run(store)["promoted"]["version"]
    before = production.read(store, "demo")
    monkeypatch.setattr(Cluster, "connect", unreachable)
    with pytest.raises(ClusterError, match="so nothing was changed"):
        promotion.promote("demo", version, {}, Where(), why="by hand")
    with pytest.raises(ClusterError, match="so nothing was changed"):
        promotion.rollback("demo", "by hand", Where())
    assert production.read(store, "demo") == before


def test_a_repeated_run_changes_nothing(store: MemoryStore) -> None:
    first, before = run(store), production.read(store, "demo")
    assert run(store)["promoted"] == first["promoted"]
    assert production.read(store, "demo") == before


def test_a_version_that_was_taken_out_is_not_put_back_by_a_run(store: MemoryStore) -> None:
    other = earlier(store)
    run(store)
    promotion.rollback("demo", "wrong language", Where())
    facts = run(store)
    assert facts["promoted"] is None
    assert "taken out" in facts["why"]
    assert "rolled back: wrong language" in facts["why"]
    now = production.read(store, "demo").current
    assert now is not None
    assert now.uri == other


def earlier(store: MemoryStore) -> str:
    """Another version, in production before."""
    uri = f"{store.root}/models/demo/v0"
    with Output(store, uri, "model") as out:
        out.commit(Draft(stage="publish", name="demo", fingerprint="v0"))
    production.move(
        store, "demo", production.ProductionEntry(version="v0", uri=uri, why="the first")
    )
    return uri


def test_killed_before_the_pointer_the_next_attempt_moves_it(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(production, "move", killed)
        with pytest.raises(KeyboardInterrupt):
            run(store)
    assert production.read(store, "demo").current is None
    assert run(store)["promoted"]


def test_a_version_that_is_not_whole_is_never_pointed_at(store: MemoryStore) -> None:
    uri = run(store)["promoted"]["uri"]
    store.delete(f"{uri}/manifest.json", production.address(store, "demo"))
    facts = {"published": {"name": "demo", "version": uri.rpartition("/")[2], "uri": uri}}
    with Output(store, f"{store.root}/publish/y", "version") as out:
        made = out.commit(Draft(stage="publish", name="demo", fingerprint="y", facts=facts))
    given = {"version": Artifact(store, made), "decision": inputs(MemoryStore())["decision"]}
    with pytest.raises(MoaaError, match="not a complete version"):
        promote.run(recipe(), store, given)
    assert not store.exists(production.address(store, "demo"))


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (["promote={}"], "only what is published is promoted"),
        ([*PROMOTING, "promote.steps=[25, 5]"], "growing shares"),
        ([*PROMOTING, "promote.deadline_s=900"], "deadline_s: it is 900, and 3 steps of 300 s"),
    ],
)
def test_a_promotion_that_cannot_be_is_refused_with_the_recipe(sets: list[str], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        load_file(DEMO, sets)


def test_it_is_the_last_stage_of_a_recipe_that_chooses_it() -> None:
    assert of_recipe(recipe())[-1] == PROMOTE
    assert PROMOTE not in of_recipe(load_file(DEMO, PROMOTING[:2]).recipe)


# The commands, without a cluster


def test_models_lists_versions_scores_and_production(
    store: MemoryStore, capsys: pytest.CaptureFixture[str]
) -> None:
    version = run(store)["promoted"]["version"]
    promotion.models(Where())
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"demo: {version} in production since 20")
    assert lines[1].startswith(f"  {version}  ")
    assert "Head to head 0.600" in lines[1]
    assert lines[1].endswith("in production")


def test_a_version_is_promoted_and_rolled_back_by_its_name(store: MemoryStore) -> None:
    version = run(store)["promoted"]["version"]
    with pytest.raises(MoaaError, match="no version to go back to"):
        promotion.rollback("demo", "by hand", Where())
    before = earlier(store)
    promote_by_hand(version)
    promotion.rollback("demo", "worse", Where())
    history = production.read(store, "demo").history
    assert [each.why for each in history[:2]] == ["rolled back: worse", "by hand"]
    assert history[0].uri == before


def promote_by_hand(version: str) -> None:
    options = {"steps": "5,100", "hold_s": 1.0, "deadline_s": 60.0}
    promotion.promote("demo", version, options, Where(), why="by hand")


def test_a_version_that_is_not_there_is_told_which_are(store: MemoryStore) -> None:
    version = run(store)["promoted"]["version"]
    with pytest.raises(MoaaError, match=rf"no version 'v9' in .*\(there: {version}\)"):
        promote_by_hand("v9")


def test_values_are_printed_and_nothing_changes(
    store: MemoryStore, capsys: pytest.CaptureFixture[str]
) -> None:
    version = run(store)["promoted"]["version"]
    before = dict(store.objects)
    promotion.values("demo", version, Where())
    printed = capsys.readouterr().out
    assert f"source: {store.root}/models/demo/{version}" in printed
    assert store.objects == before
    assert json.loads(before[production.address(store, "demo")])["history"]


# With slots


def test_the_version_goes_through_the_slots_before_the_pointer_moves(
    kube: KubeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, store = World(kube), MemoryStore("s3://memory/root")
    world.store = store
    rolled_out(world, monkeypatch)
    order: list[str] = []
    real = production.move

    def moving(*given: Any) -> Any:
        order.append(f"{world.state.shares} before the pointer")
        return real(*given)

    monkeypatch.setattr(production, "move", moving)
    facts = run(store, "promote", "promote={slots: aligned, hold_s: 1}")
    assert order == ["{'a': 100.0, 'b': 0.0} before the pointer"]
    assert world.serving == {"a": facts["promoted"]["uri"]}
    assert "no canary was asked: the version has none" in facts["why"]


def rolled_out(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the stage reach this cluster, on which time passes while somebody sleeps."""
    stage: Any = importlib.import_module("moaa.stages.promote")
    place = world.promotion.place
    monkeypatch.setattr(Cluster, "connect", lambda namespace, **how: world.cluster)
    monkeypatch.setattr(
        stage, "Promotion", lambda *_: Promotion(world.cluster, place, world.sleep, world.clock)
    )


def test_a_slot_that_does_not_start_leaves_production_untouched_and_says_why(
    kube: KubeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, store = World(kube), MemoryStore("s3://memory/root")
    world.store = store
    world.starts = False
    rolled_out(world, monkeypatch)
    facts = run(store, "promote", "promote={slots: aligned, hold_s: 1}")
    assert facts["promoted"] is None
    assert "rolled back: aligned: slot a did not start within 660 s" in facts["why"]
    assert not store.exists(production.address(store, "demo"))
    assert [each["reason"] for each in world.events()] == ["MoaaNotPromoted"]
    assert PROMOTE.headline({}, facts).startswith("not promoted: rolled back: aligned")
