"""HumanEval: the program of an answer, and what its outcome says."""

from __future__ import annotations

import asyncio
import textwrap
from typing import Any

import pytest

from moaa.benchmarks import Entrant, EntrantAnswer, Played
from moaa.benchmarks.benchmark import Match
from moaa.benchmarks.humaneval import HumanEval, code_of, program
from moaa.errors import RowRejected
from moaa.recipe.load import load_file
from moaa.recipe.reasoning import HumanEval as Settings
from moaa.sandbox import inside
from tests.support.paths import RECIPES
from tests.support.scripted import Ask

DOC = {
    "task_id": "HumanEval/0",
    "prompt": "from typing import List\n\n"
    'def double(items: List[int]) -> List[int]:\n    """Each twice."""\n',
    "test": "def check(candidate):\n    assert candidate([1]) == [2]\n",
    "entry_point": "double",
}
RIGHT = "def double(items: List[int]) -> List[int]:\n    return [2 * each for each in items]\n"
BENCHMARK = HumanEval(Settings(), load_file(RECIPES / "demo.yaml").recipe)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"Here it is:\n```python\n{RIGHT}```\nIt doubles.", "passed"),
        (f"```python\n{RIGHT}", "passed"),  # the end of the block was cut
        (f"```\nprint(1)\n```\nThen:\n```py\n{RIGHT}```", "passed"),
        (RIGHT, "passed"),
        ("    return [each + each for each in items]", "passed"),  # the rest of the function
        (f"```python\nfrom __future__ import annotations\n\n{RIGHT}```", "passed"),
        (f"1. So:\n\n   ```python\n{textwrap.indent(RIGHT, '   ')}   ```", "passed"),
        ("```python\ndef double(items):\n    return items\n```", "AssertionError"),
        ("I cannot do that.", "SyntaxError"),
        ("", "AssertionError"),  # the prompt's own function gives None
    ],
)
def test_the_program_of_an_answer(text: str, said: str) -> None:
    assert inside.outcome(program(DOC, text)) == said


def test_the_last_block_with_the_function_is_its_code() -> None:
    text = "```python\ndef double(x): pass\n```\nBetter:\n```python\ndef double(x): return 1\n```"
    assert code_of(text, "double") == "def double(x): return 1\n"
    assert code_of(text, "other") == "def double(x): pass\n"


def judged(run_program: Any) -> Any:
    (item,) = BENCHMARK.items([DOC])
    assert DOC["prompt"] in item.messages[0]["content"]
    match = Match(
        item,
        (Entrant("base", model="base"),),
        ((EntrantAnswer(item.messages, RIGHT, 9, "stop"),),),
        run_program=run_program,
    )
    row = asyncio.run(BENCHMARK.judge_match(match, Ask(lambda call: "")))
    return row, BENCHMARK.scores(
        Played([item], ["base"], {"base": {item.id: match.answers[0]}}, {("base",): {item.id: row}})
    )


def test_an_outcome_is_a_mark() -> None:
    async def passed(text: str) -> str:
        return "passed"

    async def late(text: str) -> str:
        return "timeout"

    row, (score,) = judged(passed)
    assert (row["outcome"], score.metric, score.estimate.value) == ("passed", "pass@1", 1.0)
    row, (score,) = judged(late)
    assert (row["outcome"], score.estimate.value) == ("timeout", 0.0)


def test_without_a_sandbox_nothing_is_run() -> None:
    assert BENCHMARK.runs_programs
    with pytest.raises(RowRejected, match="no pod for programs"):
        judged(None)
