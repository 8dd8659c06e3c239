"""A random order, for the ablation: what are pairs worth without a labeller?"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from moaa.chat.message import Ask, Message
from moaa.labellers.labels import Labels


@dataclass(frozen=True, slots=True)
class Chance:
    """Labels answers by random scores, which are fixed for each prompt. No model is asked."""

    async def __call__(
        self,
        prompt: str,
        query: Sequence[Message],
        answers: Sequence[str],
        ask: Ask,
        choosable: Collection[int] | None = None,
    ) -> Labels:
        """Return the labels of the answers: scores from 0 to 1, seeded by the prompt's id."""
        draw = random.Random(f"label {prompt}")
        return Labels.of_scores([draw.random() for _ in answers])
