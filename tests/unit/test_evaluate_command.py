"""`moaa evaluate`: models that no run made."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from moaa.artifacts import Artifact
from moaa.commands import evaluation
from moaa.commands.evaluation import work
from moaa.errors import RecipeError
from moaa.pipelines import incluster, runner_job
from moaa.recipe.load import Loaded, load_text
from moaa.store import Store
from tests.support.engine_answers import Body
from tests.support.engine_server import EngineServer
from tests.support.kube_server import KubeServer
from tests.support.memory_store import MemoryStore
from tests.support.paths import DEMO, PAPER
from tests.support.stage_run import NO_BENCHMARKS

ROWS = {
    "sft": ["Name a bird.", "Name a fish."],
    "preference": ["Name a tree."],
    "evaluation": ["Why is the sky blue?", "What is the sea made of?"],
}


@pytest.fixture
def sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A store in memory, prompts of our own, and the folder of runs in a place of the test's."""
    store = MemoryStore()
    monkeypatch.setattr("moaa.store.s3.Store.of", lambda config, **more: store)
    monkeypatch.setattr("moaa.home.HOME", tmp_path / "home")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    found = [NO_BENCHMARKS]
    for name, prompts in ROWS.items():
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps({"prompt": each}) + "\n" for each in prompts))
        found.append(f'prompts.{name}=[{{source: "{path}"}}]')
    return found


def scores(tmp_path: Path) -> Artifact:
    (text,) = [each.read_text() for each in (tmp_path / "home/runs").glob("*/scores.json")]
    return Artifact.open(Store.of(None), text)  # type: ignore[arg-type]


def test_named_models_are_measured_beside_the_base(
    sets: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with EngineServer("smollm2", "production") as server:
        sets.append(f"models.smollm2.endpoint={{url: '{server.url}'}}")
        evaluation.evaluate(DEMO, sets, [f"production={server.url}"])
    found = scores(tmp_path)
    assert {row["model"] for row in found.rows("answers")} == {"base", "production"}
    (rate,) = found.manifest.facts["win_rates"]
    assert (rate["model"], rate["against"], rate["n"]) == ("production", "base", 2)
    (page,) = (tmp_path / "home/runs").glob("*/report.html")
    assert "production" in page.read_text()
    assert "production" in capsys.readouterr().out


def _candidate_says(text: str, body: Body) -> str | None:
    return text if body["model"] == "candidate" else None


def test_answers_of_one_server_never_serve_another_of_the_same_name(
    sets: list[str], tmp_path: Path
) -> None:
    with EngineServer("smollm2", "candidate") as one, EngineServer("candidate") as two:
        sets.append(f"models.smollm2.endpoint={{url: '{one.url}'}}")
        for server, says in ((one, "from one"), (two, "from two")):
            server.say = partial(_candidate_says, says)
            evaluation.evaluate(DEMO, sets, [f"candidate={server.url}"])
    store = Store.of(None)  # type: ignore[arg-type]
    answered = {
        tuple(row["record"]["row"]["answers"][0]["text"] for row in batch.rows())
        for uri, _ in store.list(f"{store.root}/evaluation/answers")
        if uri.endswith("/manifest.json")
        for batch in [Artifact.open(store, uri.removesuffix("/manifest.json"))]
        if batch.manifest.facts["who"] == ["candidate"]
    }
    assert answered == {("from one",) * 2, ("from two",) * 2}


def test_fields_of_a_named_model_are_set_beside_it(
    sets: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Loaded] = []
    monkeypatch.setattr(evaluation, "_measure", lambda loaded, *_: found.append(loaded))
    given = [*sets, "models.gpt.endpoint.model=gpt-4.1", 'models."a.b".dtype=float16']
    evaluation.evaluate(DEMO, given, ["gpt=https://host/v1", "a.b=s3://models/ab"])
    gpt, other = (found[0].recipe.models[name] for name in ("gpt", "a.b"))
    assert gpt.endpoint
    assert (gpt.endpoint.url, gpt.endpoint.model) == ("https://host/v1", "gpt-4.1")
    assert (other.source, other.dtype) == ("s3://models/ab", "float16")


def test_in_a_cluster_the_job_makes_room_for_what_no_chart_knows(
    sets: list[str], kube: KubeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recipe in the Job has the named models, so that its pod is told nothing else."""
    monkeypatch.setattr(incluster, "connect", lambda *_, **__: kube.cluster())
    monkeypatch.setattr(incluster, "follow", lambda *_: None)
    cluster = ["runtime.engines.kind=kubernetes", "runtime.launcher.kind=trainer"]
    named = ["candidate=s3://models/candidate", "gpt=https://host/v1"]
    evaluation.evaluate_in_cluster(PAPER, cluster, named, None)
    (job,) = [each for (kind, _), each in kube.objects.items() if kind == "jobs"]
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["command"][-3:] == ["moaa", "evaluate", "/etc/moaa/recipe.yaml"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "2"  # the target and one more
    recipe = load_text(runner_job.recipe_of(job)).recipe
    assert recipe.models["candidate"].source == "s3://models/candidate"
    assert recipe.evaluate.contestants == ("base", "candidate", "gpt")
    assert job["metadata"]["name"].startswith("paper-llama-evaluate-")
    # Without such a model it only asks.
    assert work(recipe, ["gpt"]).stages[1].tuned == 0


def test_the_pod_of_a_cluster_evaluates_under_the_jobs_name(
    sets: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOAA_RUN_ID", "demo-evaluate-1")
    with EngineServer("smollm2") as server:
        sets.append(f"models.smollm2.endpoint={{url: '{server.url}'}}")
        evaluation.evaluate(DEMO, sets, [])
    assert (tmp_path / "home/runs/demo-evaluate-1/report.html").is_file()
    # Where the terminal that follows the Job looks for it.
    store = Store.of(None)  # type: ignore[arg-type]
    assert store.exists(f"{store.root}/runs/demo-evaluate-1/report.html")


def test_an_evaluation_that_fails_leaves_its_report(
    sets: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOAA_RUN_ID", "demo-evaluate-1")
    sets.append("models.smollm2.endpoint={url: 'http://127.0.0.1:9/v1'}")
    monkeypatch.setattr("moaa.engines.ENDPOINT_TIMEOUT_S", 0.1)
    with pytest.raises(SystemExit):
        evaluation.evaluate(DEMO, sets, [])
    assert "127.0.0.1:9" in (tmp_path / "home/runs/demo-evaluate-1/report.html").read_text()


def test_engines_of_a_cluster_are_rarely_reached_from_outside(
    sets: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(evaluation, "_measure", lambda *_: None)
    evaluation.evaluate(DEMO, [*sets, "runtime.engines.kind=kubernetes"], [])
    assert "--in-cluster evaluates in a Job there" in caplog.text


@pytest.mark.parametrize(
    ("model", "why"),
    [
        ("production", "write NAME=SOURCE"),
        ("=s3://a/b", "write NAME=SOURCE"),
        ("smollm2=s3://a/b", "the recipe's models.smollm2 is package:"),
        ("base=s3://a/b", "'base' is a contestant that every run already has"),
        ("qwen 2.5=s3://a/b", r"without spaces.*--set models\.NAME\.endpoint\.model="),
    ],
)
def test_what_is_no_model_is_refused(sets: list[str], model: str, why: str) -> None:
    with pytest.raises(RecipeError, match=why):
        evaluation.evaluate(DEMO, sets, [model])


def test_two_models_of_one_name_are_refused(sets: list[str]) -> None:
    with pytest.raises(RecipeError, match=r"--model a=y: 'a' is x already"):
        evaluation.evaluate(DEMO, sets, ["a=x", "b=x", "a=y"])


def test_a_recipe_that_measures_only_what_a_run_trains_has_nobody(sets: list[str]) -> None:
    trained = [*sets, "evaluate.contestants=[sft, dpo]"]
    with pytest.raises(RecipeError, match="only sft, dpo, which a run trains"):
        evaluation._with_models(DEMO, trained, {})


def test_a_named_model_may_have_a_dot(sets: list[str]) -> None:
    loaded = evaluation._with_models(DEMO, sets, {"qwen2.5": "s3://models/qwen"})
    assert loaded.recipe.models["qwen2.5"].source == "s3://models/qwen"
    assert loaded.recipe.evaluate.contestants == ("base", "qwen2.5")


def test_a_named_model_is_started_as_the_target_is(sets: list[str]) -> None:
    loaded = evaluation._with_models(DEMO, sets, {"production": "s3://models/production"})
    model, target = loaded.recipe.models["production"], loaded.recipe.models["smollm2"]
    assert (model.source, model.max_model_len) == ("s3://models/production", target.max_model_len)
    assert loaded.recipe.evaluate.contestants == ("base", "production")
