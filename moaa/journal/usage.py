"""What each attempt at a stage used of its models, kept beside its journal: the ledger of a result
holds all that it took.

<journal>/usage/ATTEMPT.json       {"model": {"calls": 12, "prompt_tokens": 3400, …}}
"""

from __future__ import annotations

import json
from contextlib import suppress

from moaa.errors import StoreError
from moaa.ledger import Ledger, summed, uses_from_json, uses_to_json
from moaa.store import Missing, Store


class Usage:
    """Use of models by one attempt, and by those before it."""

    def __init__(self, store: Store, journal_uri: str, attempt: str, ledger: Ledger) -> None:
        self._store, self._ledger = store, ledger
        self._folder = f"{journal_uri}/usage"
        self._own = f"{self._folder}/{attempt}.json"
        self._kept = "{}"

    def read(self) -> None:
        """Tell the ledger what other attempts used."""
        found = []
        for uri, _ in self._store.list(self._folder):
            if uri != self._own:
                with suppress(
                    Missing
                ):  # another attempt has just committed, and its result is the one that stands
                    found.append(uses_from_json(json.loads(self._store.get(uri))))
        self._ledger.earlier = summed(found)
        self._ledger.attempts = 1 + len(found)

    def keep(self) -> None:
        """Write what was used until now. The journal does this after each of its flushes."""
        text = json.dumps(uses_to_json(self._ledger.models))  # the rest of it changes meanwhile
        if text != self._kept:
            with suppress(
                StoreError
            ):  # the next flush tries again; that the store is gone the journal itself will tell
                self._store.put(self._own, text.encode())
                self._kept = text
