"""What `moaa evaluate` does: the stage `evaluate` for models that no run made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from moaa import home, records
from moaa.benchmarks.table import chosen
from moaa.errors import RecipeError
from moaa.progress.messages import say
from moaa.progress.terminal import out
from moaa.recipe.load import Loaded, load_file
from moaa.recipe.read import dump
from moaa.recipe.schema import Recipe
from moaa.report import Run, build, summary
from moaa.stages.evaluate import evaluate as stage
from moaa.stages.prompts import prompts
from moaa.stages.table import EVALUATE, PROMPTS, STAGES_ENV, stages
from moaa.store import Store
from moaa.task import Task

TRAINED = ("sft", "dpo")
"""Contestants that only a run has."""
LIKE_TARGET = ("dtype", "max_model_len", "tensor_parallel", "pool")
"""What a named model takes from the target unless `--set` says otherwise."""


def evaluate(file: Path, sets: Sequence[str], named: Sequence[str]) -> None:
    """Measure the recipe's base (and what else is a contestant) and the named models."""
    loaded = _with_models(file, sets, dict(map(_name_and_source, named)))
    recipe = loaded.recipe
    run_id = home.new_id(f"{recipe.name[:24]}-evaluate")
    folder = home.HOME / "runs" / run_id
    folder.mkdir(parents=True, exist_ok=True)
    home.remember(run_id, recipe.store.model_dump(exclude_defaults=True))
    with home.s3_environment(recipe.store.endpoint_url) as s3, _stages():
        say(f"{run_id}: store {recipe.store.root} at {s3}")
        inputs: dict[str, str] = {}
        if any(not benchmark.sources for benchmark in chosen(recipe)):
            inputs["prompts"] = str(folder / "prompts.json")
            # Nothing is trained: no prompt has to be kept away from a benchmark.
            held_out = Task(loaded.text, run_id, {"evaluate.benchmarks": {}})
            prompts.main(held_out, output=inputs["prompts"])
        stage.main(Task(loaded.text, run_id), inputs, output=str(folder / "scores.json"))
        store = Store.of(recipe.store)
        view = Run.of(records.read(store, run_id), stages())
        page = folder / "report.html"
        page.write_text(build(view, store), encoding="utf-8")
    out(f"\n{summary(view)}\n\nreport: {page}")


def _name_and_source(text: str) -> tuple[str, str]:
    name, equals, source = text.partition("=")
    if not (name and equals and source):
        raise RecipeError(
            f"--model {text}: write NAME=SOURCE, for example production=s3://bucket/model or "
            "gpt=https://host/v1."
        )
    return name, source


def _with_models(file: Path, sets: Sequence[str], named: dict[str, str]) -> Loaded:
    """The recipe with the named models in `models` and among the contestants."""
    given = load_file(file, sets).recipe
    kept = [name for name in given.evaluate.contestants if name not in TRAINED]
    contestants = [*kept, *(name for name in named if name not in kept)]
    first = [f"models.{name}={_model(given, name, source)}" for name, source in named.items()]
    return load_file(file, [*first, f"evaluate.contestants={contestants}", *sets])


def _model(recipe: Recipe, name: str, source: str) -> str:
    """The fields of a named model, as `--set` takes them. Raises RecipeError if the recipe has
    another model of this name."""
    known = recipe.models.get(name)
    if known and source not in (known.source, known.endpoint and known.endpoint.url):
        raise RecipeError(
            f"--model {name}={source}: the recipe's models.{name} is {known.source}. Give this "
            "one another name."
        )
    if known:
        return dump(known.model_dump(mode="json", exclude_defaults=True), flow=True)
    if source.startswith(("http://", "https://")):
        return dump({"source": name, "endpoint": {"url": source}}, flow=True)
    target = recipe.models[recipe.target].model_dump(mode="json", exclude_defaults=True)
    like = {key: target[key] for key in LIKE_TARGET if key in target}
    return dump({"source": source, **like}, flow=True)


@contextmanager
def _stages() -> Iterator[None]:
    with home.variables({STAGES_ENV: f"{PROMPTS.name},{EVALUATE.name}"}):
        yield
