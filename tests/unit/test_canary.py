"""The canary set: another model is told from the judged one, noise is not."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from aiohttp import web

from moaa.chat.logprobs import Position
from moaa.chat.pool import Endpoint
from moaa.errors import CallError, MoaaError
from moaa.registry.canary import KEPT, TOKENS, TOLERANCE, Canary, CanaryResult, compare
from tests.support.engine_answers import Body, answer
from tests.support.engine_server import EngineServer, Fault, status

WORDS = ("The", " sky", " is", " blue")


def position(**probabilities: float) -> Position:
    return {token: math.log(p) for token, p in probabilities.items()}


def test_equal_answers_have_no_distance() -> None:
    same = [position(a=0.6, b=0.4), position(c=1.0)]
    assert compare(same, same) == [0.0, 0.0]


def test_the_distance_is_the_total_variation_of_what_is_known_and_the_rest() -> None:
    known, served = [position(a=0.6, b=0.3)], [position(a=0.5, b=0.2, c=0.3)]
    assert compare(known, served) == [pytest.approx((0.1 + 0.1 + 0.2) / 2)]


def test_nothing_is_compared_behind_the_first_token_that_differs() -> None:
    """Two tokens that are about as likely: noise decides which one is written."""
    known = [position(a=0.5, b=0.49), position(x=1.0)]
    served = [position(b=0.5, a=0.49), position(y=1.0)]
    assert compare(known, served) == [pytest.approx(0.01)]


@pytest.mark.parametrize("swapped", [False, True])
def test_an_answer_that_ends_before_the_other_differs_there(swapped: bool) -> None:
    long, short = [position(a=1.0), position(b=1.0)], [position(a=1.0)]
    given = (short, long) if swapped else (long, short)
    assert compare(*given) == [0.0, 1.0]


def rows(*probabilities: float) -> list[dict[str, Any]]:
    """The table of an evaluation: one row an answer whose tokens have this probability."""
    return [
        {
            "id": str(number),
            "messages": [{"role": "user", "content": f"Question {number}"}],
            "text": "".join(WORDS),
            "positions": [{word: math.log(p), "other": math.log(1 - p)} for word in WORDS],
        }
        for number, p in enumerate(probabilities)
    ]


def says(p: float, words: tuple[str, ...] = WORDS) -> Fault:
    """Answers with these words, each of this probability."""

    async def fault(request: web.Request, body: Body) -> web.StreamResponse:
        assert (body["temperature"], body["max_tokens"]) == (0, TOKENS)
        found = answer(body)
        (choice,) = found["choices"]
        choice["message"]["content"] = "".join(words)
        top = [{"token": "other", "logprob": math.log(1 - p)}]
        choice["logprobs"] = {
            "content": [
                {"token": word, "logprob": math.log(p), "top_logprobs": top} for word in words
            ]
        }
        return web.json_response(found)

    return fault


def canary() -> Canary:
    found = Canary.of_rows(rows(0.9, 0.9))
    assert found
    return found


def test_the_judged_model_is_known_again_through_its_noise() -> None:
    with EngineServer("aligned") as server:
        server.fail(says(0.9), says(0.9 - TOLERANCE))
        found = canary().ask(Endpoint(server.url, "aligned"))
    assert found.agrees
    assert found.distance == pytest.approx(TOLERANCE / 2, abs=1e-4)
    assert (found.same_texts, found.prompts, found.positions) == (2, 2, 8)


@pytest.mark.parametrize(
    ("distance", "judged"),
    [(0.0155, True), (0.0278, False)],
    ids=["the same weights, another kernel", "weights in 8 bits"],
)
def test_the_tolerance_lies_between_what_was_measured(distance: float, judged: bool) -> None:
    assert CanaryResult(distance, 400, 9, 16).agrees is judged


@pytest.mark.parametrize("wrong", [says(0.6), says(0.9, ("No", " idea"))])
def test_another_model_is_refused_whether_its_words_or_only_its_probabilities_differ(
    wrong: Fault,
) -> None:
    with EngineServer("aligned") as server:
        server.fail(wrong, times=2)
        found = canary().ask(Endpoint(server.url, "aligned"))
    assert not found.agrees
    assert "of 2 canary answers are the same, mean distance " in str(found)


def test_a_server_without_log_probabilities_cannot_be_compared() -> None:
    with EngineServer("aligned") as server:
        server.say = lambda body: "The sky is blue"
        with pytest.raises(MoaaError, match="gives no log-probabilities"):
            canary().ask(Endpoint(server.url, "aligned"))


def test_a_server_that_does_not_answer_is_an_error() -> None:
    with EngineServer("aligned") as server:
        server.fail(status(400), times=2)
        with pytest.raises(CallError):
            canary().ask(Endpoint(server.url, "aligned"))


def test_the_file_holds_the_likeliest_tokens_and_reads_back_the_same() -> None:
    (row,) = rows(0.9)
    row["positions"][0] = {"rare": -9.0} | {f"t{n}": -float(n + 1) for n in range(20)}
    made = Canary.of_rows([row])
    assert made
    assert list(made.known[0].positions[0]) == ["rare", *(f"t{n}" for n in range(KEPT - 1))]
    assert Canary.of(made.text(), "s3://x/canary.json") == made


def test_an_empty_table_has_no_canary_set() -> None:
    assert Canary.of_rows([]) is None


@pytest.mark.parametrize("text", ["", "[]", json.dumps({"known": [{}], "max_tokens": 1})])
def test_what_is_no_canary_set_is_named(text: str) -> None:
    with pytest.raises(MoaaError, match=r"s3://x/canary\.json is not a canary set"):
        Canary.of(text, "s3://x/canary.json")
