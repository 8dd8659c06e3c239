"""The fields of the gateway's file about feedback."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from moaa.masking import REGIONS
from moaa.recipe.document import Part
from moaa.recipe.forms import form
from moaa.recipe.serving import StoreAddress


class FeedbackSettings(Part):
    """Which chats of keys with `feedback: true` are kept, and where: as JSONL, in one folder a day
    below `store.root`."""

    store: StoreAddress
    """The bucket, and the folder in it that holds all rows."""
    share: float = Field(1.0, gt=0, le=1)
    """The share of requests that are kept, chosen by their ids."""
    retention_days: int = Field(90, ge=1)
    """Folders of days older than this many days are deleted."""
    wait_s: float = Field(600, gt=0)
    """How long a row waits for its rating before it is written.
    A later rating becomes a row of its own."""
    mask: bool = True
    """Replace e-mail addresses, telephone and card numbers, and keys."""
    phone_regions: tuple[Annotated[str, form(r"[A-Z]{2}", "two capital letters, like US")], ...] = (
        REGIONS
    )
    """Countries whose telephone numbers are also found without their country code."""
