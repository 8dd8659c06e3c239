"""The version of a published model that is in production, and the ones before.

One object has it: `<root>/models/<name>/production.json`. It is written with a condition (the
content that was read must be unchanged), and last: after the version is complete and answers its
clients.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final

from moaa.artifacts import Artifact
from moaa.clock import now
from moaa.errors import MoaaError
from moaa.registry.versions import folder
from moaa.store import Missing, Store
from moaa.store.bytes import object_of

POINTER: Final = "production.json"
_ATTEMPTS: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductionEntry:
    """One version, from when it came into production until the next entry."""

    version: str
    uri: str
    why: str
    """Why it came into production: a decision of the gate, or a person's words."""
    since: str = ""
    """When (UTC, as `2026-01-31T12:00:00Z`). Empty: the time of writing."""
    run: str = ""
    """The run that put it there; empty for a command."""
    decision: str = ""
    """The address of the gate's decision; empty if no gate decided."""


@dataclass(frozen=True, slots=True)
class Production:
    """The production pointer of one published model."""

    name: str
    history: tuple[ProductionEntry, ...] = ()
    """The entries, newest first."""

    @property
    def current(self) -> ProductionEntry | None:
        """The version that is in production; None if there never was one."""
        return self.history[0] if self.history else None

    @property
    def before(self) -> ProductionEntry | None:
        """The newest other version that was in production: where a roll-back goes."""
        return next((each for each in self.history if each.uri != self.history[0].uri), None)

    def text(self) -> str:
        """Return the content of the object."""
        entries = [asdict(each) for each in self.history]
        return json.dumps({"name": self.name, "history": entries}, indent=1, ensure_ascii=False)


def address(store: Store, name: str) -> str:
    """Return the address of the pointer."""
    return f"{folder(store, name)}/{POINTER}"


def read(store: Store, name: str) -> Production:
    """Return the production pointer; without entries if no version ever was in production.

    Raises MoaaError if the object is not one that moaa wrote.
    """
    return _read(store, name)[0]


def opened(store: Store, uri: str) -> Artifact:
    """Return a version that is, or was, in production. Raises MoaaError if it does not exist."""
    try:
        return Artifact.open(store, uri)
    except Missing:
        raise MoaaError(
            f"{uri} was put into production, but it is missing or not complete. Restore it, or "
            "promote another version: `moaa models` lists them."
        ) from None


def move(
    store: Store,
    name: str,
    entry: ProductionEntry,
    expected: Callable[[Production], None] = lambda found: None,
) -> Production:
    """Put a version into production; return the new pointer.

    A version that is already in production keeps its time and its reason. `expected` gets the old
    pointer, and may raise. Raises MoaaError if the version is not complete.
    """
    if not store.exists(f"{entry.uri}/manifest.json"):
        raise MoaaError(
            f"{entry.uri} is not a complete version: it has no manifest.json. `moaa models` lists "
            "complete ones; the next run of the recipe finishes this one."
        )
    dated = replace(entry, since=entry.since or now())
    for _ in range(_ATTEMPTS):
        found, content = _read(store, name)
        expected(found)
        if found.current and found.current.uri == entry.uri:
            return found
        made = Production(name, (dated, *found.history))
        uri, new = address(store, name), made.text().encode()
        if store.put_new(uri, new) if content is None else store.replace(uri, content, new):
            return made
    raise MoaaError(f"{address(store, name)} was changed by others again and again. Try again.")


def _read(store: Store, name: str) -> tuple[Production, bytes | None]:
    uri = address(store, name)
    try:
        content = store.get(uri)
    except Missing:
        return Production(name), None
    try:
        given = object_of(content)["history"]
        return Production(name, tuple(_entry(each) for each in given)), content
    except (ValueError, KeyError, TypeError) as error:
        raise MoaaError(
            f"{uri} does not say which version is in production ({error!r}). Restore it, or "
            "delete it: then nothing is in production."
        ) from None


def _entry(given: dict[str, Any]) -> ProductionEntry:
    """Return the entry, without fields of a later version of moaa."""
    return ProductionEntry(
        **{each.name: given[each.name] for each in fields(ProductionEntry) if each.name in given}
    )
