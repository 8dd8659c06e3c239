"""A `Session` of which a test gives only what it is about."""

from __future__ import annotations

from collections.abc import Mapping

from moaa import engines
from moaa.asking import Session, StartFleet
from moaa.ledger import Ledger
from moaa.progress import Progress
from moaa.recipe.schema import Model, Runtime
from moaa.store import Store

NO_STORE = Store("s3://none/at-all")


def session_of(
    models: Mapping[str, Model],
    runtime: Runtime | None = None,
    *,
    store: Store = NO_STORE,
    ledger: Ledger | None = None,
    progress: Progress | None = None,
    start_fleet: StartFleet = engines.start,
) -> Session:
    return Session(
        models,
        runtime or Runtime(),
        store,
        Ledger() if ledger is None else ledger,
        progress or Progress.silent(),
        start_fleet,
    )
