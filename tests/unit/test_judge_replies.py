"""What the judge reads out of a model's reply: verdicts and criteria, strictly."""

import math

import pytest

from moaa.chat.message import Choice
from moaa.errors import RowRejected
from moaa.judge import CRITERIA, TRIPLES, criteria, verdict


@pytest.mark.parametrize(
    "text",
    [
        "[[A]]",
        "So:\n[[A]]",
        "The better one is [[A]].",
        "**[[A]]**",
        "I weighed [[B]] too.\n[[A]] \n",
    ],
)
def test_a_parsed_verdict_is_what_the_text_ends_in(text):
    assert verdict.parsed(Choice(text)).letter == "A"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "A",
        "[[C]]",
        "[A]",
        "[[A]] is my verdict, I think",
        "[[A]]\nor not",
        "[[A]] or [[B]]",
        "[[a]]",
    ],
)
def test_anything_else_is_no_verdict(text):
    with pytest.raises(RowRejected, match="verdict unparseable"):
        verdict.parsed(Choice(text))


def test_a_soft_verdict_is_read_at_the_token_that_is_exactly_a_letter():
    tokens = (
        {"[[": -0.1, "A": -3.0},  # the letter is possible here, but was not taken
        {" A": math.log(0.5), "A": math.log(0.1), "B": math.log(0.2), "An": math.log(0.1)},
        {"]]": -0.01, "B": -5.0},
    )
    found = verdict.soft(Choice("[[A]]", tokens=tokens))
    assert found.letter == "A"
    assert found.soft
    assert found.p == pytest.approx(0.6 / 0.8)


def explained(*tokens: str, last: dict[str, float]) -> Choice:
    """A reply of an engine that knows no grammar: its verdict in brackets after an explanation;
    `last` is the letter's token."""
    before = [{"The": -9.0, token: -0.01} for token in tokens]
    text = "".join(tokens) + max(last, key=last.__getitem__) + "]]"
    return Choice(text, tokens=(*before, last, {"]]": -0.01}))


def test_an_explained_verdict_is_weighed_at_the_last_letter_not_at_the_first():
    found = verdict.soft(
        explained(
            "Answer",
            " A",
            " is",
            " wrong",
            ".\n",
            "[[",
            last={"B": math.log(0.9), "A": math.log(0.1)},
        )
    )
    assert found.letter == "B"
    assert found.soft
    assert found.p == pytest.approx(0.1)


@pytest.mark.parametrize("last", [{"[[B": -0.01, "[[A": -5.0}, {"B]]": -0.01}])
def test_a_verdict_without_its_own_token_is_hard_if_the_last_letter_is_the_other_one(
    last: dict[str, float],
):
    before = ({"A": -0.02, "B": -4.0}, {" is worse.\n": -0.01})
    assert verdict.soft(Choice("A is worse.\n[[B]]", tokens=(*before, last))) == ("B", 0.0, False)


def test_an_explained_verdict_that_was_sampled_against_the_odds_is_hard():
    tokens = ({"A": -0.1, "B": -2.4}, {"]]": -0.01})
    assert verdict.soft(Choice("Well.\n[[B]]", tokens=tokens)) == ("B", 0.0, False)


def test_masked_tokens_weigh_nothing():
    assert verdict.soft(Choice("B", tokens=({"A": -9999.0, "B": 0.0},))).p == 0.0
    assert verdict.soft(Choice("A", tokens=({"A": 0.0, "x": -9999.0},))).p == 1.0


@pytest.mark.parametrize("tokens", [None, (), ({"The": -0.1, "A": -4.0},)])
def test_without_log_probabilities_the_letter_alone_counts(tokens):
    assert verdict.soft(Choice("A", tokens=tokens)) == ("A", 1.0, False)
    assert verdict.soft(Choice(" **B**.", tokens=tokens)) == ("B", 0.0, False)


def test_there_are_56_triples_and_each_is_parsed_back():
    assert len(set(TRIPLES)) == 56
    assert len(CRITERIA) == 8
    for triple in TRIPLES:
        assert ", ".join(criteria.parse(triple)) == triple


def test_criteria_are_parsed_strictly_but_in_any_order_and_case():
    assert criteria.parse("I pick:\n**clarity**, Accuracy, INSTRUCTION ADHERENCE.") == (
        "Instruction adherence",
        "Accuracy",
        "Clarity",
    )
    for wrong in [
        "",
        "Accuracy, Depth",
        "Accuracy, Accuracy, Depth",
        "Accuracy, Depth, Charm",
        "Accuracy, Depth, Clarity, Safety",
        "Accuracy, Depth, Clarity, please",
    ]:
        with pytest.raises(RowRejected, match="criteria unparseable"):
            criteria.parse(wrong)


THOUGHT = (
    {"Answer": -0.1, "The": -2.3},
    {" A": -0.02, " B": -3.9},
    {" is": -0.1, " was": -2.3},
    {"</think>": -0.1, ".": -2.3},
)


def test_the_weight_of_a_verdict_is_not_read_from_the_judges_reasoning():
    own = {"B": math.log(0.9), "A": math.log(0.1)}
    found = verdict.soft(Choice("B", tokens=(*THOUGHT, own, {"<|im_end|>": -0.01})))
    assert (found.letter, found.soft) == ("B", True)
    assert found.p == pytest.approx(0.1)


@pytest.mark.parametrize("letter", ["A", "B"])
@pytest.mark.parametrize("thought", [THOUGHT, THOUGHT[:3], THOUGHT[:2] + THOUGHT[3:]])
def test_reasoning_without_the_verdicts_own_token_gives_no_weight(letter, thought):
    found = verdict.soft(Choice(letter, tokens=thought))
    assert found == (letter, float(letter == "A"), False)


@pytest.mark.parametrize("odd", [math.nan, -math.inf, -9999.0])
def test_a_verdict_is_never_nan_and_never_divided_by_nothing(odd):
    found = verdict.soft(Choice("A", tokens=({"A": odd, "B": odd},)))
    assert found == ("A", 1.0, False)
    assert verdict.soft(Choice("A", tokens=({"A": math.inf, "B": -2.0},))).p <= 1


def test_a_letter_that_was_written_against_the_odds_keeps_its_weight():
    found = verdict.soft(Choice("A", tokens=({"A": math.log(0.4), "B": math.log(0.6)},)))
    assert (found.letter, found.soft) == ("A", True)
    assert found.p == pytest.approx(0.4)
