"""Checks that models for scores are reward models: their configuration, and ArmoRM's heads.

An engine would serve a chat model as a reward model, with a head of random numbers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from moaa.errors import MoaaError, RecipeError
from moaa.preflight.finding import Finding, unseen
from moaa.preflight.run import PlannedRun
from moaa.recipe.schema import Model
from moaa.weights import armorm, local, tokenizer

CHECK: Final = "labeller"
SCORES: Final = "ForSequenceClassification"
FIX: Final = "name a reward model (…ForSequenceClassification with one label), or correct its task"


def findings(run: PlannedRun, *, hub_away: bool) -> Iterator[Finding]:
    """Check the models with `task: reward` and `task: embed` that the stages ask.

    `hub_away`: the hub did not answer another check, and is not asked again.
    """
    asked = {name for stage in run.stages for name in stage.models(run.recipe)}
    for name in sorted(asked):
        model = run.recipe.models[name]
        if model.task == "chat" or (hub_away and local.is_hub_id(model.source)):
            continue
        try:
            yield _of(run, name, model)
        except RecipeError as error:
            yield Finding(CHECK, False, f"{name}: {error}", FIX)
        except MoaaError as error:
            yield unseen(CHECK, f"{name}: {str(error).splitlines()[0]}")


def _of(run: PlannedRun, name: str, model: Model) -> Finding:
    if model.task == "embed":
        armorm.heads_of(model, run.store)
        return Finding(CHECK, True, f"{name}: {model.source} has ArmoRM's heads")
    if model.endpoint:
        return unseen(CHECK, f"{name}: the type of a served model is not checked")
    path = tokenizer.folder(model.source, run.store, model.revision) / "config.json"
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    kinds = config.get("architectures") or ["unknown"]
    labels = config.get("num_labels") or len(config.get("id2label") or ()) or 2
    ok = any(kind.endswith(SCORES) for kind in kinds) and labels == 1
    plural = "" if labels == 1 else "s"
    return Finding(CHECK, ok, f"{name}: {', '.join(kinds)} with {labels} label{plural}", FIX)
