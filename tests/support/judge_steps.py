"""A judge of three members, and models that answer each step of it."""

import math

from moaa.chat.message import Choice, Message, Reply
from moaa.judge.criteria import REPLY_FORM
from moaa.recipe import Judge, JudgeMember
from tests.support.judging import shown
from tests.support.scripted import last

THREE = tuple(JudgeMember(model=f"j{i}") for i in range(1, 4))
JUDGE = Judge(proposers=THREE, aggregator=JudgeMember(model="chair"))
QUERY: list[Message] = [{"role": "user", "content": "Name a prime."}]
TRIPLE = "Relevance, Accuracy, Clarity"


def letter_with(p: float) -> Reply:
    letter = "A" if p > 0.5 else "B"
    tokens = ({"A": math.log(p), "B": math.log(1 - p), "C": -9999.0},)
    return Reply((Choice(letter, tokens=tokens),))


def step(call) -> str:
    if call.model != "chair":
        return "assess"
    return "criteria" if last(call).endswith(REPLY_FORM) else "verdict"


def judging(p_first=lambda first, second: 0.5):
    def answer(call):
        match step(call):
            case "assess":
                return f"assessment by {call.model}"
            case "criteria":
                return TRIPLE
            case _:
                return letter_with(p_first(*shown(call)))

    return answer
