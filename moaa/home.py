"""The folder `.moaa` below the working directory: runs, the local S3, the last run.

runs/RUN/    log.txt, messages.jsonl, recipe.yaml and report.html of a run
s3/          the local S3, used if the environment names none
last.json    the run that was started last, and where its results are; never a key
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from moaa.errors import StoreError, without_stop
from moaa.progress.messages import log
from moaa.store.address import endpoint_of

HOME = Path(".moaa")
LOCAL = "local"
"""What `last.json` has as the local S3's address: its port changes from run to run."""
_serving = ""
"""The address of the local S3, while this process has it in its own environment."""


@dataclass(frozen=True)
class LastRun:
    """The run that was started last from this folder."""

    run_id: str
    root: str
    s3: str
    """Address of the S3: an endpoint, `AWS`, or `local`."""
    store: Mapping[str, Any] = field(default_factory=dict)
    """The recipe's fields about its S3: endpoint, region, names of the keys' variables."""


def new_id(name: str) -> str:
    """Return a new name for a run of the recipe `name`: at most 61 characters, valid for a Job."""
    return f"{name}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


def remember(run_id: str, store: Mapping[str, Any]) -> None:
    """Write which run was started last; `store` has the fields of the recipe's store.

    A folder that cannot be written to is not an error.
    """
    named = named_s3(store.get("endpoint_url"))
    s3 = LOCAL if named in ("", _serving) else named
    last = LastRun(run_id, store["root"].rstrip("/"), s3, store)
    whole = HOME / f"last.json.{os.getpid()}"
    try:
        HOME.mkdir(exist_ok=True)
        whole.write_text(json.dumps(asdict(last)))
        whole.replace(HOME / "last.json")
    except OSError as error:
        log.debug(f"{HOME / 'last.json'} was not written: {error}")


def last_run() -> LastRun | None:
    """Return the run that was started last; None if there was none."""
    try:
        return LastRun(**json.loads((HOME / "last.json").read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise StoreError(
            f"{HOME / 'last.json'} cannot be read: {without_stop(error)}. Delete it."
        ) from None


def named_s3(endpoint: str | None = None) -> str:
    """Return the recipe's `endpoint`, else that of the environment, or `AWS`;
    empty if there is none."""
    return (
        endpoint
        or endpoint_of(os.environ)
        or ("AWS" if os.environ.get("AWS_ACCESS_KEY_ID") else "")
    )


@contextmanager
def s3_environment(endpoint: str | None = None) -> Iterator[str]:
    """Start a local S3 while the context lasts and put it into the environment; yield its address.

    If the recipe (`endpoint`) or the environment names an S3, that one is used instead.
    """
    if named := named_s3(endpoint):
        yield named
        return
    from moaa.store import local

    global _serving
    with local.serve(HOME / "s3") as environment, variables(environment):
        _serving = environment["AWS_ENDPOINT_URL_S3"]
        yield f"{_serving} (local SeaweedFS, {HOME / 's3'}; no S3 is named in the environment)"
    _serving = ""


@contextmanager
def variables(environment: Mapping[str, str]) -> Iterator[None]:
    """Set these environment variables while the context lasts."""
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
