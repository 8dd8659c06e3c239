"""Which answers and judgements an evaluation asks for, and which it finds again."""

from __future__ import annotations

import importlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from moaa import templates
from moaa.artifacts import Artifact, Draft, Output
from moaa.errors import EngineError
from moaa.ledger import Ledger
from moaa.recipe.load import load_file
from tests.support.engine_answers import Body
from tests.support.engine_server import EngineServer, status
from tests.support.memory_store import MemoryStore
from tests.support.paths import DEMO
from tests.support.stage_run import NO_BENCHMARKS, PAIRS, QUESTIONS

PROMPTS = ("Why is the sky blue?", "What is the sea made of?")
ONE = "evaluate.contestants=[base]"
BASE_AND_OTHER = "evaluate.contestants=[base, other]"


class Evaluation:
    """Evaluations below one store, against one server; `asked` counts its calls by model."""

    def __init__(self, server: EngineServer, store: MemoryStore) -> None:
        self.server = server
        self.store = store
        with Output(store, f"{store.root}/prompts/x", "any") as out:
            for number, question in enumerate(PROMPTS):
                row = {"id": str(number), "source": "s", "system": None, "turns": [question]}
                out.write(row, table="evaluation")
            self.prompts = Artifact(
                store, out.commit(Draft(stage="prompts", name="n", fingerprint="x"))
            )

    def run(self, *sets: str) -> tuple[Artifact, Counter[str]]:
        recipe = load_file(
            DEMO,
            [f"models.smollm2.endpoint={{url: '{self.server.url}'}}", NO_BENCHMARKS, *sets],
        ).recipe
        ledger = Ledger()
        stage = importlib.import_module("moaa.stages.evaluate").evaluate
        manifest, _ = stage.run(recipe, self.store, {"prompts": self.prompts}, ledger)
        asked = Counter({name: use.calls for name, use in ledger.models.items() if use.calls})
        return Artifact(self.store, manifest), asked

    def other(self, source: str) -> str:
        """The `--set` of another model of this source, which the server answers for too."""
        return f"models.other={{source: {source}, endpoint: {{url: '{self.server.url}'}}}}"


@pytest.fixture
def evaluation() -> Any:
    with EngineServer("smollm2", "other") as server:
        yield Evaluation(server, MemoryStore())


def texts(found: Artifact, model: str) -> list[str]:
    return [row["text"] for row in found.rows("answers") if row["model"] == model]


def test_another_model_asks_only_what_is_new(evaluation: Evaluation) -> None:
    first, asked = evaluation.run(ONE)
    assert asked == {"smollm2": len(PROMPTS)}  # one contestant is judged against nobody
    again, asked = evaluation.run(ONE)
    assert (again.uri, asked) == (first.uri, {})
    second, asked = evaluation.run(BASE_AND_OTHER, evaluation.other("a"))
    assert asked == {"other": len(PROMPTS), "smollm2": len(PROMPTS) * 9}  # only judgements
    assert texts(second, "base") == texts(first, "base")
    assert second.manifest.facts["win_rates"][0]["n"] == len(PROMPTS)


def test_answers_of_one_model_never_serve_another_of_the_same_name(evaluation: Evaluation) -> None:
    """One store, one name, two models: the published fault of a harness."""
    evaluation.server.say = lambda body: "from a" if body["model"] == "other" else None
    first, _ = evaluation.run(BASE_AND_OTHER, evaluation.other("a"))
    evaluation.server.say = lambda body: "from b" if body["model"] == "other" else None
    second, asked = evaluation.run(BASE_AND_OTHER, evaluation.other("b"))
    assert texts(first, "other") == ["from a"] * len(PROMPTS)
    assert texts(second, "other") == ["from b"] * len(PROMPTS)
    assert asked == {"other": len(PROMPTS), "smollm2": len(PROMPTS) * 9}
    third, asked = evaluation.run(BASE_AND_OTHER, evaluation.other("a"))
    assert asked == {}
    assert texts(third, "other") == ["from a"] * len(PROMPTS)


def test_the_same_model_under_another_name_is_not_asked_again(evaluation: Evaluation) -> None:
    evaluation.run(BASE_AND_OTHER, evaluation.other("a"))
    renamed = evaluation.other("a").replace("models.other", "models.smollm2-twin")
    found, asked = evaluation.run("evaluate.contestants=[base, smollm2-twin]", renamed)
    assert asked == {}
    assert texts(found, "smollm2-twin")


def test_judgements_of_other_answers_are_not_found_again(
    evaluation: Evaluation, tmp_path: Path
) -> None:
    """Answers that could not be saved are asked for again, and may be others. The judgements of the
    first ones say nothing about them."""
    other = evaluation.other("a")
    evaluation.server.say = lambda body: "one" if body["model"] == "other" else None
    evaluation.run(BASE_AND_OTHER, other)
    for uri, _ in list(evaluation.store.list(f"{evaluation.store.root}/evaluation/answers")):
        evaluation.store.delete(uri)
    evaluation.server.say = lambda body: "a longer one" if body["model"] == "other" else None
    ratings = benchmark(tmp_path, "mt_bench", QUESTIONS)
    again, asked = evaluation.run(BASE_AND_OTHER, other, ratings)
    new = [row["text"] for row in again.rows("answers") if row["model"] == "other"]
    assert set(new) == {"a longer one"}
    turns, contestants = 4, 2
    answers, rating = len(PROMPTS) + turns, contestants * turns * 4
    assert asked["smollm2"] == answers + rating + len(PROMPTS) * 9, "judgements of other answers"


def benchmark(folder: Path, name: str, rows: list[dict[str, Any]]) -> str:
    (folder / f"{name}.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return f'evaluate.benchmarks.{name}={{data: [{{source: "{folder}/{name}.jsonl"}}]}}'


def test_another_benchmark_asks_only_its_own(evaluation: Evaluation, tmp_path: Path) -> None:
    evaluation.run(ONE)
    found, asked = evaluation.run(ONE, benchmark(tmp_path, "mt_bench", QUESTIONS))
    turns = 4  # two questions of two turns; a rating takes three assessments
    assert asked == {"smollm2": turns * (1 + 4)}
    assert {row["benchmark"] for row in found.rows("answers")} == {"head_to_head", "mt_bench"}


def test_a_judge_that_cannot_be_read_fails_its_benchmark_alone(
    evaluation: Evaluation, tmp_path: Path
) -> None:
    def says(body: Body) -> str | None:
        return "no idea" if "your rating" in body["messages"][-1]["content"] else None

    evaluation.server.say = says
    sets = (ONE, benchmark(tmp_path, "mt_bench", QUESTIONS))
    parsed = "label.judge.verdict=parsed"
    found, _ = evaluation.run(*sets, parsed)
    facts = found.manifest.facts["benchmarks"]
    assert "rating unparseable" in facts["mt_bench"]["failures"]["base"]
    assert facts["mt_bench"]["failed"]
    assert not facts["head_to_head"]["failures"]
    evaluation.server.say = lambda body: None
    again, asked = evaluation.run(*sets, parsed)
    assert again.uri != found.uri, "a failed benchmark is tried again by the next run"
    assert asked["smollm2"] > 0
    assert texts(again, "base") == texts(found, "base")


def test_questions_that_cannot_be_read_fail_their_benchmark_alone(
    evaluation: Evaluation, tmp_path: Path
) -> None:
    sets = (
        ONE,
        f'evaluate.benchmarks.judge_bench={{data: [{{source: "{tmp_path}/pairs.jsonl"}}]}}',
    )
    found, _ = evaluation.run(*sets)
    facts = found.manifest.facts["benchmarks"]
    assert "no such file" in facts["judge_bench"]["failed"]
    assert facts["judge_bench"]["scores"] == []
    assert facts["head_to_head"]["items"] == len(PROMPTS)
    (tmp_path / "pairs.jsonl").write_text("\n".join(json.dumps(pair) for pair in PAIRS))
    again, _ = evaluation.run(*sets)
    facts = again.manifest.facts["benchmarks"]["judge_bench"]
    assert (facts["failed"], facts["items"]) == ("", len(PAIRS))


def test_an_evaluation_that_was_stopped_goes_on(evaluation: Evaluation) -> None:
    """A judge's server that refuses the key ends the stage; the next attempt asks what is
    missing."""

    async def refuses(request: web.Request, body: Body) -> web.StreamResponse | None:
        judging = "<answer_a" in body["messages"][-1]["content"]
        return await status(401)(request, body) if judging else None

    evaluation.server.fail(refuses, model="smollm2", times=1000)
    other = evaluation.other("a")
    with pytest.raises(EngineError):
        evaluation.run(BASE_AND_OTHER, other)
    evaluation.server.heal()
    found, asked = evaluation.run(BASE_AND_OTHER, other)
    assert asked == {"smollm2": len(PROMPTS) * 9}, "answers were asked for again"
    assert found.manifest.facts["win_rates"][0]["n"] == len(PROMPTS)


def test_the_mixture_itself_is_a_contestant(evaluation: Evaluation) -> None:
    """Its proposers and its aggregator answer, as `generate.mixture` says."""
    evaluation.run(ONE)
    found, asked = evaluation.run("evaluate.contestants=[mixture, base]")
    assert asked == {"smollm2": len(PROMPTS) * (4 + 9)}
    answers = [row for row in found.rows("answers") if row["model"] == "mixture"]
    assert [row["id"] for row in answers] == ["0", "1"]
    assert all(row["tokens"] > 0 for row in answers)
    assert {(row["model_a"], row["model_b"]) for row in found.rows("judgements")} == {
        ("base", "mixture")
    }


def test_another_text_for_the_aggregator_makes_other_answers_of_the_mixture(
    evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recipe does not change if moaa's own text does."""
    both = ("evaluate.contestants=[mixture, base]", "generate.mixture.instruction=null")
    found, _ = evaluation.run(*both)
    text = templates.text
    monkeypatch.setattr(
        templates, "text", lambda name: "Be brief." if name == "aggregate" else text(name)
    )
    again, asked = evaluation.run(*both)
    assert again.fingerprint != found.fingerprint
    assert asked == {"smollm2": len(PROMPTS) * (4 + 9)}, "the mixture and the judge; not the base"


def test_other_sampling_is_another_answer_and_another_judge_another_judgement(
    evaluation: Evaluation,
) -> None:
    other = evaluation.other("a")
    evaluation.run(BASE_AND_OTHER, other)
    _, asked = evaluation.run(BASE_AND_OTHER, other, "label.judge.criteria=all")
    assert asked == {"smollm2": len(PROMPTS) * 8}
    _, asked = evaluation.run(BASE_AND_OTHER, other, "evaluate.sampling.max_tokens=50")
    assert asked["other"] == len(PROMPTS)


def test_a_benchmark_with_a_sampling_of_its_own_does_not_depend_on_that_of_the_evaluation(
    evaluation: Evaluation, tmp_path: Path
) -> None:
    alone = (ONE, "evaluate.benchmarks={head_to_head: null}")
    sets = (*alone, benchmark(tmp_path, "judge_bench", PAIRS))
    _, asked = evaluation.run(*sets)
    assert asked["smollm2"] > 0
    _, asked = evaluation.run(*sets, "evaluate.sampling.temperature=0.5")
    assert asked == {}


def test_another_share_of_injected_text_is_another_measurement(
    evaluation: Evaluation, tmp_path: Path
) -> None:
    alone = (ONE, "evaluate.benchmarks={head_to_head: null}")
    sets = (*alone, benchmark(tmp_path, "judge_bench", PAIRS))
    for share in (0, 1):
        given = f"evaluate.benchmarks.judge_bench.injected={share}"
        found, asked = evaluation.run(*sets, given)
        assert asked["smollm2"] > 0
    scores = found.manifest.facts["benchmarks"]["judge_bench"]["scores"]
    counts = {each["n"] for each in scores if each["metric"] == "accuracy with injected text"}
    assert counts == {len(PAIRS)}
