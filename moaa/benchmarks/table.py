"""Every benchmark by its name in `evaluate.benchmarks`. A new one is a file, its settings in
moaa/recipe/evaluation.py, and a line here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from moaa.benchmarks.alpaca_eval import AlpacaEval
from moaa.benchmarks.arena_hard import ArenaHard
from moaa.benchmarks.benchmark import Benchmark
from moaa.benchmarks.gsm8k import Gsm8k
from moaa.benchmarks.head_to_head import HeadToHead
from moaa.benchmarks.humaneval import HumanEval
from moaa.benchmarks.ifbench import Ifbench
from moaa.benchmarks.ifeval import Ifeval
from moaa.benchmarks.judge_bench import JudgeBench
from moaa.benchmarks.mmlu_pro import MmluPro
from moaa.benchmarks.mt_bench import MtBench
from moaa.benchmarks.ppe import Ppe
from moaa.benchmarks.reward_bench import RewardBench
from moaa.declaration import RoleCalls
from moaa.recipe.schema import Recipe

BENCHMARKS: Final[dict[str, type[Benchmark[Any]]]] = {
    each.name: each
    for each in (
        HeadToHead,
        AlpacaEval,
        ArenaHard,
        MtBench,
        JudgeBench,
        RewardBench,
        Ppe,
        Gsm8k,
        Ifeval,
        Ifbench,
        MmluPro,
        HumanEval,
    )
}


def chosen(recipe: Recipe) -> list[Benchmark[Any]]:
    """Return the benchmarks that the recipe chose, with their settings, in the table's order."""
    settings = recipe.evaluate.chosen
    return [each(settings[name], recipe) for name, each in BENCHMARKS.items() if name in settings]


def calls(recipe: Recipe) -> Iterator[RoleCalls]:
    """Yield the calls of all benchmarks that the recipe chose, for the plan."""
    for benchmark in chosen(recipe):
        yield from benchmark.calls(recipe)
