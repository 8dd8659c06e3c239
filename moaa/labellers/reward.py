"""A reward model scores each answer: a sequence classification model with one label.

Its score is the logit, as its model card says (Skywork-Reward-V2 and others). An answer that is too
long for the engine is refused, never cut: a cut answer would get another score.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from moaa.chat.controls import KNOWN, Controls
from moaa.chat.message import Ask, Message
from moaa.labellers.labels import Labels, scored
from moaa.recipe import Sampling

GREEDY = Sampling(temperature=0, max_tokens=1)
"""A score is not sampled, but the journal's key of a call has a sampling: this one."""


def neutralised(messages: Sequence[Message], controls: Controls) -> list[Message]:
    """Return the messages without control tokens: an answer must not start a turn of its own."""
    return [
        Message(role=each["role"], content=controls.neutralised(each["content"]))
        for each in messages
    ]


@dataclass(frozen=True, slots=True)
class RewardModel:
    """Labels answers by the scores of this model: one call an answer."""

    model: str
    controls: Controls = KNOWN

    async def __call__(
        self,
        prompt: str,
        query: Sequence[Message],
        answers: Sequence[str],
        ask: Ask,
        choosable: Collection[int] | None = None,
    ) -> Labels:
        """Return the labels of the answers, with their scores."""

        async def score(answer: str) -> float:
            conversation = [*query, Message(role="assistant", content=answer)]
            reply = await ask(self.model, neutralised(conversation, self.controls), GREEDY)
            return float(reply.text)

        return await scored(answers, score)
