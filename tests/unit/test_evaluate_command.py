"""`moaa evaluate`: models that no run made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from moaa.artifacts import Artifact
from moaa.commands import evaluating
from moaa.errors import RecipeError
from moaa.store import Store
from tests.support.engine_server import EngineServer
from tests.support.memory_store import MemoryStore
from tests.support.paths import DEMO
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
        evaluating.evaluate(DEMO, sets, [f"production={server.url}"])
    found = scores(tmp_path)
    assert {row["model"] for row in found.rows("answers")} == {"base", "production"}
    (rate,) = found.manifest.facts["win_rates"]
    assert (rate["model"], rate["against"], rate["n"]) == ("production", "base", 2)
    (page,) = (tmp_path / "home/runs").glob("*/report.html")
    assert "production" in page.read_text()
    assert "production" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("model", "why"),
    [
        ("production", "write NAME=SOURCE"),
        ("=s3://a/b", "write NAME=SOURCE"),
        ("smollm2=s3://a/b", "the recipe's models.smollm2 is package:"),
    ],
)
def test_what_is_no_model_is_refused(sets: list[str], model: str, why: str) -> None:
    with pytest.raises(RecipeError, match=why):
        evaluating.evaluate(DEMO, sets, [model])


def test_a_named_model_is_started_as_the_target_is(sets: list[str]) -> None:
    loaded = evaluating._with_models(DEMO, sets, {"production": "s3://models/production"})
    model, target = loaded.recipe.models["production"], loaded.recipe.models["smollm2"]
    assert (model.source, model.max_model_len) == ("s3://models/production", target.max_model_len)
    assert loaded.recipe.evaluate.contestants == ("base", "production")
