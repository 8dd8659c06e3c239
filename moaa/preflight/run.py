"""The run that preflight checks: which models it starts, loads and trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moaa.declaration import Declaration
from moaa.recipe.schema import Recipe
from moaa.store import Store


@dataclass(frozen=True)
class PlannedRun:
    """A recipe, its store, and the stages of the run from first to last."""

    recipe: Recipe
    store: Store
    stages: Sequence[Declaration]
    local: bool
    """Whether engines and trainings of kind 'process' start on this machine."""

    @property
    def trains(self) -> bool:
        """Return whether a stage trains."""
        return any(stage.trains for stage in self.stages)

    @property
    def serves_tuned(self) -> bool:
        """Return whether a stage asks the models that the run trains."""
        return any(stage.tuned for stage in self.stages)

    @property
    def started(self) -> set[str]:
        """Return the models that the stages ask and that have no endpoint."""
        asked = {name for stage in self.stages for name in stage.models(self.recipe)}
        return {name for name in asked if not self.recipe.models[name].endpoint}

    @property
    def loaded(self) -> set[str]:
        """Return the models that this machine loads, for engines or trainings."""
        runtime = self.recipe.runtime
        if not self.local:
            return set()
        loaded = self.started if runtime.engines.kind == "process" else set()
        if runtime.launcher.kind == "process" and self.trains:
            loaded |= {self.recipe.target}  # its weights, even if an endpoint serves it
        return loaded
