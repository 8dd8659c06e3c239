"""AlpacaEval 2's length-controlled win rates, from published judgements of published answers."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moaa.benchmarks import EntrantAnswer, Played
from moaa.benchmarks.alpaca_eval import AlpacaEval
from moaa.recipe.load import load_file
from moaa.statistics import Difficulties, length_controlled, mean, standard_error
from moaa.statistics.logistic import Array
from tests.real.conftest import Read, there
from tests.real.data import HUB_SHA256, check
from tests.support.paths import RECIPES

RECOVERED_SHA256 = "957373f038a851a0bde74e1e37607620fbc650148a339f126ebad5a19eeca6de"
MODELS = (
    "FuseChat-Llama-3.1-8B-Instruct",
    "FuseChat-Llama-3.2-1B-Instruct",
    "FuseChat-Gemma-2-9B-Instruct",
    "FuseChat-Qwen-2.5-7B-Instruct",
    "gemma-7b-it",
    "claude-2",
    "gpt-3.5-turbo-1106_verbose",
)
"""Models of which every instruction was judged."""


@pytest.fixture(scope="module")
def instructions(read: Read) -> list[str]:
    """The 805 instructions, in the order to which the published difficulties refer."""
    return [row["instruction"] for row in read("alpaca_eval/baseline.json")]


@pytest.fixture(scope="module")
def gamed(real_data: Path) -> list[dict[str, Any]]:
    """The rows of `df_gamed.csv`: the published file, or what was recovered of it from published
    judgements and weights."""
    file = real_data / "df_gamed.csv"
    if file.exists():
        check(file.name, file.read_bytes(), HUB_SHA256)
        with file.open(encoding="utf-8", newline="") as stream:
            return list(csv.DictReader(stream))
    recovered = real_data / "alpaca_lc.json.gz"
    content = (recovered if recovered.exists() else there(file)).read_bytes()
    check(recovered.name, content, RECOVERED_SHA256)
    found = json.loads(gzip.decompress(content))["gamed"]
    columns = (found[name] for name in ("tanh_len", "difficulty", "preference"))
    return [
        {
            "index": i % 805,
            "std_delta_len": float(np.arctanh(tanh)),
            "instruction_difficulty": difficulty,
            "preference": preference,
        }
        for i, (tanh, difficulty, preference) in enumerate(zip(*columns, strict=True))
    ]


@pytest.fixture(scope="module")
def published(gamed: list[dict[str, Any]], instructions: list[str]) -> Difficulties:
    """The difficulties and the gamed rows, as the regression takes them."""
    of = {instructions[int(row["index"])]: float(row["instruction_difficulty"]) for row in gamed}
    columns = ("std_delta_len", "instruction_difficulty", "preference")
    rows = np.array([[float(row[name]) for name in columns] for row in gamed])
    rows[:, 0] = np.tanh(rows[:, 0])
    return Difficulties(of, rows)


@pytest.fixture(scope="module")
def leaderboard(read: Read, real_data: Path) -> dict[str, dict[str, str]]:
    read("alpaca_eval/baseline.json")  # fails if the folder is empty
    with (real_data / "alpaca_eval/leaderboard.csv").open(encoding="utf-8", newline="") as stream:
        return {row[""]: row for row in csv.DictReader(stream)}


def inputs(rows: list[dict[str, Any]]) -> tuple[list[str], Array, tuple[list[int], list[int]]]:
    return (
        [row["instruction"] for row in rows],
        np.array([row["preference"] - 1 for row in rows]),
        ([len(row["output_1"]) for row in rows], [len(row["output_2"]) for row in rows]),
    )


@pytest.mark.parametrize("model", MODELS)
def test_the_published_length_controlled_rate_comes_out(
    model: str, read: Read, published: Difficulties, leaderboard: dict[str, dict[str, str]]
) -> None:
    names, p, lengths = inputs(read(f"alpaca_eval/{model}.json"))
    found = length_controlled(names, p.tolist(), lengths, published, resamples=2)
    expected = float(leaderboard[model]["length_controlled_winrate"])
    print(f"{model}: {100 * found.value:.4f}, published {expected:.4f}")
    assert 100 * found.value == pytest.approx(expected, abs=0.1)
    assert 100 * mean(p).value == pytest.approx(float(leaderboard[model]["win_rate"]), abs=0.01)


@pytest.mark.parametrize(
    ("model", "n", "matched", "by_row"),
    [("phi-2", 803, 3.89, 4.40), ("alpaca-7b_verbose", 802, 5.20, 6.82)],
)
def test_missing_rows_do_not_shift_the_difficulties(
    model: str,
    n: int,
    matched: float,
    by_row: float,
    read: Read,
    instructions: list[str],
    published: Difficulties,
    leaderboard: dict[str, dict[str, str]],
) -> None:
    """The published number matches difficulties by the number of the row; rows are missing."""
    names, p, lengths = inputs(read(f"alpaca_eval/{model}.json"))
    assert len(names) == n
    found = length_controlled(names, p.tolist(), lengths, published, resamples=2)
    shifted = length_controlled(instructions[:n], p.tolist(), lengths, published, resamples=2)
    print(f"{model}: {100 * found.value:.4f}, by row {100 * shifted.value:.4f}")
    assert 100 * found.value == pytest.approx(matched, abs=0.01)
    assert 100 * shifted.value == pytest.approx(by_row, abs=0.1)
    wrong = float(leaderboard[model]["length_controlled_winrate"])
    assert 100 * shifted.value == pytest.approx(wrong, abs=0.1)


def test_the_interval_is_that_of_prompts_drawn_again(read: Read, published: Difficulties) -> None:
    """The published `lc_standard_error` is 0.67 here; it is the spread of the fitted rates."""
    names, p, lengths = inputs(read(f"alpaca_eval/{MODELS[0]}.json"))
    found = length_controlled(names, p.tolist(), lengths, published)
    error = 100 * (found.high - found.low) / (2 * 1.96)
    print(f"standard error {error:.2f}; of the raw rate {100 * standard_error(p):.2f}")
    assert error == pytest.approx(1.48, abs=0.08)
    assert 100 * standard_error(p) == pytest.approx(1.42, abs=0.04)


def test_the_benchmark_gives_the_published_rate_from_the_published_files(
    read: Read, gamed: list[dict[str, Any]], leaderboard: dict[str, dict[str, str]]
) -> None:
    recipe = load_file(RECIPES / "demo.yaml", ["evaluate.benchmarks.alpaca_eval={}"]).recipe
    settings = recipe.evaluate.benchmarks.alpaca_eval
    assert settings
    benchmark = AlpacaEval(settings, recipe)
    items = benchmark.items([*gamed, *read("alpaca_eval/baseline.json")])
    assert len(items) == 805
    assert "published ones" not in benchmark.incomparable(items)
    assert "length control" not in benchmark.incomparable(items)
    assert "shut down" in benchmark.incomparable(items)
    by_instruction = {row["instruction"]: row for row in read("alpaca_eval/claude-2.json")}
    rows = {item.id: by_instruction[item.messages[0]["content"]] for item in items}
    played = Played(
        items,
        ["claude-2"],
        {
            "claude-2": {
                id: (EntrantAnswer((), row["output_2"], 0, "stop"),) for id, row in rows.items()
            }
        },
        {("claude-2",): {id: {"p": row["preference"] - 1} for id, row in rows.items()}},
    )
    found = {score.metric: 100 * score.estimate.value for score in benchmark.scores(played)}
    expected = leaderboard["claude-2"]
    assert found == pytest.approx(
        {
            "win rate": float(expected["win_rate"]),
            "length-controlled win rate": float(expected["length_controlled_winrate"]),
        },
        abs=0.1,
    )
