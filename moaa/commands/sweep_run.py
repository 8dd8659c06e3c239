"""`moaa sweep`: prices the variants, runs them within the budget, and compares them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from moaa import home, records, sweeps
from moaa.commands import sweep_submission
from moaa.commands.pipeline import Kubeflow
from moaa.commands.sweep_submission import RUNS, JobBackend, KubeflowBackend
from moaa.errors import MoaaError, RecipeError
from moaa.kubernetes.names import RUN_ENV
from moaa.lifeline import interruptible
from moaa.progress.messages import log, say
from moaa.progress.terminal import console, out
from moaa.report.view import RunView
from moaa.stages.table import up_to
from moaa.store import Store
from moaa.sweeps.pricing import within

LOOK_EVERY_S = 0.5
STOP_GRACE_S = 60.0
"""How long a run may take to stop: it saves its answers first."""


class SweepFailed(MoaaError):
    """Some variants failed; the others have run."""


def plan(file: Path, budget_usd: float | None = None) -> None:
    """Print the price of each variant and of the whole sweep, and what fits the budget (default:
    the sweep's)."""
    sweep = sweeps.load(file)
    if budget_usd is not None:
        sweep = replace(sweep, budget_usd=budget_usd)
    # A pipe has no width: give the table enough room, and keep each sentence on one line.
    console().print(sweeps.plan_table(sweep, sweeps.priced(sweep.variants, up_to(sweep.until))))


def run(file: Path, at_once: int | None, budget_usd: float | None) -> None:
    """Run the variants that fit the budget, then compare.
    Raises SweepFailed if a variant failed."""
    sweep = sweeps.load(file)
    fitting = _fitting(sweep, budget_usd)
    store = sweep.variants[0].loaded.recipe.store
    (folder_of(sweep) / RUNS).unlink(missing_ok=True)
    with home.s3_environment(store.endpoint_url):
        failed = _Runs(sweep, fitting, at_once or sweep.at_once).run()
        _compare(sweep, {each.variant.name for each in fitting})
    if failed:
        raise SweepFailed(
            f"{len(failed)} of {len(fitting)} variants failed: {', '.join(failed)}. "
            "The same command continues with them; finished stages are reused."
        )


def submit(
    file: Path, budget_usd: float | None, to: Kubeflow | None, namespace: str | None
) -> None:
    """Start the variants that fit the budget on Kubeflow, or in Jobs of a cluster."""
    sweep = sweeps.load(file)
    fitting = _fitting(sweep, budget_usd)
    first = sweep.variants[0].loaded
    place = KubeflowBackend(to) if to else JobBackend(first, namespace)
    sweep_submission.submit(sweep, fitting, place)


def _fitting(sweep: sweeps.Sweep, budget_usd: float | None) -> list[sweeps.Priced]:
    """Return the variants that fit the budget; the others are printed."""
    budget = sweep.budget_usd if budget_usd is None else budget_usd
    planned = sweeps.priced(sweep.variants, up_to(sweep.until))
    _refuse_unpriced(planned, budget)
    fitting = within(planned, budget)
    for each in planned:
        if each not in fitting:
            log.warning(f"{each.variant.name}: not run, over the budget of ${budget:,.2f}")
    return fitting


def compare(file: Path) -> None:
    """Write and print the comparison of all finished runs."""
    sweep = sweeps.load(file)
    with home.s3_environment(sweep.variants[0].loaded.recipe.store.endpoint_url):
        _compare(sweep, {each.name for each in sweep.variants})


def _refuse_unpriced(planned: Sequence[sweeps.Priced], budget: float | None) -> None:
    unknown = [each.variant.name for each in planned if each.lines and each.usd is None]
    if budget is not None and unknown:
        raise RecipeError(
            f"the sweep has a budget, but {', '.join(unknown)} have no price: set "
            "models.*.price or models.*.rate, or leave out the budget."
        )


class _Runs:
    """The runs of a sweep: at most `at_once` at the same time, and never a stage in two of them."""

    def __init__(self, sweep: sweeps.Sweep, planned: Sequence[sweeps.Priced], at_once: int) -> None:
        self._sweep, self._at_once = sweep, at_once
        self._left = list(planned)
        self._running: dict[str, tuple[subprocess.Popen[bytes], sweeps.Priced]] = {}
        self._done: set[str] = set()
        self._failed: list[str] = []
        self.folder = folder_of(sweep)
        self.folder.mkdir(parents=True, exist_ok=True)

    def run(self) -> list[str]:
        """Run all variants; return the names of those that failed."""
        with interruptible():
            try:
                while self._left or self._running:
                    self._begin()
                    time.sleep(LOOK_EVERY_S)
                    self._look()
            finally:
                self._stop()
        return self._failed

    def _begin(self) -> None:
        for each in list(self._left):
            others = [other.keys.values() for _, other in self._running.values()]
            if len(self._running) >= self._at_once:
                return
            if sweeps.may_start(each.keys.values(), others, self._done):
                self._left.remove(each)
                self._running[each.variant.name] = self._started(each), each

    def _started(self, each: sweeps.Priced) -> subprocess.Popen[bytes]:
        variant = each.variant
        sets = [part for text in variant.sets for part in ("--set", text)]
        command = [sys.executable, "-m", "moaa.cli", "run", str(self._sweep.recipe.absolute())]
        command += ["--until", self._sweep.until, *sets]
        environment = os.environ | {RUN_ENV: variant.run_id}
        if self._at_once == 1:
            say(f"variant {variant.name}: run {variant.run_id}")
            return subprocess.Popen(command, env=environment)
        path = self.folder / f"{variant.name}.log"
        say(f"variant {variant.name}: run {variant.run_id}, log {path}")
        with path.open("ab") as log_file:
            return subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=log_file, stderr=log_file
            )

    def _look(self) -> None:
        for name, (process, each) in list(self._running.items()):
            if (status := process.poll()) is None:
                continue
            del self._running[name]
            say(f"variant {name}: {'done' if status == 0 else f'failed (exit status {status})'}")
            if status == 0:
                self._done |= set(each.keys.values())
            else:
                self._failed.append(name)

    def _stop(self) -> None:
        for process, _ in self._running.values():
            process.send_signal(signal.SIGTERM)
        for process, _ in self._running.values():
            try:
                process.wait(STOP_GRACE_S)
            except subprocess.TimeoutExpired:
                process.kill()


def folder_of(sweep: sweeps.Sweep) -> Path:
    """Return the folder of the sweep's page, results and logs."""
    return home.HOME / "sweeps" / sweep.name


def _compare(sweep: sweeps.Sweep, fitting: set[str]) -> None:
    store = Store.of(sweep.variants[0].loaded.recipe.store)
    outcomes, elsewhere = [], sweep_submission.begun(folder_of(sweep))
    for variant in sweep.variants:
        run_id = elsewhere.get(variant.name, {}).get("run", variant.run_id)
        run = RunView.of(records.read(store, run_id), up_to(sweep.until))
        state = "" if variant.name in fitting else "over the budget"
        outcomes.append(sweeps.outcome(variant, run, state))
    folder = folder_of(sweep)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "comparison.html").write_text(sweeps.page(sweep, outcomes), encoding="utf-8")
    found = json.dumps([each.to_json() for each in outcomes], indent=1, ensure_ascii=False)
    (folder / "comparison.json").write_text(found + "\n", encoding="utf-8")
    console().print(sweeps.tables(outcomes))
    out(f"\ncomparison: {folder / 'comparison.html'}")
