"""AlpacaEval and Arena-Hard on made prompts: their data, their judges, their numbers."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest

from moaa import statistics
from moaa.benchmarks import Benchmark, Entrant, EntrantAnswer, Item
from moaa.benchmarks.alpaca_eval import AlpacaEval, order_of
from moaa.benchmarks.arena_hard import ArenaHard
from moaa.benchmarks.benchmark import Score
from moaa.benchmarks.verdicts import parsed, weight_of
from moaa.errors import RecipeError, RowRejected
from moaa.recipe.load import load_file
from tests.support.judging import fraction, judging, play
from tests.support.paths import RECIPES
from tests.support.scripted import Ask, last

N = 60


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Intervals from 40 resamples: their width is tested where they are made."""
    lengths, battles = ("controlled", "adjusted"), ("rate", "difference")
    names = [f"length_{each}" for each in lengths] + [f"battle_{each}" for each in battles]
    for name in (*names, "style_controlled"):
        monkeypatch.setattr(statistics, name, partial(getattr(statistics, name), resamples=40))


def make(kind: type[Benchmark[Any]], *sets: str) -> Any:
    named = f"evaluate.benchmarks.{kind.name}"
    recipe = load_file(
        RECIPES / "demo.yaml", [f"{named}={{}}", *(f"{named}.{each}" for each in sets)]
    ).recipe
    return kind(recipe.evaluate.chosen[kind.name], recipe)


def longer_is_better(model: str, first: str, second: str) -> float:
    """Half of what it says is length, the other half is the text of the model's answer."""
    skill = 0.4 * ("dpo" in first) - 0.4 * ("dpo" in second)
    delta = math.tanh((len(first) - len(second)) / 200)
    return 1 / (1 + math.exp(-(2 * delta + skill)))


def answered(items: list[Item], *models: str) -> dict[str, dict[str, tuple[EntrantAnswer, ...]]]:
    """Answers of two to four times the length of the baseline's."""
    return {
        model: {
            item.id: (
                EntrantAnswer(item.messages, f"{model} " + "w " * words(item.id), 10, "stop"),
            )
            for item in items
        }
        for model in models
    }


def words(id: str) -> int:
    return 40 + int(160 * fraction(id))


def one(scores: list[Score], entrant: str, metric: str) -> Score:
    (found,) = [score for score in scores if (score.entrant, score.metric) == (entrant, metric)]
    return found


# -- AlpacaEval


def alpaca_rows() -> list[dict[str, Any]]:
    return [
        {"instruction": f"Instruction {i}?", "output": "b " * 50, "dataset": "koala"}
        for i in range(N)
    ]


def gamed_rows() -> list[dict[str, Any]]:
    """As a CSV file gives them: texts."""
    return [
        {
            "index": str(i),
            "instruction_difficulty": str(fraction(f"{i}") - 0.5),
            "std_delta_len": str(delta),
            "preference": str(preference),
            "not_gamed_baseline": "False",
        }
        for delta, preference in ((1.5, 0.2), (-1.5, 0.7))
        for i in range(N)
    ]


@pytest.fixture
def alpaca(monkeypatch: pytest.MonkeyPatch) -> AlpacaEval:
    """AlpacaEval, as if the made instructions were the published ones."""
    order = order_of(row["instruction"] for row in alpaca_rows())
    monkeypatch.setattr(AlpacaEval, "order", order)
    monkeypatch.setattr(AlpacaEval, "count", N)
    benchmark: AlpacaEval = make(AlpacaEval)
    return benchmark


def alpaca_scores(benchmark: AlpacaEval, rows: list[dict[str, Any]]) -> list[Score]:
    items = benchmark.items(rows)
    entrants = [Entrant("base"), Entrant("dpo")]
    answers = answered(items, "base", "dpo")
    return benchmark.scores(play(benchmark, items, entrants, judging(longer_is_better), answers))


def test_the_published_answers_and_difficulties_come_in_any_order_of_files(
    alpaca: AlpacaEval,
) -> None:
    items = alpaca.items([*gamed_rows(), *alpaca_rows()])
    assert items == alpaca.items([*alpaca_rows(), *gamed_rows()])
    assert len({item.id for item in items}) == N
    assert items[3].given["difficulty"] == pytest.approx(fraction("3") - 0.5)
    assert items[3].given["gamed"] == [[1.5, 0.2], [-1.5, 0.7]]


def test_length_is_taken_out_of_the_win_rate(alpaca: AlpacaEval) -> None:
    scores = alpaca_scores(alpaca, alpaca_rows() + gamed_rows())
    raw, controlled = (
        one(scores, "base", metric) for metric in ("win rate", "length-controlled win rate")
    )
    assert controlled.main
    assert not raw.main
    assert raw.estimate.value > 0.65, "long answers"
    assert controlled.estimate.value < raw.estimate.value - 0.1
    assert controlled.estimate.low < controlled.estimate.value < controlled.estimate.high
    assert set(
        map(len, alpaca.given_answers(alpaca.items(alpaca_rows()))["gpt-4-1106-preview"])
    ) == {100}, "the length beside the win rate"
    better = one(scores, "dpo", "length-controlled win rate").estimate
    assert better.value > controlled.estimate.value


def assert_paired(scores: list[Score]) -> None:
    """Most of what decides a verdict is the same for both: two rates side by side hide it."""
    base, dpo = (one(scores, name, "win rate").estimate for name in ("base", "dpo"))
    (found,) = [score for score in scores if score.metric == "win rate difference"]
    assert (found.entrant, found.against, found.main) == ("dpo", "base", False)
    assert found.estimate.value == pytest.approx(dpo.value - base.value)
    assert (found.estimate.n, found.estimate.unit) == (N, "difference of shares")
    assert found.estimate.error < 0.5 * math.hypot(base.error, dpo.error)


def test_two_models_are_compared_by_prompt_and_not_by_their_intervals(alpaca: AlpacaEval) -> None:
    assert_paired(alpaca_scores(alpaca, alpaca_rows() + gamed_rows()))


def test_difficulties_are_not_given_to_other_or_reordered_instructions(alpaca: AlpacaEval) -> None:
    for rows in (alpaca_rows()[::-1], alpaca_rows()[:-1]):
        items = alpaca.items(rows + gamed_rows())
        assert not any("difficulty" in item.given for item in items)
        assert "no length control" in alpaca.incomparable(items)
    scores = alpaca_scores(alpaca, alpaca_rows()[::-1] + gamed_rows())
    assert {score.metric for score in scores} == {
        "win rate", "win rate at equal length", "win rate difference",
    }  # fmt: skip
    assert one(scores, "dpo", "win rate").main


def test_some_of_the_questions_have_no_length_control(alpaca: AlpacaEval) -> None:
    items = alpaca.items(alpaca_rows() + gamed_rows())
    assert "no length control" not in alpaca.incomparable(items)
    assert "no length control" in alpaca.incomparable(items[: N // 2])
    assert "the 805 published ones" in alpaca.incomparable(items), "these are made"


def test_a_row_of_something_else_is_refused() -> None:
    with pytest.raises(RecipeError, match="alpaca_eval_gpt4_baseline"):
        make(AlpacaEval).items([{"prompt": "x"}])


def test_answers_that_were_not_judged_are_counted(alpaca: AlpacaEval) -> None:
    items = alpaca.items(alpaca_rows() + gamed_rows())
    ask = judging(longer_is_better)
    readable = ask.answer
    ask.answer = lambda call: (
        "no idea" if call.logprobs and "Instruction 7?" in last(call) else readable(call)
    )
    played = play(alpaca, items, [Entrant("dpo")], ask, answered(items, "dpo"))
    raw = one(alpaca.scores(played), "dpo", "win rate")
    assert raw.estimate.n == N - 1
    assert raw.about["not judged"] == 1


# -- Arena-Hard


def arena_rows(version: str = "v0.1") -> list[dict[str, Any]]:
    category = "arena-hard-v0.1" if version == "v0.1" else "hard_prompt"
    questions = [
        {"uid": f"q{i}", "category": category, "cluster": "ABC", "prompt": f"Prompt {i}?"}
        for i in range(N)
    ]
    answers = [
        {
            "uid": f"q{i}",
            "model": "baseline",
            "messages": [
                {"role": "user", "content": f"Prompt {i}?"},
                {"role": "assistant", "content": {"answer": "b " * 50}},
            ],
        }
        for i in range(N)
    ]
    return answers + questions


def test_the_versions_have_their_own_prompts_and_baselines() -> None:
    for version, baseline in (("v0.1", "gpt-4-0314"), ("v2.0", "o3-mini-2025-01-31")):
        benchmark = make(ArenaHard, f"version={version}")
        assert baseline in benchmark.sources[1].source
        creative = {"uid": "c", "category": "creative_writing", "prompt": "A poem"}
        items = benchmark.items([*arena_rows(version), creative])
        assert [item.id for item in items] == [f"q{i}" for i in range(N)]
        assert items[0].given["baseline"] == "b " * 50
        assert "not the 500 published ones" in benchmark.incomparable(items)


def test_a_prompt_without_the_baseline_s_answer_is_refused() -> None:
    benchmark = make(ArenaHard)
    with pytest.raises(RecipeError, match=r"1 of 1 prompts have no answer of the baseline.*lonely"):
        benchmark.items([{"uid": "lonely", "category": "arena-hard-v0.1", "prompt": "?"}])
    with pytest.raises(RecipeError, match="a row: it has no uid; it has no prompt"):
        benchmark.items([{"question": "?"}])


def test_style_is_taken_out_of_the_win_rate() -> None:
    benchmark = make(ArenaHard)
    items = benchmark.items(arena_rows())
    entrants, answers = [Entrant("base"), Entrant("dpo")], answered(items, "base", "dpo")
    scores = benchmark.scores(play(benchmark, items, entrants, judging(longer_is_better), answers))
    assert_paired(scores)
    raw, controlled = (
        one(scores, "dpo", metric) for metric in ("win rate", "win rate at equal style")
    )
    assert controlled.main
    assert raw.estimate.n == controlled.estimate.n == N
    assert controlled.estimate.value < raw.estimate.value - 0.1
    assert benchmark.given_answers(items[:1]) == {"gpt-4-0314": ["b " * 50]}


@pytest.mark.parametrize(
    ("text", "verdict", "weight"),
    [
        ("My final verdict is tie: [[A=B]]", "A=B", 1),
        ("At first [[A>B]], but then: [[b>>a]].", "B>>A", 3),
        ("[A>B]", "A>B", 1),
    ],
)
def test_the_last_verdict_of_a_reply_counts(text: str, verdict: str, weight: int) -> None:
    assert (parsed(text), weight_of(text)) == (verdict, weight)


@pytest.mark.parametrize("text", ["", "A is better", "[[A]]", "[[A>B>C]]"])
def test_a_reply_without_a_verdict_is_lost(text: str) -> None:
    with pytest.raises(RowRejected, match="verdict unparseable"):
        parsed(text)


def test_a_judge_that_is_alone_gets_the_published_prompt_and_clear_verdicts_count_thrice() -> None:
    member = '{"model": "smollm2", "sampling": {"max_tokens": 512}}'
    alone = f'{{"proposers": [{member}], "aggregator": {member}, "verdict": "parsed"}}'
    benchmark = make(ArenaHard, f"judge={alone}")
    items = benchmark.items(arena_rows())[:4]

    def answer(call: Any) -> str:
        text = last(call)
        assert "impartial judge" in call.messages[0]["content"]
        if "Prompt 3?" in text:
            return "no verdict"
        ours_first = text.index("dpo") < text.index("b b b")
        if "Prompt 0?" in text:
            return "[[A>>B]]" if ours_first else "[[B>A]]"
        return "[[B>A]]" if ours_first else "[[A=B]]"

    ask = Ask(answer)
    played = play(benchmark, items, [Entrant("dpo")], ask, answered(items, "dpo"))
    assert len(ask.calls) == 2 * 4
    assert set(played.judgements["dpo",]) == {"q0", "q1", "q2"}
    raw = one(benchmark.scores(played), "dpo", "win rate")
    # q0: won clearly (3) and won (1); q1 and q2: lost (1) and a tie (1) each.
    assert raw.estimate.value == pytest.approx((3 + 1 + 0.5 + 0.5) / (4 + 2 + 2))
    assert raw.about["not judged"] == 1
