"""Benchmarks of reasoning: marks, paired differences, what is not comparable. Without lm-eval."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pytest
from pydantic import ValidationError

from moaa.benchmarks import Entrant, EntrantAnswer, Played, Score
from moaa.benchmarks.data import digest_of
from moaa.benchmarks.harness import Doc, Marks
from moaa.benchmarks.mmlu_pro import stratified
from moaa.benchmarks.reasoning import Reasons, plain
from moaa.benchmarks.rows import DataRow
from moaa.chat.message import Message, opening
from moaa.errors import RecipeError
from moaa.recipe.load import load_file
from moaa.recipe.reasoning import Reasoning
from tests.support.judging import play
from tests.support.paths import RECIPES
from tests.support.scripted import Ask

RECIPE = load_file(RECIPES / "demo.yaml").recipe


class Sum(DataRow):
    question: str
    answer: str
    kind: str


class Sums(Reasons[Reasoning]):
    """A benchmark of sums: `strict` is the number alone, `all` has two verdicts."""

    name: ClassVar[str] = "sums"
    title: ClassVar[str] = "Sums"
    main: ClassVar[str] = "strict"
    row: ClassVar[type[DataRow]] = Sum
    count: ClassVar[int] = 4
    content: ClassVar[str] = ""

    @property
    def stops(self) -> tuple[str, ...]:
        return ("Q:", "a", "b", "c", "d")

    def identity(self, doc: Doc) -> str:
        return str(doc["question"])

    def group(self, doc: Doc) -> str:
        return str(doc["kind"])

    def subset(self, item: Any) -> str:
        return str(item.given["kind"])

    def messages(self, doc: Doc) -> tuple[Message, ...]:
        return tuple(opening(None, doc["question"]))

    def marks(self, doc: Doc, text: str) -> Marks:
        right = text == doc["answer"]
        return {"strict": float(right), "all": [right, bool(text)]}


ROWS = [
    {"question": "1+1", "answer": "2", "kind": "plus"},
    {"question": "1+2", "answer": "3", "kind": "plus"},
    {"question": "2*2", "answer": "4", "kind": "times"},
    {"question": "2*3", "answer": "6", "kind": "times"},
]


def sums(**settings: Any) -> Sums:
    return Sums(Reasoning(**settings), RECIPE)


def given(texts: Mapping[str, str], ends: str = "stop") -> dict[str, tuple[EntrantAnswer, ...]]:
    return {id: (EntrantAnswer((), text, 10, ends),) for id, text in texts.items()}


def played(benchmark: Sums, answers: dict[str, dict[str, tuple[EntrantAnswer, ...]]]) -> Played:
    entrants = [Entrant(name, model=name) for name in answers]
    return play(benchmark, benchmark.items(ROWS), entrants, Ask(lambda call: ""), answers)


def one(scores: Sequence[Score], *which: str) -> Score:
    (found,) = [s for s in scores if (s.entrant, s.metric, s.subset) == which]
    return found


RIGHT = given({"1+1": "2", "1+2": "3", "2*2": "4", "2*3": "6"})
HALF = given({"1+1": "2", "1+2": "5", "2*2": "4", "2*3": ""}, "length")


def test_shares_and_paired_differences_to_the_base() -> None:
    benchmark = sums()
    scores = benchmark.scores(played(benchmark, {"base": RIGHT, "dpo": HALF}))
    assert one(scores, "base", "strict", "").estimate.value == 1.0
    dpo = one(scores, "dpo", "strict", "")
    assert dpo.main
    assert dpo.estimate.value == 0.5
    assert dpo.about == {}, "cut and empty answers stand among the lengths, with intervals"
    assert one(scores, "dpo", "strict", "times").estimate.value == 0.5
    difference = one(scores, "dpo", "strict difference", "")
    assert difference.against == "base"
    assert difference.estimate.value == -0.5
    assert difference.estimate.unit == "difference of shares"
    assert not [s for s in scores if s.entrant == "base" and s.against]


def test_verdicts_on_one_answer_are_counted_each() -> None:
    benchmark = sums()
    scores = benchmark.scores(played(benchmark, {"base": HALF}))
    all_verdicts = one(scores, "base", "all", "").estimate
    assert all_verdicts.n == 8
    assert all_verdicts.value == (2 + 3) / 8


def test_a_difference_is_over_the_questions_that_both_answered() -> None:
    benchmark = sums()
    whole = played(benchmark, {"base": RIGHT, "dpo": HALF})
    judgements = {who: dict(rows) for who, rows in whole.judgements.items()}
    del judgements["base",]["1+2"]
    del judgements["dpo",]["1+1"]
    scores = benchmark.scores(Played(whole.items, whole.entrants, whole.answers, judgements))
    difference = one(scores, "dpo", "strict difference", "").estimate
    assert difference.n == 2
    assert difference.value == -0.5
    assert one(scores, "dpo", "strict", "").estimate.n == 3


def test_an_entrant_without_any_mark_has_no_score() -> None:
    benchmark = sums()
    whole = played(benchmark, {"base": RIGHT, "dpo": HALF})
    scores = benchmark.scores(
        Played(whole.items, whole.entrants, whole.answers, {("base",): whole.judgements["base",]})
    )
    assert {score.entrant for score in scores} == {"base"}


def test_no_judge_is_asked_and_answers_are_greedy_and_long() -> None:
    benchmark = sums()
    assert benchmark.judges == frozenset()
    sampling = benchmark.items(ROWS)[0].sampling
    assert sampling is not None
    assert (sampling.temperature, sampling.max_tokens) == (0.0, 2048)
    assert sampling.stop == ("Q:", "a", "b", "c")  # the protocol takes four
    with pytest.raises(ValidationError, match="greater than or equal to 2048"):
        Reasoning(max_tokens=256)


def test_rows_of_something_else_are_refused_with_what_is_missing() -> None:
    with pytest.raises(RecipeError, match=r"sums: a row: it has no answer; it has no kind\. Each"):
        sums().items([ROWS[0], {"question": "5+5"}])
    with pytest.raises(RecipeError, match=r"two different questions are called '1\+1'"):
        sums().items([ROWS[0], {**ROWS[0], "answer": "3"}])
    assert sums().items([]) == []


def test_the_same_content_is_the_same_from_a_file_and_from_the_hub() -> None:
    file = {"key": 1, "kwargs": [{}, {"n": 3}]}
    hub = {"key": 1, "kwargs": [{"n": None, "word": None}, {"n": 3.0, "word": None}]}
    assert plain(hub) == plain(file)
    assert digest_of([{"a": 1}, {"b": 2}]) == digest_of([{"b": 2}, {"a": 1}])
    other = [{**row, "added": 1} for row in reversed(ROWS)]
    assert sums().items(other) == sums().items(ROWS)


def test_why_a_share_is_not_that_of_published_tables() -> None:
    benchmark = sums(limit=2)
    items = benchmark.items(ROWS)
    assert [item.id for item in items] == ["1+1", "2*2"]
    assert benchmark.incomparable(items) == "2 of its 4 questions."
    benchmark = sums()
    assert benchmark.incomparable(benchmark.items(ROWS)) == ""

    class Known(Sums):
        content: ClassVar[str] = digest_of(ROWS[:3])

    known = Known(Reasoning(), RECIPE)
    assert "not the published ones" in known.incomparable(known.items(ROWS))


def test_a_stratified_sample_is_fixed_and_proportional() -> None:
    docs = [
        {"question_id": i, "category": "law" if i % 10 < 7 else "math" if i % 10 < 9 else "art"}
        for i in range(1000)
    ]
    found = stratified(docs, 25)
    assert Counter(doc["category"] for doc in found) == {"law": 17, "math": 5, "art": 3}
    assert stratified(docs[::-1], 25) == found
    assert len({doc["question_id"] for doc in found}) == 25
    assert stratified(docs, None) == docs
