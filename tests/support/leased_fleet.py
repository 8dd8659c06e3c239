"""A fleet of leased engines that looks and renews many times a second."""

from __future__ import annotations

from functools import partial

from moaa.engines.leasing import Timing
from tests.support import leasing

HURRY = Timing(
    look_every_s=0.05, events_every_s=0.05, renew_every_s=0.2, release_patience_s=0.5, outage_s=10
)


fleet = partial(leasing.fleet, timing=HURRY)
