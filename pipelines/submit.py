"""A run on Kubeflow: uploads the recipe, submits the compiled pipeline, follows the run."""

from __future__ import annotations

import contextlib
import io
import json
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from moaa import home, records
from moaa.errors import ClusterError, RecipeError, StoreError
from moaa.kubernetes import names, pods
from moaa.kubernetes.api import Cluster
from moaa.kubernetes.kinds import PODS
from moaa.pipelines.client import STANDALONE, SubmitError, connect, refusals
from moaa.pipelines.compiling import refuse_expanded, write
from moaa.pipelines.outcome import RunFailed, changes
from moaa.progress.terminal import out
from moaa.recipe.load import Loaded
from moaa.stages.table import of_recipe
from moaa.store import Store
from moaa.task import keep

EXPERIMENT = "moaa"
POLL_S = 5.0
USUAL_S = 15.0
"""A pod that is pending for a shorter time is not reported."""
PATIENCE_S = 600.0
"""How long Kubeflow may fail to answer while a run is followed, for example in an upgrade."""
ENDED = {"SUCCEEDED", "SKIPPED", "FAILED", "CANCELED"}
RUN_LABEL = "pipeline/runid"
"""Kubeflow's own label on the pods of a run."""


def submit(
    loaded: Loaded,
    host: str,
    until: str | None,
    experiment: str = EXPERIMENT,
    namespace: str | None = None,
    wait: bool = False,
    run_name: str = "",
) -> str:
    """Start a run and return its id. With `wait`, follow it until it is over.

    `run_name`: the name in Kubeflow's UI; default: the recipe's name and the time. Raises
    SubmitError if Kubeflow refuses, RunFailed with the failed stage's own error if the run does not
    succeed.
    """
    store = Store.of(loaded.recipe.store)
    text, overrides = parameters(loaded)
    address = keep(text, store)
    cluster = loaded.recipe.runtime.cluster
    client = connect(host, namespace)
    _describe(client, ", ".join(f"{path}={json.dumps(each)}" for path, each in overrides.items()))
    with tempfile.TemporaryDirectory() as folder, refusals(host):
        package = Path(folder) / "align.yaml"
        write(loaded, address, package, of_recipe(loaded.recipe, until))
        # The client prints links to the experiment and the run.
        with contextlib.redirect_stdout(io.StringIO()):
            run_id: str = client.create_run_from_pipeline_package(
                str(package),
                arguments={"recipe": address, "overrides": overrides},
                experiment_name=experiment,
                namespace=namespace,
                run_name=run_name or f"{loaded.recipe.name} {time.strftime('%Y-%m-%d %H:%M:%S')}",
                service_account=cluster.service_account,
            ).run_id
    home.remember(run_id, loaded.recipe.store.model_dump(exclude_defaults=True))
    out(f"run     {run_id}\nrecipe  {address}\nwatch   {_page(host, run_id)}")
    out(f"report  {store.root}/runs/{run_id}/report.html   (when the run is over)")
    if wait:
        watch(host, namespace, run_id, store, client)
    return run_id


def watch(
    host: str, namespace: str | None, run_id: str, store: Store, client: Any | None = None
) -> None:
    """Follow a run until it is over. Raises RunFailed unless it SUCCEEDED."""
    pods_in = namespace or STANDALONE
    client = client or connect(host, namespace)
    try:
        follow(client, host, run_id, store, waiting(run_id, pods_in), pods_in)
    except KeyboardInterrupt:
        out(f"\nThe run continues; only this terminal stopped watching: {_page(host, run_id)}")
        raise SystemExit(130) from None


def named(host: str, namespace: str | None, run_name: str) -> str:
    """Return the id of the newest run of this name; empty if Kubeflow has none.

    Raises SubmitError if Kubeflow does not answer.
    """
    wanted = {"operation": "EQUALS", "key": "display_name", "stringValue": run_name}
    with refusals(host):
        found = connect(host, namespace).list_runs(
            page_size=1,
            sort_by="created_at desc",
            namespace=namespace,
            filter=json.dumps({"predicates": [wanted]}),
        )
    return str(found.runs[0].run_id) if found.runs else ""


def state_of(host: str, namespace: str | None, run_id: str) -> str:
    """Return Kubeflow's word for the state of a run; `UNKNOWN` for a run that it does not have.

    Raises SubmitError if Kubeflow does not answer.
    """
    try:
        with refusals(host):
            return str(connect(host, namespace).get_run(run_id).state)
    except SubmitError as error:
        if error.status == 404:
            return "UNKNOWN"
        raise


def _page(host: str, run_id: str) -> str:
    return f"{host.rstrip('/')}/#/runs/details/{run_id}"


def parameters(loaded: Loaded) -> tuple[str, dict[str, Any]]:
    """Return the recipe's text and the overrides with which a run starts.

    Kubeflow's UI shows and edits the overrides. If Kubeflow would change a value, all values go
    into the text.
    """
    safe = {}
    for path, value in loaded.overrides.items():
        with contextlib.suppress(RecipeError):
            refuse_expanded(json.dumps({path: value}, ensure_ascii=False), path)
            safe[path] = value
    return loaded.base if len(safe) == len(loaded.overrides) else loaded.text, safe


def _describe(client: Any, text: str) -> None:
    """Give the next run a description: kfp's client has no argument for it."""
    create = client._run_api.run_service_create_run

    def described(run: Any) -> Any:
        run.description = text or None
        return create(run=run)

    client._run_api.run_service_create_run = described


def follow(
    client: Any,
    host: str,
    run_id: str,
    store: Store,
    waits: Callable[[], dict[str, str]],
    namespace: str = STANDALONE,
) -> None:
    """Print each change until the run is over. Raises RunFailed unless it SUCCEEDED."""
    states: dict[str, str] = {}
    waited: dict[str, str] = {}
    unanswered_since: float | None = None
    while True:
        try:
            with refusals(host):
                state = client.get_run(run_id).state
            states, lines = changes(states, records.read(store, run_id))
            unanswered_since = None
        except (SubmitError, StoreError) as error:
            unanswered_since = unanswered_since or time.monotonic()
            if time.monotonic() - unanswered_since > PATIENCE_S:
                raise SubmitError(
                    f"{error}\nThe run continues; only this terminal stopped watching: "
                    f"{_page(host, run_id)}"
                ) from None
            time.sleep(POLL_S)
            continue
        now = waits() if state not in ENDED else {}
        lines += [
            f"{who:<10} waits: {why}"
            for who, why in now.items()
            if _lasting(why) != _lasting(waited.get(who, ""))
        ]
        waited = now
        for line in lines:
            out(line)
        if state in ENDED:
            break
        time.sleep(POLL_S)
    _conclude(state, run_id, store, namespace)


def _conclude(state: str, run_id: str, store: Store, namespace: str) -> None:
    page = f"{store.root}/runs/{run_id}/report.html"
    there = True
    with contextlib.suppress(StoreError):  # the run has ended as it has
        there = store.exists(page)
    out(f"\nKubeflow: {state}   {f'report: {page}' if there else 'there is no report'}")
    if state == "SUCCEEDED":
        return
    unrecorded = (
        f"the run is {state}, but no stage recorded an error: a task's pod did not start or was "
        "ended from outside (image, "
        f"secret, quota, time-out, terminated). Look at it: kubectl describe pod -n {namespace} "
        f"-l {RUN_LABEL}={run_id}"
    )
    raise RunFailed(records.failure(records.read(store, run_id)) or unrecorded)


def waiting(run_id: str, namespace: str) -> Callable[[], dict[str, str]]:
    """Return a function that returns, by stage, what its pod waits for.

    If that cannot be read, it prints why, once.
    """
    try:
        cluster: Cluster | None = Cluster.connect(namespace)
    except ClusterError as error:
        out(f"(what a pod waits for is not shown: {error})")
        cluster = None

    def look() -> dict[str, str]:
        nonlocal cluster
        if cluster is None:
            return {}
        try:
            found = cluster.list(PODS, f"{RUN_LABEL}={run_id}", fields="status.phase=Pending")
            return dict(_waits(cluster, found))
        except ClusterError as error:
            out(f"(what a pod waits for is not shown: {error})")
            cluster = None
            return {}

    return look


def _lasting(why: str) -> str:
    """Return the text without the seconds, which always change."""
    return re.sub(r", for \d+ s", "", why)


def _waits(cluster: Any, found: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    for pod in found:
        if (
            time.time() - datetime.fromisoformat(pod["metadata"]["creationTimestamp"]).timestamp()
            < USUAL_S
        ):
            continue
        name, labels = pod["metadata"]["name"], pod["metadata"].get("labels") or {}
        events = pods.latest_events(cluster.events(name), most=1)
        yield (
            labels.get(names.STAGE) or _driver(pod["metadata"]) or name,
            pods.waits_for(pod, time.time(), events[-1] if events else ""),
        )


def _driver(metadata: dict[str, Any]) -> str:
    """Return `driver of generate` for a pod of Kubeflow's own, from its node's name in the
    workflow; empty for other pods."""
    node = (metadata.get("annotations") or {}).get("workflows.argoproj.io/node-name", "")
    task, found, _ = node.rpartition(".")[2].partition("-driver")
    return f"driver of {task}" if found and task else ""
