"""Chooses the slot of a promoted model for a conversation. Pure: no clock, no I/O, no randomness.

All turns of a conversation have the same digest, and each digest is a point between 0 and 1. The
second slot gets the points below its share, the first slot those above. When a share grows, its
slot keeps its conversations and gets more from the other slot.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any, Final

SAME_IN_ALL_TURNS: Final = ("user", "prompt_cache_key", "conversation", "safety_identifier")
"""Fields of a request that a client keeps the same for a whole conversation."""


def conversation_of(key: str, body: Mapping[str, Any]) -> str:
    """Return a digest that is the same for all turns of a conversation.

    `key`: the name of the client's key. The digest comes from the first message of the user (or the
    whole prompt or input, if the request has no messages) and from SAME_IN_ALL_TURNS. System
    messages do not count: clients write the current time into them.
    """
    parts = [key, _first(body), *(body.get(each) for each in SAME_IN_ALL_TURNS)]
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()


def _first(body: Mapping[str, Any]) -> Any:
    said = body.get("messages") or body.get("input") or body.get("prompt")
    if not isinstance(said, list):
        return said
    by_user = (each for each in said if isinstance(each, dict) and each.get("role") == "user")
    return next(by_user, said)


def point_of(conversation: str) -> float:
    """Return the point of a conversation: from 0 up to 1, all equally likely."""
    return int(conversation[:13], 16) / 16**13


def slot_of(conversation: str, shares: Mapping[str, float], up: Collection[str]) -> str | None:
    """Return the slot that answers this conversation; None if no slot can.

    `shares`: {slot: share} of two slots. `up`: the slots that can answer now. While a
    conversation's own slot is down, the other slot answers if its share is above 0. A slot with
    share 0 never gets a request.
    """
    total, at = sum(shares.values()), 0.0
    order = sorted(shares, reverse=True)
    chosen = order[-1]
    for slot in order:
        at += shares[slot]
        if point_of(conversation) * total < at:
            chosen = slot
            break
    usable = [slot for slot in (chosen, *order) if slot in up and shares[slot] > 0]
    return usable[0] if usable else None
