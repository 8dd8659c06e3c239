"""The mixture of judges: every pair of answers is compared in both orders (paper, stage 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moaa import judge
from moaa.chat.controls import KNOWN, Controls
from moaa.chat.message import Ask, Message
from moaa.labellers.labels import Labels
from moaa.recipe import Judge


@dataclass(frozen=True, slots=True)
class JudgeMixture:
    """Labels answers by a tournament of this judge."""

    judge: Judge
    controls: Controls = KNOWN

    async def __call__(
        self, prompt: str, query: Sequence[Message], answers: Sequence[str], ask: Ask
    ) -> Labels:
        """The labels of the answers: soft wins over all pairs."""
        judgements = await judge.tournament(self.judge, query, answers, ask, self.controls)
        return Labels.of_judgements(len(answers), judgements)
