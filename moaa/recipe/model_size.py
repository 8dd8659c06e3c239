"""The size of a model, estimated from its name, and the bytes that it needs."""

from __future__ import annotations

import math
import re
from typing import Final

WEIGHT_BYTES: Final = 2
"""Bytes of one parameter in bfloat16."""
CHECKPOINT_BYTES: Final = WEIGHT_BYTES + 3 * 4
"""Bytes of one parameter in a training's checkpoint: the bfloat16 weight, and in float32 its master
copy and the optimizer's two moments."""

_SIZE: Final = re.compile(
    r"(?<![A-Za-z0-9.])(?:(\d+)x)?(\d+(?:\.\d+)?)([bm])(?![A-Za-z0-9])", re.IGNORECASE
)
"""`8B`, `1.5b`, `135M`, `8x22B`; not `A3B` (the active parameters of an 80B) nor `4bit`."""


def parameters(source: str) -> int | None:
    """Return the number of parameters in the model's name; None if the name has none.

    The first size in the last part of the path counts. Names have the model's size first; later
    ones are about something else: a context length (`7B-Instruct-1M`), the tokens of its training
    (`1.1B-step-50K-105b`), a teacher or a draft model. `8x22B` counts as 176e9, an upper bound:
    experts share some layers.
    """
    for part in reversed(source.split("/")):
        if found := _SIZE.search(part):
            experts, number, unit = found.groups()
            return round(int(experts or 1) * float(number) * (1e9 if unit in "bB" else 1e6))
    return None


def weights_gib(source: str) -> int | None:
    """Return the size of the model's bfloat16 weights in whole GiB, at least 1; None if its name
    has no size."""
    count = parameters(source)
    return None if count is None else max(1, math.ceil(count * WEIGHT_BYTES / 2**30))
