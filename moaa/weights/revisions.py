"""The commit that a name of the Hugging Face hub currently stands for."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from moaa.errors import HubAway, RecipeError
from moaa.weights.hub import cache

TIMEOUT_S: Final = 8.0
_COMMIT = re.compile(r"[0-9a-f]{40}")


def is_commit(revision: str | None) -> bool:
    """Return whether a revision is a commit: a commit never changes."""
    return revision is not None and _COMMIT.fullmatch(revision) is not None


def commit(name: str, revision: str | None, kind: Literal["model", "dataset"]) -> str:
    """Return the current commit of `revision` (default: main) of a repository.

    With HF_HUB_OFFLINE it is the one in the hub's cache. Raises HubAway if the hub does not answer,
    RecipeError if it has no such repository or revision, or if the cache has none.
    """
    if revision is not None and is_commit(revision):
        return revision
    try:
        from huggingface_hub import HfApi, constants
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    except ImportError:
        raise RecipeError(
            f"'{name}' is on the hub, which needs the package huggingface-hub: "
            "pip install 'moaa[hub]'"
        ) from None
    if constants.HF_HUB_OFFLINE or os.environ.get("HF_HUB_OFFLINE") in ("1", "true", "True"):
        return _cached(name, revision, kind)
    endpoint = os.environ.get("HF_ENDPOINT") or constants.ENDPOINT
    try:
        found = HfApi(endpoint=endpoint).repo_info(
            name, revision=revision, repo_type=kind, timeout=TIMEOUT_S
        )
    except HFValidationError as error:
        raise RecipeError(
            f"'{name}' is not a name of a {kind} on the hub: {one_line(error)}"
        ) from None
    except HfHubHTTPError as error:
        if error.response.status_code in (400, 401, 403, 404):
            raise RecipeError(
                f"the hub does not give the {kind} '{name}', revision '{revision or 'main'}': "
                f"{one_line(error)}. Check the name, the revision and HF_TOKEN (gated ones)."
            ) from None
        raise away(endpoint, error) from None
    # Several libraries are called below, each with its own errors.
    except Exception as error:
        raise away(endpoint, error) from None
    if not found.sha:
        raise away(endpoint, ValueError(f"no commit in its answer about {name}"))
    return found.sha


def away(endpoint: str, error: Exception) -> HubAway:
    """Return the error of a hub that does not answer."""
    host = urlsplit(endpoint).hostname or endpoint
    return HubAway(
        f"the hub ({host}) does not answer: {one_line(error)}. Try again later, correct "
        "HF_ENDPOINT, or set HF_HUB_OFFLINE=1 to use what its cache has"
    )


def one_line(error: Exception) -> str:
    """Return the message of a library's error, on one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return (text if len(text) <= 300 else f"{text[:300]}…").rstrip(". ")


def _cached(name: str, revision: str | None, kind: str) -> str:
    path = cache() / f"{kind}s--{name.replace('/', '--')}" / "refs" / (revision or "main")
    try:
        return path.read_text().strip()
    except OSError:
        pass
    if kind == "dataset" and revision is None:
        # `datasets` keeps its prepared data in folders named by the commit.
        own = Path(
            os.environ.get("HF_DATASETS_CACHE") or cache().parent / "datasets"
        ) / name.replace("/", "___")
        prepared = {each.name for each in own.glob("*/*/*") if is_commit(each.name)}
        if len(prepared) == 1:
            return prepared.pop()
    raise RecipeError(
        f"HF_HUB_OFFLINE is set, and the hub's cache ({cache()}) does not have the {kind} "
        f"'{name}', revision '{revision or 'main'}'. Download it while the hub can be reached, or "
        "name a copy."
    )
