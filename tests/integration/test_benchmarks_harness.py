"""Tasks of lm-eval, and the checkers of IFEval and IFBench, on a few documents of our own."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest

from moaa.benchmarks import harness, nltk_data
from moaa.benchmarks.table import BENCHMARKS
from moaa.errors import RecipeError
from moaa.recipe.load import load_file
from moaa.recipe.reasoning import Gsm8k
from tests.support.paths import RECIPES


def benchmark(name: str, **settings: Any) -> Any:
    sets = [f"evaluate.benchmarks.{name}={{}}"]
    sets += [f"evaluate.benchmarks.{name}.{key}={value}" for key, value in settings.items()]
    recipe = load_file(RECIPES / "demo.yaml", sets).recipe
    return BENCHMARKS[name](recipe.evaluate.chosen[name], recipe)


SHEEP = {"question": "Ann has 1,000 sheep and buys 18. How many?", "answer": "Sum.\n#### 1,018"}
APPLES = {"question": "Bob eats 2 of 5 apples. How many are left?", "answer": "5-2=3\n#### 3"}


def test_gsm8k_takes_the_number_strictly_and_flexibly() -> None:
    gsm8k = benchmark("gsm8k")
    items = {item.given["question"]: item for item in gsm8k.items([SHEEP, APPLES])}
    sheep = items[SHEEP["question"]]
    assert sheep.messages[0]["content"].endswith("A: Let's think step by step.")
    assert sheep.sampling.stop == ("Q:", "</s>", "<|im_end|>")

    def marks(text: str) -> tuple[float, float]:
        found = gsm8k.marks(sheep.given, text)
        return found["exact_match, strict-match"], found["exact_match, flexible-extract"]

    assert marks("1,000 and 18. The answer is 1,018.") == (1, 1)
    assert marks("So she has $1018 in sheep") == (0, 1)
    assert marks("The answer is 1,019.") == (0, 0)
    assert marks("It is 1018. Q: and 5 more?") == (0, 1)  # cut where an answer ends
    assert marks("") == (0, 0)
    assert "not the published" not in gsm8k.incomparable(list(items.values()))
    assert "2 of its 1,319 questions" in gsm8k.incomparable(list(items.values()))


def test_a_task_with_examples_of_its_own_shows_them_as_turns() -> None:
    gsm8k = benchmark("gsm8k", task="gsm8k_cot")
    (item,) = gsm8k.items([APPLES])
    assert [each["role"] for each in item.messages] == ["user", "assistant"] * 8 + ["user"]
    with pytest.raises(RecipeError, match="shows 5 solved examples, but its data hold 0"):
        harness.load("gsm8k", [APPLES], folder="gsm8k")


@pytest.mark.parametrize("task", get_args(Gsm8k.model_fields["task"].annotation))
def test_every_task_of_gsm8k_marks_an_answer(task: str) -> None:
    gsm8k = benchmark("gsm8k", task=task)
    (item,) = gsm8k.items([APPLES])
    marks = gsm8k.marks(item.given, "The final answer is 3. The answer is 3.")
    assert set(marks.values()) == {1}
    assert gsm8k.main in marks


@pytest.mark.parametrize(
    ("folder", "task", "why"),
    [
        ("hellaswag", "hellaswag", "log-probabilities of given answers"),
        ("humaneval", "humaneval_instruct", "begins the model's answer"),
        ("humaneval", "humaneval", "runs code that the model wrote"),
    ],
)
def test_what_an_endpoint_cannot_do_honestly_is_refused_by_name(
    folder: str, task: str, why: str
) -> None:
    with pytest.raises(RecipeError, match=why) as error:
        harness.load(task, [], folder=folder)
    assert task in str(error.value)


def test_mmlu_pro_shows_solved_examples_of_the_subject() -> None:
    def row(number: int, subject: str, thought: str = "") -> dict[str, Any]:
        return {
            "question_id": number,
            "question": f"Question {number}?",
            "options": ["yes", "no"],
            "answer": "B",
            "answer_index": 1,
            "cot_content": thought,
            "category": subject,
            "src": f"book {subject}",
        }

    solved = [row(n, "law", "A: Let's think step by step. The answer is (B).") for n in range(2)]
    mmlu_pro = benchmark("mmlu_pro", examples=2)
    (item,) = mmlu_pro.items([*solved, row(70, "law")])
    assert (item.id, item.group) == ("70", "book law")
    assert mmlu_pro.subset(item) == "law"
    roles = [each["role"] for each in item.messages]
    assert roles == ["system", "user", "assistant", "user", "assistant", "user"]
    assert item.messages[2]["content"] == "The answer is (B)."
    assert list(mmlu_pro.marks(item.given, "Thus the answer is (B).").values()) == [1.0]
    assert list(mmlu_pro.marks(item.given, "Thus the answer is (A).").values()) == [0.0]
    with pytest.raises(RecipeError, match="0 solved examples of computer science"):
        mmlu_pro.items([*solved, row(71, "computer science")])


def instructed(name: str, kwargs: dict[str, Any]) -> dict[str, Any]:
    return {"key": 7, "prompt": "Write.", "instruction_id_list": [name], "kwargs": [kwargs]}


def test_ifeval_checks_strictly_and_loosely() -> None:
    row = instructed("startend:quotation", {})
    row |= {
        "instruction_id_list": ["startend:quotation", "punctuation:no_comma"],
        "kwargs": [{"relation": None}, {}],
    }
    ifeval = benchmark("ifeval")
    (item,) = ifeval.items([row])
    assert item.messages == ({"role": "user", "content": "Write."},)
    marks = ifeval.marks(item.given, 'Sure, here it is:\n"Quoted text"')
    assert marks["prompt, strict"] == 0
    assert marks["instruction, strict"] == [False, False]
    assert marks["prompt, loose"] == 1  # without the first line
    assert ifeval.marks(item.given, '"Quoted text"')["prompt, strict"] == 1


def test_ifeval_takes_the_same_letter_for_a_sign_each_time() -> None:
    """Its checker draws a letter where the prompt names none, as in two of the 541 prompts."""
    kwargs = {"let_relation": "at least", "letter": "#", "let_frequency": 2}
    ifeval = benchmark("ifeval")
    (item,) = ifeval.items([instructed("keywords:letter_frequency", kwargs)])
    verdicts = [ifeval.marks(item.given, "eel")["prompt, strict"] for _ in range(8)]
    assert verdicts == [1] * 8


def test_ifeval_splits_sentences_with_data_of_a_package() -> None:
    row = instructed("length_constraints:number_sentences", {})
    row["kwargs"] = [{"num_sentences": 3, "relation": "at least"}]
    ifeval = benchmark("ifeval")
    (item,) = ifeval.items([row])
    assert ifeval.marks(item.given, "One. Two? Three!")["prompt, strict"] == 1
    assert ifeval.marks(item.given, "Mr. One, Dr. Two")["prompt, strict"] == 0


def test_ifbench_leaves_out_what_nothing_here_can_check_and_says_it() -> None:
    rows = [
        instructed("count:word_count_range", {"min_words": 2, "max_words": 4}),
        {**instructed("words:start_verb", {}), "key": 8},
    ]
    ifbench = benchmark("ifbench")
    (item,) = ifbench.items(rows)
    assert item.id == "7"
    assert "1 are left out" in ifbench.incomparable([item])
    assert ifbench.marks(item.given, "Three words here")["prompt, loose"] == 1
    marks = ifbench.marks(item.given, "")
    assert (marks["prompt, strict"], marks["instruction, strict"]) == (0, [False])


@pytest.mark.parametrize(
    ("name", "known", "kwargs"),
    [
        ("ifeval", "keywords:existence", {"keywords": ["rain"]}),
        ("ifbench", "count:word_count_range", {"min_words": 2, "max_words": 4}),
    ],
)
def test_an_instruction_without_a_checker_is_refused_by_name_before_a_model_is_asked(
    name: str, known: str, kwargs: dict[str, Any]
) -> None:
    chosen = benchmark(name)
    assert len(chosen.items([instructed(known, kwargs)])) == 1
    with pytest.raises(RecipeError, match="question 7: instruction 'no:such' is unknown here"):
        chosen.items([instructed("no:such", {})])
    with pytest.raises(RecipeError, match=f"'{known}' cannot be checked with .*'no_such': 1"):
        chosen.items([instructed(known, {"no_such": 1})])


def test_data_that_are_missing_are_named_and_never_downloaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import nltk

    monkeypatch.setattr(nltk.data, "path", [])
    monkeypatch.setenv("MOAA_CACHE", str(tmp_path))
    monkeypatch.setenv("MOAA_PACKAGES", str(tmp_path / "none"))
    with pytest.raises(RecipeError, match=r"needs NLTK's punkt_tab: .*pip install"):
        nltk_data.need("IFEval", nltk_data.SENTENCES)
    with nltk_data.without_downloads():
        assert nltk.download("punkt_tab") is False
