"""The layers of a mixture: proposers answer, an aggregator writes one better answer from theirs.

Paper, Eq. 1-2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moaa.chat.controls import KNOWN, Controls
from moaa.chat.message import Ask, Message
from moaa.errors import CallError, RowRejected
from moaa.mixture.answers import Answer, LeftOut, Proposal
from moaa.mixture.proposing import Consult, Patience, by_model, proposals_of_layer
from moaa.mixture.references import ReferencePlace, as_member, with_references
from moaa.recipe import Mixture


class TooFewProposals(RowRejected):
    """A layer has fewer proposals than the quorum. `left_out` has those of all layers so far."""

    def __init__(self, detail: str, left_out: Sequence[LeftOut]) -> None:
        super().__init__("too few proposals", detail)
        self.left_out = tuple(left_out)


@dataclass(frozen=True, slots=True)
class Prepared:
    """All that is known before the aggregator's call: its messages (without its persona), the
    proposals of each layer, and the proposers left out."""

    messages: tuple[Message, ...]
    layers: tuple[tuple[Proposal, ...], ...]
    left_out: tuple[LeftOut, ...]


async def respond(
    mixture: Mixture, history: Sequence[Message], ask: Ask, controls: Controls = KNOWN
) -> Answer:
    """Return the mixture's answer to the last user turn, with its proposals (paper, Eq. 1-2).

    Raises `RowRejected` as `prepare` does, or when the aggregator fails.
    """
    prepared = await prepare(mixture, history, by_model(ask), controls)
    aggregator = mixture.aggregator
    messages = as_member(aggregator, prepared.messages)
    try:
        reply = await ask(aggregator.model, messages, aggregator.sampling)
    except CallError as error:
        raise RowRejected(f"aggregator: {error.reason}", error.detail) from error
    choice = reply.choices[0]
    if choice.missing:
        raise RowRejected(f"aggregator: {choice.missing}", f"{aggregator.label} gave no answer")
    text, tokens = choice.text.strip(), reply.completion_tokens
    return Answer(text, choice.finish_reason, prepared.layers, prepared.left_out, tokens)


async def prepare(
    mixture: Mixture,
    history: Sequence[Message],
    consult: Consult,
    controls: Controls = KNOWN,
    *,
    place: ReferencePlace = "system",
    patience: Patience | None = None,
) -> Prepared:
    """Return the messages for the aggregator, made by all layers before it.

    Proposals are passed to the next layer neutralised; the result has them as they were written.
    `place`: where the members see them. `patience`: None waits for every proposer.

    Raises `TooFewProposals` when a layer has fewer proposals than the mixture's quorum.
    """
    layers: list[tuple[Proposal, ...]] = []
    left_out: list[LeftOut] = []
    seen = list(history)  # layer 0 sees only the conversation
    for layer in range(mixture.layers - 1):
        proposals, missing = await proposals_of_layer(
            mixture.proposers, seen, consult, layer, patience
        )
        layers.append(proposals)
        left_out += missing
        if len(proposals) < mixture.quorum:
            raise TooFewProposals(
                f"layer {layer}: {len(proposals)} of {mixture.proposals} proposals, "
                f"{mixture.quorum} needed; left out: {', '.join(map(str, missing))}",
                left_out,
            )
        seen = with_references(history, proposals, mixture, controls, place)
    return Prepared(tuple(seen), tuple(layers), tuple(left_out))
