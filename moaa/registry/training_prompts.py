"""The prompts that a published version was trained on: a retraining may leave them out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from moaa.artifacts import Artifact
from moaa.errors import ArtifactError, without_stop
from moaa.prompts.prompt import PromptRow
from moaa.registry.lineage import lineage_of
from moaa.registry.versions import MODELS
from moaa.store import Missing, Store

TAUGHT_BY: Final = {"sft": "sft", "dpo": "preference"}
"""The set of prompts that each training uses."""


def prompts_of(store: Store, uri: str) -> Iterator[PromptRow]:
    """Yield the prompts that the version at this address was trained on, and those of the versions
    that it was made from, newest first.

    Raises ArtifactError if some cannot be read: otherwise nothing would be left out.
    """
    seen: set[str] = set()
    while uri and uri not in seen:
        seen.add(uri)
        with _readable(uri):
            lineage = lineage_of(Artifact.open(store, uri))
            yield from _of(store, lineage)
            uri = _trained_from(store, lineage)


def contents_of(store: Store, uri: str) -> dict[str, str]:
    """Return the content of the sources of prompts when the version at this address was made.

    Raises ArtifactError if it cannot be read.
    """
    with _readable(uri):
        artifacts = lineage_of(Artifact.open(store, uri))["artifacts"]
        found = next((each for each in artifacts if each["stage"] == "prompts"), None)
        return dict(found["content"]) if found else {}


@contextmanager
def _readable(uri: str) -> Iterator[None]:
    try:
        yield
    except (ArtifactError, Missing, KeyError) as error:
        raise ArtifactError(
            f"the prompts that {uri} was trained on cannot be read: {without_stop(error)}. "
            "Restore what is missing or changed, or set `skip_trained: false` for the sources."
        ) from error


def _of(store: Store, lineage: Mapping[str, Any]) -> Iterator[PromptRow]:
    artifacts = lineage["artifacts"]
    sets = [of for stage, of in TAUGHT_BY.items() if any(a["stage"] == stage for a in artifacts)]
    for each in artifacts:
        if each["stage"] == "prompts":
            found = Artifact.open(store, each["uri"], each["fingerprint"])
            for name in sets:
                for row in found.rows(name):
                    yield PromptRow(row["id"], row["source"], row["system"], tuple(row["turns"]))


def _trained_from(store: Store, lineage: Mapping[str, Any]) -> str:
    """Return the version that the first training started from; empty if it is not in this store."""
    if "rounds" in lineage:
        target = lineage["rounds"][0]["trained"]
    else:  # an earlier version of moaa published it
        target = next(use["source"] for use in lineage["models"] if "target" in use["roles"])
    return target if target.startswith(f"{store.root}/{MODELS}/") else ""
