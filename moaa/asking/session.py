"""What the calls of a stage need, in one object."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from moaa.asking.fleet import Fleet
from moaa.ledger import Ledger
from moaa.progress import Progress
from moaa.recipe.schema import Model, Runtime
from moaa.store import Store

if TYPE_CHECKING:
    from moaa.chat.client import Client

StartFleet: TypeAlias = "Callable[[Session, Client], AbstractAsyncContextManager[Fleet]]"


@dataclass(frozen=True, slots=True)
class Session:
    """The models that are asked, how they are run, and who counts their calls."""

    models: Mapping[str, Model]
    runtime: Runtime
    store: Store
    ledger: Ledger
    progress: Progress
    start_fleet: StartFleet
    """`moaa.engines.start`: returns the session's models as a fleet that is not up yet."""
    own: Collection[str] = ()
    """On a cluster: the models that this pod serves itself if no Deployment does."""
