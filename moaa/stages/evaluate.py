"""Measures the models: benchmarks answered, judged and scored, for all contestants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from moaa.artifacts import Artifact
from moaa.benchmarks import Benchmark, Entrant, data, guard
from moaa.benchmarks.faults import unexpected
from moaa.benchmarks.head_to_head import win_rates
from moaa.benchmarks.table import chosen
from moaa.chat.controls import Controls
from moaa.recipe.evaluation import HEAD_TO_HEAD, PRODUCTION, Benchmarks, Judged
from moaa.recipe.schema import Judge, Mixture, Model, Recipe, Sampling
from moaa.sandbox.run import Sandbox, why_not
from moaa.stage import Context, stage
from moaa.stages import canary, production_version
from moaa.stages.answers_and_judges import tally_of
from moaa.stages.benchmark_run import BenchmarkRun, Rules, run_all, set_up
from moaa.stages.benchmark_tables import written
from moaa.stages.judgements import report, with_instructions
from moaa.stages.serving import tuned
from moaa.stages.table import EVALUATE
from moaa.stages.texts import TextPart, control_texts, with_instruction
from moaa.store import Store
from moaa.weights.content import of_asked


class EvaluatePart(TextPart):
    """What the scores depend on."""

    sampling: Sampling
    judge: Judge
    target: str
    models: dict[str, Any]
    contestants: tuple[str, ...] = ("base", "sft", "dpo")
    benchmarks: Benchmarks = Benchmarks()
    mixture: Mixture | None = None
    canary: str = ""
    """The contestant whose canary set a published version will need;
    empty if nothing is published."""


def part_of(recipe: Recipe) -> EvaluatePart:
    """Return the stage's part of the recipe."""
    evaluate, mixture = recipe.evaluate, recipe.generate.mixture
    return EvaluatePart(
        sampling=evaluate.sampling,
        judge=with_instructions(recipe.evaluation_judge),
        target=recipe.target,
        models=recipe.identities(recipe.evaluation_models | {recipe.target}),
        contestants=evaluate.contestants,
        benchmarks=_with_texts(evaluate.benchmarks),
        mixture=with_instruction(mixture) if "mixture" in evaluate.contestants else None,
        control_texts=control_texts(recipe),
        canary=recipe.gate.candidate if recipe.gate and recipe.publish else "",
    )


def _with_texts(benchmarks: Benchmarks) -> Benchmarks:
    """Return the settings with the instructions of their judges as text."""
    found: dict[str, Any] = {}
    for name in Benchmarks.model_fields:
        settings = getattr(benchmarks, name)
        if isinstance(settings, Judged) and settings.judge:
            judge_with = with_instructions(settings.judge)
            found[name] = settings.model_copy(update={"judge": judge_with})
    return benchmarks.model_copy(update=found) if found else benchmarks


def content_of(
    recipe: Recipe, store: Store, inputs: Mapping[str, Artifact] = MappingProxyType({})
) -> dict[str, str]:
    """Return the current content of the models and the questions, and which version is in
    production. Questions that cannot be read are noted: when they can be read, it is another
    evaluation."""
    return (
        of_asked(recipe, EVALUATE.models(recipe), store)
        | guard.contents(recipe, store)
        | production_version.content(recipe, store, inputs)
    )


@stage(EVALUATE, part=part_of, content=content_of, schema=9)
def evaluate(part: EvaluatePart, context: Context) -> None:
    """Let all contestants answer and the judges judge; write answers, judgements and scores."""
    rules = Rules(
        part.sampling,
        Controls(part.control_texts),
        {"sampling": part.sampling.model_dump(mode="json"), "controls": list(part.control_texts)},
        context.recipe.runtime.max_rejected_share,
        Sandbox(context.recipe.runtime).run,
    )
    contestants, served = contestants_of(part, context)
    runs = [_run_of(benchmark, contestants, rules, context) for benchmark in chosen(context.recipe)]
    canaries = [
        canary.run_of(contestants[who], rules, context) for who in contestants if who == part.canary
    ]
    run_all([*(run for run in runs if not run.failed), *canaries], rules, served, context)
    for run in canaries:
        canary.write(run, context)
    found: dict[str, dict[str, Any]] = {}
    for run in runs:
        tally, name = tally_of(run), run.benchmark.name
        found[name] = written(run, tally, context)
        if name == HEAD_TO_HEAD and not run.failed:
            # The facts that every report shows.
            report(tally, run.benchmark.judge, context)
            context.facts["win_rates"] = win_rates(found[name]["scores"])
            context.facts["lengths"] = found[name]["lengths"]
    context.facts["benchmarks"] = found
    context.facts["contestants"] = list(contestants)
    context.again = any(each["failed"] or each["failures"] for each in found.values())


def contestants_of(
    part: EvaluatePart, context: Context
) -> tuple[dict[str, Entrant], dict[str, Model]]:
    """Return who is measured, by name, and every model that may be asked.

    Without an input `sft` or `dpo` these are left out: they were not trained. The version in
    production has the identity of the training that made it, so the answers that it gave as a
    candidate are found again.
    """
    recipe = context.recipe
    served = {name: recipe.models[name] for name in sorted(part.models)}
    # What is trained is served with the target's arguments.
    files = {key: held for key, held in context.content.items() if _is_file(key, part.target)}
    found: dict[str, Entrant] = {}
    for name in part.contestants:
        if name in ("sft", "dpo"):
            if artifact := context.inputs.get(name):
                asked, served[asked] = tuned(recipe.models[part.target], part.target, artifact)
                identity = {**served[asked].identity(), "source": artifact.fingerprint, **files}
                found[name] = Entrant(name, identity, model=asked)
        elif name == "mixture":
            assert part.mixture
            members = _identity(part.mixture.models, context)
            mixture = {"mixture": part.mixture.model_dump(mode="json"), **members}
            found[name] = Entrant(name, mixture, mixture=part.mixture)
        else:
            asked = part.target if name == "base" else name
            found[name] = Entrant(name, _identity({asked}, context)[asked], model=asked)
    if uri := context.content.get(PRODUCTION):
        version = production_version.opened(context.store, uri)
        asked = f"{part.target}+{PRODUCTION}"
        _, served[asked] = tuned(recipe.models[part.target], part.target, version.artifact)
        identity = {**served[asked].identity(), "source": version.model, **files}
        # Before the trained ones: the later of a pair gives the name, `dpo against production`.
        named = list(found.items())
        named.insert(1, (PRODUCTION, Entrant(PRODUCTION, identity, model=asked)))
        found = dict(named)
    return found, served


def _identity(models: frozenset[str] | set[str], context: Context) -> dict[str, Any]:
    """Return what decides the answers of these models:
    their fields, and the content of their sources."""
    return {
        name: {
            **context.recipe.models[name].identity(),
            **{key: held for key, held in context.content.items() if _is_of(key, name)},
        }
        for name in sorted(models)
    }


def _is_of(key: str, model: str) -> bool:
    return key == f"models.{model}" or _is_file(key, model)


def _is_file(key: str, model: str) -> bool:
    """Return whether it is a file in the model's engine arguments."""
    return key.startswith(f"models.{model}: ")


def _run_of(
    benchmark: Benchmark[Any],
    contestants: Mapping[str, Entrant],
    rules: Rules,
    context: Context,
) -> BenchmarkRun:
    """Return the benchmark with its questions. Without them it has failed, and says why."""
    run = BenchmarkRun(benchmark)
    if benchmark.runs_programs and (reason := why_not(context.recipe.runtime)):
        run.fail(reason)
        return run
    try:
        if benchmark.sources:
            items, run.pinned = guard.questions(benchmark, context.store)
        else:
            items = benchmark.items(context.inputs["prompts"].rows("evaluation"))
        run.items = benchmark.limited(items)
        if run.items:
            _enter(run, contestants, rules, context)
        else:
            run.fail("the run has no held-out prompts (prompts.evaluation)")
    except guard.UNREADABLE as error:
        run.fail(f"its questions cannot be read: {error}")
    except Exception as error:
        reason = unexpected(error, f"{benchmark.title}, its questions")
        run.fail(f"its questions cannot be read: {reason}")
    return run


def _enter(
    run: BenchmarkRun, contestants: Mapping[str, Entrant], rules: Rules, context: Context
) -> None:
    """Give the benchmark its entrants and their batches."""
    benchmark = run.benchmark
    how: dict[str, Any] = {}
    if benchmark.measures == "models":
        run.entrants = contestants
        how = _judge_identity(benchmark.judge, context) if benchmark.judges else {}
    else:
        run.entrants = {
            each.name: replace(each, identity=_judge_identity(each.judge, context))
            for each in benchmark.entrants()
            if each.judge
        }
    set_up(run, data.identity(run.items), how, rules)


def _judge_identity(given: Judge, context: Context) -> dict[str, Any]:
    return {
        "judge": with_instructions(given).model_dump(mode="json"),
        "models": list(_identity(given.models, context).items()),
    }
