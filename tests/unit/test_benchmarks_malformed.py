"""Data with wrong rows fail their benchmark by name, while they are read, and no other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from moaa.benchmarks import guard
from moaa.benchmarks.instructions import checked
from moaa.benchmarks.table import BENCHMARKS
from moaa.errors import RecipeError
from moaa.recipe.load import load_file
from moaa.recipe.schema import Recipe
from tests.support.memory_store import MemoryStore
from tests.support.paths import DEMO

STORE: Any = MemoryStore()

QUESTION = {"question_id": 81, "category": "math", "turns": ["Two?", "Three?"]}
REFERENCE = {"question_id": 81, "choices": [{"turns": ["2", "3"]}]}
INSTRUCTION = {"instruction": "Say it.", "output": "It."}
PROMPT = {"uid": "u", "prompt": "Say it."}
BASELINE = {"uid": "u", "messages": [{"content": {"answer": "It."}}]}
PAIR = {
    "pair_id": "p",
    "source": "livebench-math",
    "question": "1 + 1?",
    "response_model": "m",
    "response_A": "2",
    "response_B": "3",
    "label": "A>B",
}
REWARD = {"id": 1, "prompt": "Say it.", "chosen": "It.", "rejected": "No.", "subset": "hep-go"}
VOTE = {"question_id": 1, "prompt": "?", "response_1": "a", "response_2": "b", "winner": "model_a"}
BEST = {"question_id": 1, "prompt": "?", "response_1": "a", "response_2": "b", "scores": [1, 0]}
INSTRUCTED = {"key": 1, "prompt": "Write.", "instruction_id_list": ["a"], "kwargs": [{}]}
CHOICES = {
    "question_id": 1,
    "question": "?",
    "options": ["a", "b"],
    "answer": "A",
    "category": "law",
    "src": "s",
}

READABLE = "two different questions"
"""They have no score, but training prompts are kept away from both."""

WRONG: list[tuple[str, list[Any], str]] = [
    ("mt_bench", [QUESTION, "str"], 'row 2 of FILE is "str": expected an object'),
    ("mt_bench", [{**QUESTION, "turns": []}], "row 1 of FILE: turns is []: "),
    ("mt_bench", [{**QUESTION, "turns": ["a", "b", "c"]}], "turns is ['a', 'b', 'c']: "),
    ("mt_bench", [{**QUESTION, "turns": "abc"}], "turns is 'abc': "),
    ("mt_bench", [QUESTION, {**REFERENCE, "choices": []}], "row 2 of FILE: choices is []: "),
    ("mt_bench", [REFERENCE, {**REFERENCE, "choices": [{"turns": ["4"]}]}], "another reference"),
    ("mt_bench", [QUESTION, {**QUESTION, "turns": ["Four?"]}], READABLE),
    ("mt_bench", [], "FILE (0 rows)"),
    ("alpaca_eval", [{"instruction_difficulty": 1}], "it has no index; "),
    ("alpaca_eval", [{**INSTRUCTION, "output": None}], "output is None: "),
    ("alpaca_eval", [INSTRUCTION, {**INSTRUCTION, "output": "?"}], READABLE),
    ("alpaca_eval", [], "FILE (0 rows)"),
    ("arena_hard", [PROMPT, {"uid": "u", "messages": []}], "row 2 of FILE: messages is []: "),
    ("arena_hard", [PROMPT, BASELINE, {**PROMPT, "prompt": "?"}], READABLE),
    (
        "arena_hard",
        [PROMPT, BASELINE, {"uid": "u", "messages": [{"content": "Other."}]}],
        "row 3 of FILE: it is another answer to its prompt",
    ),
    ("arena_hard", [{**PROMPT, "category": "creative_writing"}], "FILE (1 rows)"),
    ("judge_bench", [{**PAIR, "source": None}], "source is None: "),
    ("judge_bench", [{**PAIR, "question": None}], "question is None: "),
    ("judge_bench", [PAIR, {**PAIR, "response_B": "4"}], READABLE),
    ("judge_bench", [], "FILE (0 rows)"),
    ("reward_bench", [{**REWARD, "prompt": None}], "prompt is None: "),
    ("reward_bench", [{**REWARD, "chosen": [None]}], "chosen.0 is None: "),
    ("reward_bench", [REWARD, {**REWARD, "rejected": "Never."}], READABLE),
    ("reward_bench", [], "FILE (0 rows)"),
    ("ppe", [{**VOTE, "response_2": 7}], "response_2 is 7: "),
    ("ppe", [{**BEST, "sampled_conflict_pairs": [[0, 2]]}], "the pair [0, 2] has no two texts"),
    ("ppe", [{**BEST, "sampled_conflict_pairs": [0]}], "sampled_conflict_pairs.0 is 0: "),
    ("ppe", [{**VOTE, "winner": "tie"}], "FILE (1 rows)"),
    ("ppe", [VOTE, {**VOTE, "winner": "response_1"}], "winner is 'response_1': expected model_a"),
    ("gsm8k", ["x"], 'row 1 of FILE is "x": expected an object'),
    ("gsm8k", [{"question": "?", "answer": 2}], "answer is 2: "),
    ("gsm8k", [], "FILE (0 rows)"),
    ("ifeval", [{**INSTRUCTED, "kwargs": []}], "1 instructions, but 0 kwargs: each has its own"),
    ("ifbench", [{**INSTRUCTED, "instruction_id_list": "a"}], "instruction_id_list is 'a': "),
    ("mmlu_pro", [{**CHOICES, "options": "ab"}], "options is 'ab': "),
    ("mmlu_pro", [CHOICES, {"cot_content": "So A.", "category": "law"}], "it has no question_id"),
    ("humaneval", [{"task_id": "0", "prompt": None}], "prompt is None: "),
]


def recipe_of(folder: Path, name: str, rows: list[Any]) -> tuple[Recipe, str]:
    """A recipe with this benchmark alone, on these rows; and the name of their file."""
    file = folder / "PPE-MATH-Best-of-K.json"
    file.write_text(json.dumps(rows))
    chosen = f"evaluate.benchmarks={{head_to_head: null, {name}: {{data: [{{source: '{file}'}}]}}}}"
    return load_file(DEMO, [chosen]).recipe, str(file)


@pytest.mark.parametrize(("name", "rows", "why"), WRONG)
def test_a_wrong_row_is_named_with_what_was_given(
    tmp_path: Path, name: str, rows: list[Any], why: str
) -> None:
    recipe, file = recipe_of(tmp_path, name, rows)
    benchmark = BENCHMARKS[name](recipe.evaluate.chosen[name], recipe)
    with pytest.raises(RecipeError) as error:
        guard.questions(benchmark, STORE)
    assert why.replace("FILE", file) in str(error.value)


@pytest.mark.parametrize(("name", "rows", "why"), [each for each in WRONG if each[2] != READABLE])
def test_the_prompts_are_chosen_without_a_benchmark_that_cannot_be_read(
    tmp_path: Path, name: str, rows: list[Any], why: str
) -> None:
    recipe, file = recipe_of(tmp_path, name, rows)
    asked, missing = guard.prompts(recipe, STORE)
    assert asked == []
    assert list(missing) == [BENCHMARKS[name].title]
    assert why.replace("FILE", file) in missing[BENCHMARKS[name].title]


class Checker:
    """A checker of the number of words."""

    def __init__(self, name: str) -> None:
        self.name = name

    def build_description(self, *, words: int) -> str:
        """Take the argument."""
        return f"{words + 0} words"


@pytest.mark.parametrize(
    ("name", "kwargs", "why"),
    [
        ("words:least", {"words": 3}, "instruction 'words:least' is unknown here"),
        ("words:most", {"lines": 3}, "cannot be checked with {'lines': 3}: TypeError"),
        ("words:most", {"words": "many"}, "cannot be checked with {'words': 'many'}: TypeError"),
    ],
)
def test_an_instruction_that_nothing_checks_is_refused_by_name(
    name: str, kwargs: dict[str, Any], why: str
) -> None:
    doc = {"key": 5, "prompt": "Write.", "instruction_id_list": [name], "kwargs": [kwargs]}
    with pytest.raises(RecipeError, match="question 5: ") as error:
        checked("ifbench", [doc], {"words:most": Checker})
    assert why in str(error.value)


def test_instructions_with_their_checkers_are_taken() -> None:
    doc = {"key": 5, "instruction_id_list": ["words:most"], "kwargs": [{"words": 3}]}
    checked("ifbench", [doc], {"words:most": Checker})
