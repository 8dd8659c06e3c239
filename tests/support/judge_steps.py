"""A judge of three members, and models that answer each step of it."""

import math
import re

from moaa.chat.message import Choice, Message, Reply
from moaa.judge.criteria import REPLY_FORM
from moaa.recipe import Judge, JudgeMember
from tests.support.scripted import last

THREE = tuple(JudgeMember(model=f"j{i}") for i in range(1, 4))
JUDGE = Judge(proposers=THREE, aggregator=JudgeMember(model="chair"))
QUERY: list[Message] = [{"role": "user", "content": "Name a prime."}]
TRIPLE = "Relevance, Accuracy, Clarity"


def letter_with(p: float) -> Reply:
    letter = "A" if p > 0.5 else "B"
    tokens = ({"A": math.log(p), "B": math.log(1 - p), "C": -9999.0},)
    return Reply((Choice(letter, tokens=tokens),))


def shown(call) -> tuple[str, str]:
    """The two answers of a judge's prompt, in the order shown."""
    found = re.findall(r"<answer_[ab] (\w+)>\n(.*?)\n</answer_[ab] \1>", last(call), re.DOTALL)
    (_, first), (_, second) = found
    return first, second


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
