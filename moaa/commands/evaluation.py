"""`moaa evaluate`: runs the stage `evaluate` for models that were not made by a run."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from moaa import home, records
from moaa.benchmarks.table import chosen
from moaa.errors import MoaaError, RecipeError
from moaa.kubernetes.names import RUN_ENV
from moaa.pipelines import runner_job
from moaa.progress.messages import log, say
from moaa.progress.terminal import out
from moaa.recipe.addresses import dotted, parse_path
from moaa.recipe.evaluation import OF_RUN
from moaa.recipe.forms import MODEL_NAME, MODEL_NAME_WORDS
from moaa.recipe.load import Loaded, load_file
from moaa.recipe.read import dump
from moaa.recipe.schema import Recipe
from moaa.report import RunView, summary
from moaa.stages import report
from moaa.stages.evaluate import evaluate as stage
from moaa.stages.prompts import prompts
from moaa.stages.table import EVALUATE, PROMPTS, STAGES_ENV, stages
from moaa.store import Store
from moaa.task import Task

TRAINED = ("sft", "dpo")
"""Contestants that only a run has."""
LIKE_TARGET = ("dtype", "max_model_len", "tensor_parallel", "pool")
"""Fields that a named model takes from the target unless `--set` gives others."""


def evaluate(file: Path, sets: Sequence[str], named: Sequence[str]) -> None:
    """Measure the recipe's base, its other contestants and the named models."""
    loaded = _with_models(file, sets, _sources(named))
    recipe = loaded.recipe
    if recipe.runtime.engines.kind == "kubernetes" and "KUBERNETES_SERVICE_HOST" not in os.environ:
        log.warning(
            "runtime.engines.kind is 'kubernetes', and pods cannot usually be reached from outside "
            "their cluster: --in-cluster evaluates in a Job there"
        )
    # The pod of --in-cluster gets the run's name; a replacement pod continues the run.
    run_id = os.environ.get(RUN_ENV) or _new_id(recipe)
    folder = home.HOME / "runs" / run_id
    folder.mkdir(parents=True, exist_ok=True)
    home.remember(run_id, recipe.store.model_dump(exclude_defaults=True))
    with home.s3_environment(recipe.store.endpoint_url) as s3, _stages():
        say(f"{run_id}: store {recipe.store.root} at {s3}")
        try:
            _measure(loaded, run_id, folder)
        except BaseException:
            with suppress(MoaaError):  # the failure itself is shown
                _report(recipe, run_id, folder)
            raise
        found = _report(recipe, run_id, folder)
    out(found)


def evaluate_in_cluster(
    file: Path, sets: Sequence[str], named: Sequence[str], namespace: str | None
) -> None:
    """Create a Job that does the same in the cluster, and follow it."""
    from moaa.pipelines import incluster

    given = _sources(named)
    loaded = _with_models(file, sets, given)
    incluster.start(loaded, work(loaded.recipe, given), namespace, _new_id(loaded.recipe))


def work(recipe: Recipe, named: Collection[str]) -> runner_job.Work:
    """Return the work of the Job's pod. The chart does not know the named models, so the pod has
    room to serve them itself unless a Deployment does. The recipe already has them."""
    weights = [name for name in named if not recipe.models[name].endpoint]
    on_cluster = recipe.runtime.engines.kind == "kubernetes"
    stage = replace(EVALUATE, tuned=len(weights) if on_cluster else 0)
    return runner_job.Work("evaluate", (), (PROMPTS, stage))


def _measure(loaded: Loaded, run_id: str, folder: Path) -> None:
    inputs: dict[str, str] = {}
    if any(not benchmark.sources for benchmark in chosen(loaded.recipe)):
        inputs["prompts"] = str(folder / "prompts.json")
        # Nothing is trained, so no prompt must be kept away from a benchmark.
        held_out = Task(loaded.text, run_id, {"evaluate.benchmarks": {}})
        prompts.main(held_out, output=inputs["prompts"])
    stage.main(Task(loaded.text, run_id), inputs, output=str(folder / "scores.json"))


def _report(recipe: Recipe, run_id: str, folder: Path) -> str:
    """Write the report to the store and to the folder; return its summary with the address."""
    store, page = Store.of(recipe.store), folder / "report.html"
    page.write_text(report.write(store, run_id), encoding="utf-8")
    return f"\n{summary(RunView.of(records.read(store, run_id), stages()))}\n\nreport: {page}"


def _new_id(recipe: Recipe) -> str:
    return home.new_id(f"{recipe.name[:24]}-evaluate")


def _sources(named: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, source in map(_name_and_source, named):
        if name in found:
            raise RecipeError(
                f"--model {name}={source}: '{name}' is {found[name]} already. Give each model a "
                "name of its own."
            )
        found[name] = source
    return found


def _name_and_source(text: str) -> tuple[str, str]:
    name, equals, source = text.partition("=")
    if not (name and equals and source):
        raise RecipeError(
            f"--model {text}: write NAME=SOURCE, for example production=s3://bucket/model or "
            "gpt=https://host/v1."
        )
    if name in OF_RUN:
        raise RecipeError(
            f"--model {text}: '{name}' is a contestant that every run already has "
            f"({', '.join(OF_RUN)}). Give this model another name."
        )
    if not re.fullmatch(MODEL_NAME, name):
        raise RecipeError(
            f"--model {text}: a name is {MODEL_NAME_WORDS}. "
            "What the model is called on its server is --set models.NAME.endpoint.model=…"
        )
    return name, source


def _with_models(file: Path, sets: Sequence[str], named: dict[str, str]) -> Loaded:
    """Return the recipe with the named models in `models` and among the contestants."""
    given = _without_new(file, sets, named)
    kept = [name for name in given.evaluate.contestants if name not in TRAINED]
    contestants = [*kept, *(name for name in named if name not in kept)]
    if not contestants:
        raise RecipeError(
            f"{file}: evaluate.contestants has only {', '.join(given.evaluate.contestants)}, which "
            "a run trains, so there is nobody to measure. Name a model with --model NAME=SOURCE, "
            "or add 'base'."
        )
    first = [
        f"{dotted(('models', name))}={_model(given, name, source)}"
        for name, source in named.items()
    ]
    return load_file(file, [*first, f"evaluate.contestants={contestants}", *sets])


def _without_new(file: Path, sets: Sequence[str], named: Collection[str]) -> Recipe:
    """Return the recipe before the named models are added. What `--set` says about one that it does
    not have, such as models.NAME.endpoint.model, is left out: alone, it is no model."""
    left = [each for each in sets if _field_of(each) not in named]
    recipe = load_file(file, left).recipe
    kept = [each for each in sets if each in left or _field_of(each) in recipe.models]
    return recipe if kept == left else load_file(file, kept).recipe


def _field_of(text: str) -> str | None:
    """Return the model of which a `--set` gives a field; None if it gives something else."""
    match parse_path(text.partition("=")[0].strip()):
        case ("models", str(name), _, *_):
            return name
    return None


def _model(recipe: Recipe, name: str, source: str) -> str:
    """Return the fields of a named model, as a value for `--set`. Raises RecipeError if the recipe
    has another model of this name."""
    known = recipe.models.get(name)
    if known and source not in (known.source, known.endpoint and known.endpoint.url):
        raise RecipeError(
            f"--model {name}={source}: the recipe's models.{name} is {known.source}. Give this "
            "one another name."
        )
    if known:
        return dump(known.model_dump(mode="json", exclude_defaults=True), flow=True)
    if source.startswith(("http://", "https://")):
        # The address is all that is known of such a model: answers of one server must not be
        # those of another, though both models have the same name.
        return dump({"source": source, "endpoint": {"url": source, "model": name}}, flow=True)
    target = recipe.models[recipe.target].model_dump(mode="json", exclude_defaults=True)
    like = {key: target[key] for key in LIKE_TARGET if key in target}
    return dump({"source": source, **like}, flow=True)


@contextmanager
def _stages() -> Iterator[None]:
    with home.variables({STAGES_ENV: f"{PROMPTS.name},{EVALUATE.name}"}):
        yield
