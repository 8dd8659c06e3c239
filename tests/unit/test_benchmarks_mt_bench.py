"""MT-Bench: what is asked, how a rating is read, and that no lost rating is silent."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from moaa.benchmarks import Entrant, EntrantAnswer, Item, Played
from moaa.benchmarks.alpaca_eval import AlpacaEval
from moaa.benchmarks.arena_hard import ArenaHard
from moaa.benchmarks.benchmark import Match
from moaa.benchmarks.data import digest
from moaa.benchmarks.mt_bench import MtBench
from moaa.benchmarks.rating import parsed
from moaa.errors import RecipeError, RowRejected
from moaa.prompts import files
from moaa.recipe.load import load_file
from moaa.weights.local import package_file
from tests.support.paths import DEMO
from tests.support.scripted import Ask, last, system

FOLDER = "instructlab/eval/data/mt_bench"
WRITING = {"question_id": 81, "category": "writing", "turns": ["Write.", "Again."]}
MATH = {"question_id": 111, "category": "math", "turns": ["2 + 2?", "Times 3?"]}
GPT_4 = {"question_id": 111, "choices": [{"turns": ["4", "12"]}]}


def mt_bench(*sets: str) -> MtBench:
    chosen = ["evaluate.benchmarks={mt_bench: {}}", *sets]
    recipe = load_file(DEMO, chosen).recipe
    return MtBench(recipe.evaluate.benchmarks.mt_bench, recipe)  # type: ignore[arg-type]


def rated(benchmark: MtBench, item: Item, answer: Any) -> tuple[dict[str, Any], Ask]:
    """The row of two answers, and the judge's calls."""
    ask = Ask(answer)
    answers = tuple(
        EntrantAnswer((), text, 1, "stop") for text in ("first answer", "second answer")
    )
    match = Match(item, (Entrant("base", model="smollm2"),), (answers,))
    return asyncio.run(benchmark.judge_match(match, ask)), ask


ALONE = ("label.judge.verdict=parsed", "evaluate.judge_model=smollm2")


def test_the_published_questions_are_known_by_their_content() -> None:
    paths = (f"{FOLDER}/question.jsonl", f"{FOLDER}/reference_answer/gpt-4.jsonl")
    rows = [row for path in paths for row in files.rows(package_file(path))]
    benchmark = mt_bench()
    items = benchmark.items(rows)
    assert digest(items) == benchmark.digest
    assert digest(items[::-1]) == benchmark.digest
    assert len(items) == 80
    assert {item.group for item in items if item.given["reference"]} == {
        "math", "reasoning", "coding",
    }  # fmt: skip
    assert benchmark.incomparable(items).startswith("The published judge is gpt-4 or gpt-4-0613")
    assert "these 79 questions" in benchmark.incomparable(items[1:]).lower()


OFFICIAL = (
    "models.gpt={source: gpt-4-0613, endpoint: {url: 'http://127.0.0.1:9'}}",
    "evaluate.judge_model=gpt",
    "evaluate.sampling.stop=[]",
)


@pytest.mark.parametrize(
    ("sets", "why"),
    [
        ([], ""),
        (["max_tokens=16"], "Answers have at most 16 tokens, published ones 1,024."),
        (["evaluate.sampling.stop=[Human]"], "Answers stop at 'Human', published ones do not."),
        (["label.judge.aggregator.sampling.temperature=0.5"], "The judge's temperature is 0.5, "),
        (["judge={proposers: [{model: gpt}], aggregator: {model: gpt}}"], "after assessments"),
        (["judge={PARSED, aggregator: {model: gpt, system: Be kind.}}"], "has a persona"),
    ],
)
def test_published_numbers_are_those_of_one_way_to_answer_and_to_judge(
    sets: list[str], why: str
) -> None:
    parsed = "verdict: parsed, proposers: [{model: gpt}]"
    own = "evaluate.benchmarks.mt_bench."
    full = [
        each if "." in each.partition("=")[0] else own + each.replace("PARSED", parsed)
        for each in sets
    ]
    benchmark = mt_bench(*OFFICIAL, *full)
    paths = (f"{FOLDER}/question.jsonl", f"{FOLDER}/reference_answer/gpt-4.jsonl")
    found = benchmark.incomparable(
        benchmark.items(row for path in paths for row in files.rows(package_file(path)))
    )
    assert why in found
    assert bool(found) == bool(why)


@pytest.mark.parametrize(("kind", "tokens"), [(AlpacaEval, "2,048"), (ArenaHard, "4,096")])
def test_answers_with_fewer_tokens_than_published_ones_are_said(kind: Any, tokens: str) -> None:
    named = f"evaluate.benchmarks.{kind.name}"
    recipe = load_file(DEMO, [f"{named}={{}}", "evaluate.sampling.max_tokens=16"]).recipe
    benchmark = kind(recipe.evaluate.chosen[kind.name], recipe)
    assert f"at most 16 tokens, most published ones {tokens}" in benchmark.incomparable([])


def test_temperatures_follow_the_category() -> None:
    rows = [{"question_id": i, "category": name, "turns": ["a", "b"]}
            for i, name in enumerate(("writing", "stem", "coding", "else"))]  # fmt: skip
    sampled = [item.sampling for item in mt_bench().items(rows)]
    assert [each.temperature for each in sampled if each] == [0.7, 0.1, 0.0, 0.7]
    assert {each.max_tokens for each in sampled if each} == {1024}


def test_one_judge_gets_the_published_prompts() -> None:
    published = {
        each["name"]: each for each in files.rows(package_file(f"{FOLDER}/judge_prompts.jsonl"))
    }
    writing, math = mt_bench(*ALONE).items([WRITING, MATH, GPT_4])
    _, ask = rated(mt_bench(*ALONE), writing, lambda call: "Fine. Rating: [[7]]")
    first, second = ask.calls
    single, multi = published["single-v1"], published["single-v1-multi-turn"]
    filled = single["prompt_template"].format(question="Write.", answer="first answer")
    assert (system(first), last(first)) == (single["system_prompt"], filled)
    filled = multi["prompt_template"].format(
        question_1="Write.", answer_1="first answer", question_2="Again.", answer_2="second answer"
    )
    assert system(second) == multi["system_prompt"].strip()
    assert last(second).split() == filled.split()
    _, ask = rated(mt_bench(*ALONE), math, lambda call: "[[7]]")
    filled = published["single-math-v1"]["prompt_template"].format(
        question="2 + 2?", answer="first answer", ref_answer_1="4"
    )
    assert last(ask.calls[0]) == filled
    assert "12" in last(ask.calls[1])
    assert "reference answer" in system(ask.calls[1])


def test_a_mixture_assesses_and_its_aggregator_rates_under_a_grammar() -> None:
    (item,) = mt_bench().items([WRITING])
    row, ask = rated(mt_bench(), item, lambda call: "8" if call.choices else "an assessment")
    assert [each["rating"] for each in row["ratings"]] == [8.0, 8.0]
    assert len(ask.calls) == 2 * 4
    graded = [call for call in ask.calls if call.choices]
    assert all(call.choices == tuple(map(str, range(1, 11))) for call in graded)
    assert all(last(call).count("an assessment") == 3 for call in graded)


@pytest.mark.parametrize(
    ("text", "rating"),
    [("Good. Rating: [[8]]", 8), ("[[7.5]]", 7.5), ("Rating: [6]", 6), ("9", 9), ("[[3]] [9]", 3)],
)
def test_a_rating_is_read_in_double_then_in_single_brackets(text: str, rating: float) -> None:
    assert parsed(text) == rating


@pytest.mark.parametrize("text", ["", "very good", "[[0]]", "[[11]]", "[[rating]]", "8/10"])
def test_what_is_no_rating_is_none(text: str) -> None:
    with pytest.raises(RowRejected, match="rating unparseable"):
        parsed(text)


def test_a_mixture_that_quotes_its_assessments_rates_with_the_last_number() -> None:
    """The published prompt makes every assessment end in [[n]], and the aggregator quotes them."""

    def reply(call: Any) -> str:
        quoted = "The first gave [[2]], the second [[3]]; both overlook the proof.\n[[9]]"
        return quoted if "[Assessments]" in last(call) else "[[2]]"

    benchmark = mt_bench("label.judge.verdict=parsed")
    row, _ = rated(benchmark, benchmark.items([WRITING])[0], reply)
    assert [each["rating"] for each in row["ratings"]] == [9, 9]


def test_an_unreadable_rating_is_asked_for_again_then_lost_and_counted() -> None:
    benchmark = mt_bench(*ALONE)
    items = benchmark.items([WRITING, MATH, GPT_4])

    def answer(call: Any) -> str:
        return "no idea" if "second answer" in last(call) else "[[6]]"

    row, ask = rated(benchmark, items[0], answer)
    assert [(each["turn"], each["rating"]) for each in row["ratings"]] == [(1, 6.0)]
    assert [(each["turn"], each["reason"]) for each in row["lost"]] == [(2, "rating unparseable")]
    assert len(ask.calls) == 1 + 3
    played = Played(items, ("base",), {}, {("base",): {items[0].id: row}})
    scores = {score.subset: score for score in benchmark.scores(played)}
    assert scores[""].about == {"answers without a rating": 3}  # two of a question without any
    assert (scores[""].estimate.value, scores[""].estimate.n) == (6, 1)
    assert set(scores) == {"", "turn 1", "writing"}


def test_a_question_without_any_rating_is_rejected() -> None:
    (item,) = mt_bench(*ALONE).items([WRITING])
    with pytest.raises(RowRejected, match="rating unparseable"):
        rated(mt_bench(*ALONE), item, lambda call: "no idea")


def test_rows_of_something_else_are_refused() -> None:
    with pytest.raises(RecipeError, match="it has no question_id; it has no category"):
        mt_bench().items([{"prompt": "Why?"}])


def test_ratings_of_two_models_are_compared_answer_by_answer() -> None:
    """Hard questions are hard for both: twenty of them, dpo a point better at each first turn."""
    questions = [{**WRITING, "question_id": id} for id in range(20)]
    benchmark = mt_bench()
    items = benchmark.items(questions)

    def row(id: str, *, more: int) -> dict[str, Any]:
        hard = 1 + int(id) % 8
        ratings = [{"turn": 1, "rating": hard + more}, {"turn": 2, "rating": hard}]
        return {"ratings": ratings, "lost": []}

    judged: dict[tuple[str, ...], dict[str, dict[str, Any]]] = {
        (name,): {item.id: row(item.id, more=more) for item in items}
        for name, more in (("base", 0), ("dpo", 1))
    }
    scores = benchmark.scores(Played(items, ("base", "dpo"), {}, judged))
    base, dpo = (s.estimate for s in scores if s.metric == "rating" and not s.subset)
    (found,) = [score for score in scores if score.metric == "rating difference"]
    assert (found.entrant, found.against, found.subset) == ("dpo", "base", "")
    assert found.estimate.value == pytest.approx(dpo.value - base.value) == 0.5
    assert (found.estimate.n, found.estimate.unit) == (40, "difference of ratings")
    assert found.estimate.low == found.estimate.high, "the same half point at every question"
    assert dpo.high - dpo.low > 1
