"""The mixture of judges: every pair of answers is compared in both orders (paper, stage 2), or only
the pairs that the ends of the ranking depend on (`mode: adaptive`)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
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
        self,
        prompt: str,
        query: Sequence[Message],
        answers: Sequence[str],
        ask: Ask,
        choosable: Collection[int] | None = None,
    ) -> Labels:
        """Return the labels of the answers: soft wins over all pairs, counted or expected."""
        if self.judge.mode == "adaptive":
            judgements, outlook = await judge.adaptive_tournament(
                self.judge, query, answers, ask, self.controls, choosable
            )
            sure = min(outlook.best_sure, outlook.worst_sure)
            return Labels.of_judgements(len(answers), judgements, outlook.expected, sure)
        judgements = await judge.tournament(self.judge, query, answers, ask, self.controls)
        return Labels.of_judgements(len(answers), judgements)
