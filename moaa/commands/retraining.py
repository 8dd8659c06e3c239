"""`moaa retrain`: compares, plans, locks, runs with the gate, and prints the result."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from moaa import home
from moaa.artifacts.owner import Owner
from moaa.commands.pipeline import Kubeflow, kubeflow_needed
from moaa.errors import MoaaError, RecipeError, StoreError
from moaa.lifeline import interruptible
from moaa.progress.messages import log
from moaa.progress.terminal import out
from moaa.recipe.load import Loaded, load_file
from moaa.recipe.schema import Recipe
from moaa.retrain import budget, inputs, junit, markdown, progress
from moaa.retrain.account import Account, differences, headline
from moaa.retrain.comparison import compare
from moaa.retrain.outcome import RetrainOutcome
from moaa.stages.table import of_recipe
from moaa.store import Store

if TYPE_CHECKING:
    from moaa.retrain.ways import Way

FILES: Final[Mapping[str, Callable[[Account], str]]] = {
    "retrain.json": lambda it: json.dumps(it.to_json(), indent=1, ensure_ascii=False) + "\n",
    "retrain.md": markdown.page,
    "retrain.xml": junit.document,
}
"""The files in `--output DIR`, besides the run's report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrainOptions:
    """What the user typed, besides the recipe."""

    kubeflow: Kubeflow | None
    """Where the run is submitted. None: a Job in the cluster, or this machine."""
    in_cluster: bool
    namespace: str | None
    wait: bool
    plan_only: bool
    budget_usd: float | None
    budget_gpu_hours: float | None
    patience_s: float
    """How long to wait for another retraining of the model."""
    output: Path | None


def retrain(file: Path, sets: list[str], asked: RetrainOptions) -> int:
    """Retrain the recipe's model if an input has changed; return the exit status."""
    loaded = load_file(file, sets)
    account = Account(name=_name(loaded.recipe, file), recipe=str(file), started=_now())
    try:
        with interruptible(), home.s3_environment(loaded.recipe.store.endpoint_url):
            try:
                account.outcome = _outcome(loaded, asked, account)
            except MoaaError as error:
                if os.environ.get("MOAA_DEBUG"):
                    raise
                account.outcome = replace(account.outcome, why=str(error), outside=error.outside)
            finally:
                account.ended = _now()
                if asked.output:
                    _write(account, Store.of(loaded.recipe.store), asked.output)
    except KeyboardInterrupt:
        log.warning("The same command finds the run that was started, and continues it.")
        raise
    outcome = account.outcome
    out(f"\n{headline(account)}")
    if outcome.exit_status:
        log.error(outcome.why)
    else:
        out(outcome.why)
    return outcome.exit_status


def _outcome(loaded: Loaded, asked: RetrainOptions, account: Account) -> RetrainOutcome:
    """Do all steps; fill in the account after each."""
    recipe, store, name = loaded.recipe, Store.of(loaded.recipe.store), account.name
    stages = of_recipe(recipe)
    now = inputs.current(recipe, stages, store)

    def settled() -> RetrainOutcome | None:
        found = compare(recipe, name, now, store)
        account.production, account.inputs = found.production, found.inputs
        account.texts = found.texts
        return found.settled

    if done := settled():
        return done
    for line in differences(account.inputs):
        out(line)
    account.plan = budget.plan_of(recipe, stages)
    begun = progress.read(store, name)
    if not (begun and begun.inputs == now and not begun.state):  # a started run is already paid for
        budget.check(account.plan, asked.budget_usd, asked.budget_gpu_hours)
    if asked.plan_only:
        return RetrainOutcome("planned", f"{_news(account)}; nothing was run")
    with kubeflow_needed():
        from moaa.retrain.run import RetrainRun
    way = _way(asked, recipe)

    def noted(run: str) -> None:
        account.run, account.report = run, f"{store.root}/runs/{run}/report.html"

    run = RetrainRun(loaded, name, now, store, way, noted)
    who = f"the retraining of {name}{_job()}"
    with Owner(store, progress.folder(store, name), who) as lock:
        if other := lock.take(asked.patience_s):
            return RetrainOutcome(
                "busy", f"{other} is running. Try again later, or wait: --wait-for-lock"
            )
        # Another retraining, or a run of an earlier command, may have ended since then.
        return settled() or run.found() or settled() or run.new(_now())


def _news(account: Account) -> str:
    """Return why a run would be started."""
    if account.production is None:
        return f"no version of {account.name} is in production yet"
    changed = len(account.changed)
    return f"{changed} {'input has' if changed == 1 else 'inputs have'} changed"


def _name(recipe: Recipe, file: Path) -> str:
    """Return the published model's name. Raises RecipeError if the recipe publishes none."""
    if name := recipe.publishes_as:
        return name
    missing = "publish: {}" if recipe.gate else "gate: {}\n  publish: {}"
    raise RecipeError(
        f"{file}: the recipe publishes no model, so nothing can be retrained. Add to "
        f"it, with the defaults (docs/gate.md):\n  {missing}"
    )


def _way(asked: RetrainOptions, recipe: Recipe) -> Way:
    from moaa.retrain import ways

    if to := asked.kubeflow:
        return ways.OnKubeflow(to.host, to.experiment, to.namespace, to.wait)
    if asked.in_cluster:
        return ways.InCluster(asked.namespace or recipe.runtime.cluster.namespace, asked.wait)
    return ways.Local()


def _write(account: Account, store: Store, folder: Path) -> None:
    """Write the files, and a copy of the run's report if there is one."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in FILES.items():
        (folder / name).write_text(text(account), encoding="utf-8")
    if account.report:
        with suppress(StoreError):  # the account has its address
            store.download(account.report, folder / "report.html")
    out(f"written: {folder}/ ({', '.join(FILES)})")


def _job() -> str:
    """Return the CI job that this is, as an address or a name; empty outside a CI."""
    given = os.environ.get
    if url := given("CI_JOB_URL"):  # GitLab
        return f" by {url}"
    if run := given("GITHUB_RUN_ID"):
        return f" by {given('GITHUB_SERVER_URL')}/{given('GITHUB_REPOSITORY')}/actions/runs/{run}"
    return ""


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
