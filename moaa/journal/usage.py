"""What each attempt at a stage used of its models, stored beside its journal: the ledger of a
result includes all attempts.

<journal>/usage/ATTEMPT.json       {"model": {"calls": 12, "prompt_tokens": 3400, …}}
"""

from __future__ import annotations

import json
from contextlib import suppress

from moaa.errors import ArtifactError, StoreError, without_stop
from moaa.ledger import Ledger, ModelUse, summed, uses_from_json, uses_to_json
from moaa.store import Missing, Store
from moaa.store.bytes import object_of


class Usage:
    """The use of models by one attempt, and by the attempts before it."""

    def __init__(self, store: Store, journal_uri: str, attempt: str, ledger: Ledger) -> None:
        self._store, self._ledger = store, ledger
        self._folder = f"{journal_uri}/usage"
        self._own = f"{self._folder}/{attempt}.json"
        self._kept = "{}"

    def read(self) -> None:
        """Add what other attempts used to the ledger."""
        found = []
        for uri, _ in self._store.list(self._folder):
            if uri != self._own:
                # Missing: another attempt has just committed, and its result counts.
                with suppress(Missing):
                    found.append(_uses(self._store.get(uri), uri))
        self._ledger.earlier = summed(found)
        self._ledger.attempts = 1 + len(found)

    def keep(self) -> None:
        """Write the use up to now. The journal calls this after each flush."""
        text = json.dumps(uses_to_json(self._ledger.models))
        if text != self._kept:
            # The next flush tries again. If the store is gone, the journal raises an error.
            with suppress(StoreError):
                self._store.put(self._own, text.encode())
                self._kept = text


def _uses(text: bytes, uri: str) -> dict[str, ModelUse]:
    try:
        return uses_from_json(object_of(text))
    except (ValueError, TypeError) as error:
        raise ArtifactError(
            f"{uri} is damaged ({without_stop(error)}). Restore it from a backup, or delete it: "
            "then the tokens of an earlier attempt are not counted."
        ) from error
