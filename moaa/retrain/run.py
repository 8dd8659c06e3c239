"""The run of a retraining: continue the one that an earlier command started, or start one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from moaa import home, records
from moaa.pipelines.outcome import RunFailed
from moaa.progress.messages import log, say
from moaa.recipe.load import Loaded
from moaa.retrain import progress
from moaa.retrain.outcome import RetrainOutcome, of_run
from moaa.retrain.progress import Begun
from moaa.retrain.ways import Way
from moaa.store import Store

LONGEST: Final = 38
"""The most characters of the recipe's name in a run's label, which is also a Job's name."""


@dataclass(frozen=True, slots=True)
class RetrainRun:
    """The run of the model `name`. Use it only while you hold the model's lock."""

    loaded: Loaded
    name: str
    inputs: dict[str, str]
    store: Store
    way: Way
    noted: Callable[[str], None]
    """Called with the run's id."""

    def found(self) -> RetrainOutcome | None:
        """Continue the run of an earlier command; None if a new run must be started."""
        begun = progress.read(self.store, self.name)
        if not begun or begun.state:
            return None
        if begun.way != self.way.about():
            where = ", ".join(f"{key} {value}" for key, value in begun.way.items() if value)
            log.warning(f"the run started at {begun.started} on {where} is not continued here")
            return None
        run, state = self.way.state(begun.run, begun.label)
        alike = begun.inputs == self.inputs
        if state == "none" or (state == "paused" and not alike):
            return None
        begun = replace(begun, run=run)
        if state == "over":
            why = records.failure(records.read(self.store, run))
            say(f"run {run} of an earlier command failed: {why or 'it left no reason'}")
            return None
        if state != "done":
            say(f"continues run {run}, which an earlier command started at {begun.started}")
        if state == "running" and not self.way.waits:
            self.noted(run)
            return RetrainOutcome(
                "busy", f"run {run}, started at {begun.started}, goes on (see --wait)"
            )
        self.noted(run)
        failure = None if state == "done" else _failure(lambda: self.way.go_on(self.loaded, run))
        outcome = self._concluded(begun, failure)
        if alike:
            return outcome
        say(f"run {run} had other inputs and is {outcome.state}: a new one is started")
        return None

    def new(self, now: str) -> RetrainOutcome:
        """Start a run. `now` is the time, ISO 8601."""
        label = home.new_id(self.loaded.recipe.name[:LONGEST].rstrip("-"))
        begun = Begun(label=label, way=self.way.about(), inputs=self.inputs, started=now)
        progress.write(self.store, self.name, begun)

        def noted(run: str) -> None:
            nonlocal begun
            begun = replace(begun, run=run)
            progress.write(self.store, self.name, begun)
            self.noted(run)

        failure = _failure(lambda: self.way.begin(self.loaded, label, noted))
        if not self.way.waits and not failure:
            return RetrainOutcome(
                "started", f"run {begun.run}; this command does not wait for it (see --wait)"
            )
        return self._concluded(begun, failure)

    def _concluded(self, begun: Begun, failure: RunFailed | None) -> RetrainOutcome:
        """Read the result, and write it down. After an outside fault the run has not ended: the
        next command continues it."""
        if failure and failure.outside:
            return RetrainOutcome("failed", str(failure), outside=True)
        outcome = of_run(records.read(self.store, begun.run))
        if failure:
            outcome = replace(outcome, state="failed", why=str(failure))
        progress.write(self.store, self.name, begun.over(outcome))
        return outcome


def _failure(run: Callable[[], None]) -> RunFailed | None:
    """Return why the run failed; None if it did not."""
    try:
        run()
    except RunFailed as error:
        return error
    return None
