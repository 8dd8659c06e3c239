"""ArmoRM scores each answer: two vectors of a stock engine, and the published heads in numpy.

ArmoRM-Llama3-8B (RLHFlow) is a Llama body, 19 regression heads, and a gate that weights them by the
prompt. No engine serves all of it. Its body is served as an embedding model, and the heads, about
25 MB, are computed here: `moaa split-armorm` makes both from the published checkpoint.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeAlias
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from moaa.chat.controls import KNOWN, Controls
from moaa.chat.message import Ask, Message
from moaa.errors import CallError, EngineError, RecipeError, RowRejected
from moaa.labellers.labels import Labels, scored
from moaa.labellers.reward import GREEDY, neutralised

Vector: TypeAlias = "NDArray[np.float64]"


@dataclass(frozen=True, slots=True)
class Heads:
    """The weights that turn the two vectors into a score. Shapes:
    d numbers a vector, k objectives."""

    regression: Vector
    """k x d."""
    transform: Vector
    """k x k: removes the share of length from the other objectives."""
    layers: tuple[tuple[Vector, Vector], ...]
    """Weights and biases of the gate: d to hidden, hidden to hidden …, hidden to k."""
    logit_scale: float
    temperature: float

    @classmethod
    def read(cls, data: bytes) -> Self:
        """Return the heads in a file that `moaa split-armorm` wrote.
        Raises RecipeError for another file."""
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                found = {name: file[name].astype(np.float64) for name in file.files}
            count = sum(name.endswith(".weight") and "gating" in name for name in found)
            layers = tuple(
                (found[f"gating.layers.{i}.weight"], found[f"gating.layers.{i}.bias"])
                for i in range(count)
            )
            return cls(
                found["regression_layer.weight"],
                found["reward_transform_matrix"],
                layers,
                found["gating.logit_scale"].item(),
                found["temperature"].item(),
            )
        except (ValueError, KeyError, OSError, EOFError, BadZipFile) as error:
            raise RecipeError(
                f"the heads of ArmoRM cannot be read ({error!r}). Make them again: moaa "
                "split-armorm."
            ) from None

    def score(self, gate: Vector, last: Vector) -> float:
        """Return the sum of the objectives' rewards,
        weighted by the gate (its published formula)."""
        for weight, bias in self.layers[:-1]:
            gate = np.maximum(weight @ gate + bias, 0)
        weight, bias = self.layers[-1]
        logits = (weight @ gate + bias) / self.temperature
        shares = np.exp(logits - logits.max())
        shares *= self.logit_scale / shares.sum()
        return float(shares @ (self.regression @ last @ self.transform))


@dataclass(frozen=True, slots=True)
class ArmoRM:
    """Labels answers by ArmoRM's scores: one call an answer, and one for the prompt.

    The gate uses the vector of the token that ends the user's last message: the conversation
    without its answer. The heads use the vector of the end of the answer.
    """

    model: str
    heads: Heads
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
        try:
            gate = await self._vector(query, ask)
        except CallError as error:
            raise RowRejected(f"prompt without a score: {error.reason}", error.detail) from error

        async def score(answer: str) -> float:
            conversation = [*query, Message(role="assistant", content=answer)]
            return self.heads.score(gate, await self._vector(conversation, ask))

        return await scored(answers, score)

    async def _vector(self, messages: Sequence[Message], ask: Ask) -> Vector:
        reply = await ask(self.model, neutralised(messages, self.controls), GREEDY)
        found: Any = np.frombuffer(base64.b64decode(reply.text), dtype="<f4")
        if len(found) != (size := self.heads.regression.shape[1]):
            raise EngineError(
                f"model '{self.model}' gives vectors of {len(found)} numbers; the heads of ArmoRM "
                f"take {size}. Serve the body that `moaa split-armorm` made with them."
            )
        return found.astype(np.float64)  # type: ignore[no-any-return]
