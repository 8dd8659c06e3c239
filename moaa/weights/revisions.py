"""The commit that a name of the Hugging Face hub currently stands for."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final, Literal

from moaa.errors import RecipeError
from moaa.packages import install_command
from moaa.weights.hub import asked_for, away, cache, endpoint, is_offline, one_line

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
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    except ImportError:
        raise RecipeError(
            f"{asked_for(name, kind)}, which needs the package huggingface-hub: "
            f"{install_command('moaa[hub]')}"
        ) from None
    if is_offline():
        return _cached(name, revision, kind)
    try:
        found = HfApi(endpoint=endpoint()).repo_info(
            name, revision=revision, repo_type=kind, timeout=TIMEOUT_S
        )
    except HFValidationError as error:
        raise RecipeError(
            f"'{name}' is not a name of a {kind} on the hub: {one_line(error)}"
        ) from None
    except HfHubHTTPError as error:
        if error.response.status_code in (400, 401, 403, 404):
            raise RecipeError(
                f"{asked_for(name, kind)}, and the hub does not give its revision "
                f"'{revision or 'main'}': {one_line(error)}. Check the name, the "
                "revision and HF_TOKEN (gated ones)."
            ) from None
        raise away(name, kind, error) from None
    # Several libraries are called below, each with its own errors.
    except Exception as error:
        raise away(name, kind, error) from None
    if not found.sha:
        raise away(name, kind, ValueError("no commit in its answer"))
    return found.sha


def _cached(name: str, revision: str | None, kind: Literal["model", "dataset"]) -> str:
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
        f"{asked_for(name, kind)}; HF_HUB_OFFLINE is set, and the hub's cache ({cache()}) does not "
        f"have its revision '{revision or 'main'}'. Download it while the hub can be reached, or "
        "name a copy."
    )
