"""Win rates, their intervals, and answer lengths."""

import random

import pytest

from moaa.statistics import RunningMean, characters, lengths, mean, wilson


@pytest.mark.parametrize(
    ("wins", "n", "low", "high"),
    [
        (8, 10, 0.4902, 0.9433),
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (50, 100, 0.4038, 0.5962),
        (2.5, 5, 0.1705, 0.8295),
    ],
)
def test_wilson_gives_the_textbook_intervals(wins, n, low, high):
    assert wilson(wins, n) == pytest.approx((low, high), abs=2e-4)


def test_nothing_judged_says_nothing():
    assert wilson(0, 0) == (0.0, 1.0)


def test_wilson_covers_the_truth_about_95_times_in_100():
    draw = random.Random(1)
    covered = 0
    for _ in range(2000):
        low, high = wilson(sum(draw.random() < 0.3 for _ in range(60)), 60)
        covered += low <= 0.3 <= high
    assert 0.93 <= covered / 2000 <= 0.97


def answer(model, tokens, text="ab", finish_reason="stop"):
    return {"model": model, "tokens": tokens, "text": text, "finish_reason": finish_reason}


def test_lengths_of_each_model_over_the_same_edges():
    found = lengths(
        [
            answer("base", 10),
            answer("base", 30, "abcd"),
            answer("dpo", 100, "x" * 50, "length"),
            answer("dpo", 0, ""),
        ]
    )
    base, dpo = found["base"], found["dpo"]
    assert (base["mean_tokens"], base["mean_characters"], base["truncated"], base["answers"]) == (
        20,
        3,
        0,
        2,
    )
    assert (dpo["mean_tokens"], dpo["mean_characters"], dpo["truncated"], dpo["answers"]) == (
        50,
        25,
        0.5,
        2,
    )
    assert base["histogram"]["edges"] == dpo["histogram"]["edges"]
    assert base["histogram"]["edges"][0] == 0
    assert base["histogram"]["edges"][-1] == 100
    for each in found.values():
        assert sum(each["histogram"]["counts"]) == each["answers"]
        assert len(each["histogram"]["counts"]) == len(each["histogram"]["edges"]) - 1


@pytest.mark.parametrize("tokens", [[0], [1], [3, 3, 3], [0, 7]])
def test_short_answers_have_a_histogram_too(tokens):
    (found,) = lengths([answer("base", t) for t in tokens]).values()
    edges = found["histogram"]["edges"]
    assert sorted(set(edges)) == edges
    assert sum(found["histogram"]["counts"]) == len(tokens)


def test_no_answers_have_no_lengths():
    assert lengths([]) == {}


def test_lengths_have_intervals_and_turns_of_one_conversation_are_alike():
    rows = [
        answer("dpo", 10 * (i % 5), "ab" * i, "length" if i % 4 == 0 else "stop") for i in range(40)
    ]
    (alone,) = lengths(rows).values()
    (turns,) = lengths([{**row, "id": i // 2} for i, row in enumerate(rows)]).values()
    for found in (alone, turns):
        for name in ("mean_tokens", "mean_characters", "truncated", "empty"):
            assert found[f"{name}_low"] < found[name] < found[f"{name}_high"], name
    assert (alone["truncated_low"], alone["truncated_high"]) == pytest.approx(
        wilson(10, 40), abs=1e-6
    )
    assert turns["mean_characters_low"] < alone["mean_characters_low"]
    (single,) = lengths([answer("dpo", 10)]).values()
    assert (single["mean_tokens_low"], single["mean_tokens_high"]) == (0.0, None)


def test_a_baseline_has_characters_alone():
    found = characters(["ab", "abcd"])
    assert (found["answers"], found["mean_characters"]) == (2, 3)
    assert found["mean_characters_low"] < 3 < found["mean_characters_high"]


@pytest.mark.parametrize("values", [[0.0, 1.0], [0.2, 0.7, 0.9]])
def test_a_running_mean_is_the_mean_of_all_its_values(values):
    draw = random.Random(3)
    running = RunningMean()
    kept: list[float] = []
    clusters: list[int] = []
    for cluster in range(30):
        own = [draw.choice(values) for _ in range(1 + cluster % 3)]
        running.add(own)
        kept += own
        clusters += [cluster] * len(own)
    found, expected = running.estimate(), mean(kept, clusters)
    assert found is not None
    assert found.n == expected.n
    assert (found.value, found.low, found.high) == pytest.approx(
        (expected.value, expected.low, expected.high)
    )
    assert RunningMean().estimate() is None
