"""What a stage reports to a tracker. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from moaa.artifacts import Manifest
from moaa.report.figures import figures


class Scalar(NamedTuple):
    """One number of a series."""

    name: str
    step: int
    value: float


@dataclass(frozen=True, slots=True)
class TrackerEntry:
    """The numbers and tags of one stage of one run."""

    run_id: str
    project: str
    stage: str
    scalars: tuple[Scalar, ...]
    tags: Mapping[str, str]
    made_s: float
    """When the result was made, in seconds since 1970: the same for each run that uses it."""


def entry_of(manifest: Manifest, run_id: str) -> TrackerEntry:
    """Return what a tracker gets of a result: training steps, scores, its lineage as tags."""
    return TrackerEntry(
        run_id,
        manifest.name,
        manifest.stage,
        tuple(_scalars(manifest.stage, manifest.facts)),
        {
            f"{manifest.stage}.artifact": manifest.uri,
            f"{manifest.stage}.fingerprint": manifest.fingerprint,
            **{f"{manifest.stage}.from.{parent.name}": parent.uri for parent in manifest.parents},
        },
        datetime.fromisoformat(manifest.created).timestamp(),
    )


def _scalars(stage: str, facts: Mapping[str, Any]) -> Iterator[Scalar]:
    """Yield the curve of a training, the measurements on held-out rows, and the last figures."""
    curve = facts.get("curve") or []
    measured = (facts.get("validation") or {}).get("curve") or []
    for part, points in (("", curve), ("held out/", measured)):
        for point in points:
            for name, value in point.items():
                if name != "step" and isinstance(value, int | float) and math.isfinite(value):
                    yield Scalar(f"{stage}/{part}{name}", int(point["step"]), float(value))
    if not curve:
        for name, value in figures(facts).items():
            yield Scalar(f"{stage}/{name}", 0, value)
