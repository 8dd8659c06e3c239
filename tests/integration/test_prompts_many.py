"""Prompts are chosen from tens of thousands in seconds."""

import random
import time

from moaa.prompts.selection import build
from tests.support.prompt_texts import CONFIG, fates, prompt, text


def test_tens_of_thousands_of_prompts_take_seconds():
    draw = random.Random(3)
    boilerplate = [text(draw, 40) for _ in range(10)]
    rows = [prompt(f"{draw.choice(boilerplate)} {text(draw, 40, 50_000)}") for _ in range(10_000)]
    rows += [prompt(f"{row.turns[0]} please") for row in rows[:500]]
    evaluation = [prompt(text(draw, 60, 50_000)) for _ in range(200)]
    began = time.process_time()
    selection = build({"sft": rows, "evaluation": evaluation}, CONFIG)
    assert fates(selection, "sft") == {"near duplicate": 500}
    assert time.process_time() - began < 30
