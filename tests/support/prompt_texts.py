"""Prompts and texts of words for tests of the selection."""

import random
from collections import Counter

from moaa.prompts.prompt import PromptRow, read_prompt
from moaa.recipe.schema import Prompts, Source

SOURCE = Source(source="hub:some/data", name="some")
CONFIG = Prompts(sft=(SOURCE,), preference=(SOURCE,), evaluation=(SOURCE,))


def prompt(*turns: str, **more) -> PromptRow:
    return read_prompt({"turns": list(turns), **more}, SOURCE)


def text(draw: random.Random, n: int, vocabulary: int = 1000) -> str:
    return " ".join(f"w{draw.randrange(vocabulary)}" for _ in range(n))


def fates(selection, name):
    return Counter(gone.reason for gone in selection.rejected if gone.set == name)
