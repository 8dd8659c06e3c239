"""The two slots of a promoted model: their shares, their versions, and which one is in production.

A ConfigMap holds them, so that a person can read and change them:

    kubectl patch configmap moaa-aligned --type merge -p '{"data": {"share.b": "0"}}'

Pure: only converts to and from the fields of the ConfigMap.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Self

from moaa.errors import MoaaError
from moaa.store.bytes import object_of

SLOTS: Final = ("a", "b")
REQUESTS: Final = "requests."
"""The prefix of the fields with the number of the candidate's requests, one field a gateway."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One slot of a promoted model."""

    share: int = 0
    """Its share of the conversations, in per cent."""
    source: str = ""
    """The s3:// address of the version that it serves."""
    revision: str = ""
    """The version's name in answers; see `revision_of`."""


@dataclass(frozen=True, slots=True)
class Slots:
    """The state of a promoted model."""

    slots: Mapping[str, Slot] = field(
        default_factory=lambda: {"a": Slot(share=100), "b": Slot(share=0)}
    )
    production: str = "a"
    """The slot that a roll-back returns to."""
    reason: str = ""
    """Why the shares have these values."""
    changed: str = ""
    """When they were changed (UTC)."""
    requests: Mapping[str, int] = field(default_factory=dict)
    """{gateway: requests that the candidate has answered there since the shares were last
    changed}."""

    @classmethod
    def of(cls, data: Mapping[str, str]) -> Self:
        """Return the state in a ConfigMap's `data`; a missing field has its default.

        Raises MoaaError if a share is not a number from 0 to 100, or a slot is unknown.
        """
        production = data.get("production", "a")
        if production not in SLOTS:
            raise MoaaError(f"production is '{production}'. Write one of {', '.join(SLOTS)}.")
        shares = {}
        for name in SLOTS:
            text = data.get(f"share.{name}", "100" if name == production else "0")
            if not re.fullmatch(r"\d{1,2}|100", text):
                raise MoaaError(f"share.{name} is '{text}'. Write a whole number from 0 to 100.")
            shares[name] = int(text)
        slots = {
            name: Slot(share, data.get(f"source.{name}", ""), data.get(f"revision.{name}", ""))
            for name, share in shares.items()
        }
        requests = {
            key.removeprefix(REQUESTS): int(text)
            for key, text in data.items()
            if key.startswith(REQUESTS) and re.fullmatch(r"\d{1,12}", text)
        }
        reason, changed = data.get("reason", ""), data.get("changed", "")
        return cls(slots, production, reason, changed, requests)

    def patch(self, data: Mapping[str, str]) -> dict[str, str | None]:
        """Return the changes that turn a ConfigMap's `data` into this state. Counts about other
        shares are removed."""
        return {**dict.fromkeys(key for key in data if key.startswith(REQUESTS)), **self.data()}

    def data(self) -> dict[str, str]:
        """Return the `data` of the ConfigMap."""
        return {
            **{f"share.{name}": str(slot.share) for name, slot in self.slots.items()},
            **{f"source.{name}": slot.source for name, slot in self.slots.items()},
            **{f"revision.{name}": slot.revision for name, slot in self.slots.items()},
            "production": self.production,
            "reason": self.reason,
            "changed": self.changed,
            **{f"{REQUESTS}{name}": str(count) for name, count in self.requests.items()},
        }

    @property
    def candidate(self) -> str:
        """The slot that is not in production."""
        return other(self.production)

    @property
    def trial(self) -> tuple[str, int, str]:
        """The candidate, its share and the time of the last change.
        Counts of requests are about these."""
        slot = self.slots[self.candidate]
        return slot.revision, slot.share, self.changed

    @property
    def answered(self) -> int:
        """How many requests the candidate has answered at its share, over all gateways."""
        return sum(self.requests.values())

    @property
    def shares(self) -> dict[str, float]:
        """{slot: share}."""
        return {name: float(slot.share) for name, slot in self.slots.items()}

    def holding(self, slot: str, source: str) -> Self:
        """Return the state with this version in a slot, with a share of 0."""
        made = Slot(0, source, revision_of(source))
        return replace(self, slots={**self.slots, slot: made})

    def emptied(self, slot: str, reason: str, now: str) -> Self:
        """Return the state with no version in a slot, and a share of 0 for it."""
        return replace(self, slots={**self.slots, slot: Slot()}).sharing(0, reason, now)

    def sharing(self, candidate: int, reason: str, now: str) -> Self:
        """Return the state with this share for the candidate, and the rest for production."""
        return self._with(
            {self.candidate: candidate, self.production: 100 - candidate}, reason, now
        )

    def promoted(self, reason: str, now: str) -> Self:
        """Return the state with the candidate in production, with all conversations."""
        return replace(self, production=self.candidate).sharing(0, reason, now)

    def rolled_back(self, reason: str, now: str) -> Self:
        """Return the state with a share of 0 for the candidate. If its share is 0 already,
        production and candidate change places."""
        if self.slots[self.candidate].share:
            return self.sharing(0, reason, now)
        return self.promoted(reason, now)

    def _with(self, shares: Mapping[str, int], reason: str, now: str) -> Self:
        slots = {name: replace(slot, share=shares[name]) for name, slot in self.slots.items()}
        return replace(self, slots=slots, reason=reason, changed=now, requests={})


def other(slot: str) -> str:
    """Return the other slot."""
    return SLOTS[1 - SLOTS.index(slot)]


def revision_of(source: str) -> str:
    """Return the name of a version for answers, metrics and folders: the end of its address, and a
    digest of the address, since two addresses may have the same end."""
    end = re.sub(r"[^A-Za-z0-9._-]+", "-", source.rstrip("/").rpartition("/")[2])[:40].strip("-.")
    return f"{end or 'version'}-{hashlib.sha256(source.rstrip('/').encode()).hexdigest()[:6]}"


def pointer_text(source: str) -> str:
    """Return the content of a slot's pointer object, which the slot's pods read when they start."""
    return json.dumps({"source": source, "revision": revision_of(source)}) + "\n"


def pointed(text: str, uri: str) -> str:
    """Return the address in a pointer object. Raises MoaaError if the text is not a pointer."""
    try:
        source = object_of(text)["source"]
    except (ValueError, KeyError, TypeError):
        source = None
    if not isinstance(source, str) or not source.startswith("s3://"):
        raise MoaaError(
            f"{uri} does not point to a model: it must be JSON with an s3:// address as `source`. "
            "`moaa promote` writes it."
        )
    return source
