"""Every stage of the pipeline, declared once, in the order in which they run.

A stage of your own goes into a package of yours: docs/extending.md.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import Any, Final

from moaa.declaration import Declaration, RoleCalls, needed_by
from moaa.errors import RecipeError
from moaa.plan import calls
from moaa.recipe.schema import Recipe
from moaa.report.headlines import loss, promoted, published, verdict, win_rate
from moaa.report.words import count

RowCounts = Mapping[str, int]
Facts = Mapping[str, Any]

STAGES_ENV: Final = "MOAA_STAGES"
"""The variable with the names of the run's stages, separated by commas; the runner sets it."""
GROUP: Final = "moaa.stages"
"""The entry points under which other packages declare stages."""


def _evaluation_calls(recipe: Recipe) -> Iterable[RoleCalls]:
    from moaa.benchmarks.table import calls  # loads numpy

    return calls(recipe)


def _evaluation_packages(recipe: Recipe) -> frozenset[str]:
    from moaa.benchmarks.table import chosen

    return frozenset(package for each in chosen(recipe) for package in each.packages)


PREFLIGHT = Declaration(
    name="preflight",
    purpose="Checks before anything is paid for",
    entry="moaa.stages.preflight:main",
    component="moaa.components.preflight.component:preflight",
    headline=lambda rows, facts: f"{len(facts.get('findings', []))} checks passed",
    hours=0.5,
    cached=False,
    keys=True,
)
PROMPTS = Declaration(
    name="prompts",
    purpose="Three disjoint sets of prompts",
    entry="moaa.stages.prompts:prompts",
    component="moaa.components.prompts.component:prompts",
    outputs={"prompts": "Dataset"},
    kind="prompts",
    unit="prompts",
    headline=lambda rows, facts: f"{count(rows['kept'])} prompts",
    hours=12,
)
GENERATE = Declaration(
    name="generate",
    purpose="A mixture of agents writes the data",
    entry="moaa.stages.generate:generate",
    component="moaa.components.generate.component:generate",
    inputs={"prompts": "prompts.prompts"},
    outputs={"sft_data": "Dataset"},
    kind="sft-data",
    unit="conversations",
    asks=lambda recipe: recipe.generating,
    calls=calls.of_generate,
    headline=lambda rows, facts: f"{count(rows['kept'])} conversations",
    hours=144,
    keys=True,
)
SFT = Declaration(
    name="sft",
    purpose="The target is tuned on it",
    entry="moaa.stages.sft:sft",
    component="moaa.components.sft.component:sft",
    inputs={"data": "generate.sft_data"},
    outputs={"sft_model": "Model"},
    kind="model",
    unit="steps",
    training=calls.of_sft,
    headline=lambda rows, facts: loss(facts),
    hours=144,
)
SAMPLE = Declaration(
    name="sample",
    purpose="The tuned model answers",
    entry="moaa.stages.sample:sample",
    component="moaa.components.sample.component:sample",
    inputs={"prompts": "prompts.prompts", "model": "sft.sft_model"},
    outputs={"samples": "Dataset"},
    chosen=lambda recipe: recipe.prefers,
    kind="samples",
    unit="prompts",
    tuned=1,
    calls=calls.of_sample,
    headline=lambda rows, facts: f"{count(rows['kept'])} prompts",
    hours=48,
    keys=True,
)
LABEL = Declaration(
    name="label",
    purpose="A labeller ranks the answers",
    entry="moaa.stages.label:label",
    component="moaa.components.label.component:label",
    inputs={"samples": "sample.samples"},
    outputs={"preferences": "Dataset"},
    chosen=lambda recipe: recipe.prefers,
    kind="preferences",
    unit="prompts",
    asks=lambda recipe: recipe.label.models_of(recipe.label.labeller),
    calls=calls.of_label,
    headline=lambda rows, facts: f"{count(rows['pairs'])} pairs",
    hours=144,
    keys=True,
)
DPO = Declaration(
    name="dpo",
    purpose="Tuned again, on the preferences",
    entry="moaa.stages.dpo:dpo",
    component="moaa.components.dpo.component:dpo",
    inputs={"preferences": "label.preferences", "sft": "sft.sft_model"},
    outputs={"dpo_model": "Model"},
    chosen=lambda recipe: recipe.prefers,
    kind="model",
    unit="steps",
    training=calls.of_dpo,
    headline=lambda rows, facts: loss(facts),
    hours=144,
)
EVALUATE = Declaration(
    name="evaluate",
    purpose="Benchmarks of all contestants",
    entry="moaa.stages.evaluate:evaluate",
    component="moaa.components.evaluate.component:evaluate",
    inputs={"prompts": "prompts.prompts", "sft": "sft.sft_model", "dpo": "dpo.dpo_model"},
    optional=frozenset({"dpo"}),
    outputs={"scores": "Dataset"},
    kind="scores",
    unit="answers and judgements",
    asks=lambda recipe: recipe.evaluation_models,
    tuned=2,
    production=True,
    base=True,
    calls=_evaluation_calls,
    headline=lambda rows, facts: win_rate(facts),
    hours=48,
    keys=True,
    packages=_evaluation_packages,
)
GATE = Declaration(
    name="gate",
    purpose="Whether the model may be published",
    entry="moaa.stages.gate:gate",
    component="moaa.components.gate.component:gate",
    inputs={"scores": "evaluate.scores"},
    outputs={"decision": "Dataset"},
    chosen=lambda recipe: recipe.gate is not None,
    kind="decision",
    unit="rules",
    headline=lambda rows, facts: verdict(facts),
    hours=1,
    cached=False,
)
PUBLISH = Declaration(
    name="publish",
    purpose="A version that can be served, with its card",
    entry="moaa.stages.publish:publish",
    inputs={
        "decision": "gate.decision",
        "scores": "evaluate.scores",
        "sft": "sft.sft_model",
        "dpo": "dpo.dpo_model",
    },
    optional=frozenset({"dpo"}),
    outputs={"version": "Dataset"},
    chosen=lambda recipe: recipe.publish is not None,
    kind="version",
    unit="versions",
    headline=lambda rows, facts: published(facts),
    hours=6,
    cached=False,
)
PROMOTE = Declaration(
    name="promote",
    purpose="The version comes into production",
    entry="moaa.stages.promote:promote",
    inputs={"version": "publish.version", "decision": "gate.decision"},
    outputs={"production": "Dataset"},
    chosen=lambda recipe: recipe.promote is not None,
    kind="promotion",
    unit="versions",
    headline=lambda rows, facts: promoted(facts),
    hours=12,
    cached=False,
)
REPORT = Declaration(
    name="report",
    purpose="The run as one page",
    entry="moaa.stages.report:main",
    component="moaa.components.report.component:report",
    hours=1,
    cached=False,
)
"""Runs last, whatever happened before; not one of STAGES."""

STAGES: Final = (
    PREFLIGHT,
    PROMPTS,
    GENERATE,
    SFT,
    SAMPLE,
    LABEL,
    DPO,
    EVALUATE,
    GATE,
    PUBLISH,
    PROMOTE,
)


@cache
def stages() -> tuple[Declaration, ...]:
    """Return all stages in the order in which they run: ours, and those that installed packages
    declare.

    A declared stage comes right after the last stage whose output it takes, or last if it takes
    none. Raises RecipeError if its declaration cannot be used.
    """
    found = list(STAGES)
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        declared = entry.load()
        if problem := _problem(declared, found):
            raise RecipeError(
                f"the stage '{entry.name}' of {entry.value} {problem}. Correct its Declaration, or "
                f"uninstall the package that declares it (entry point group {GROUP})."
            )
        names = [stage.name for stage in found]
        behind = max((names.index(name) for name in needed_by(declared)), default=len(names) - 1)
        found.insert(behind + 1, declared)
    return tuple(found)


def up_to(name: str) -> tuple[Declaration, ...]:
    """Return the stages of a run up to this one. Raises RecipeError if there is no such stage."""
    names = [stage.name for stage in stages()]
    if name not in names:
        raise RecipeError(f"'{name}' is not a stage; the stages are {', '.join(names)}")
    return stages()[: names.index(name) + 1]


def of_recipe(recipe: Recipe, until: str | None = None) -> tuple[Declaration, ...]:
    """Return the stages of the recipe's runs, up to `until` if it is given.

    Raises RecipeError if there is no such stage, or if the recipe does not have it.
    """
    found = stages() if until is None else up_to(until)
    wanted = tuple(stage for stage in found if stage.chosen is None or stage.chosen(recipe))
    if until is not None and found[-1] not in wanted:
        raise RecipeError(
            f"the recipe {recipe.name} has no stage '{until}': it has no field `{until}`. "
            f"Write `{until}: {{}}` to get its defaults, or name another stage."
        )
    return wanted


def of_run(recipe: Recipe) -> tuple[Declaration, ...]:
    """Return the stages of the run of this process:
    those of the runner, else those of the recipe."""
    named = os.environ.get(STAGES_ENV)
    if named is None:
        return of_recipe(recipe)
    return tuple(stage for stage in stages() if stage.name in named.split(","))


def _problem(declared: object, found: list[Declaration]) -> str | None:
    if not isinstance(declared, Declaration):
        return f"is a {type(declared).__name__}, not a Declaration"
    if declared.name in {stage.name for stage in (*found, REPORT)}:
        return "has the name of another stage"
    known = {f"{stage.name}.{output}" for stage in found for output in stage.outputs}
    if unknown := sorted(set(declared.inputs.values()) - known):
        return f"takes {', '.join(unknown)}; the outputs are {', '.join(sorted(known))}"
    return None
