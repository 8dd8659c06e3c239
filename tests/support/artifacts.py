"""Artifacts that tests write."""

from __future__ import annotations

import secrets
from pathlib import Path

from moaa.artifacts import File, Output
from moaa.store.bytes import sha256_of


def add_file(out: Output, path: Path, name: str) -> None:
    """Upload a file as a training does, then adopt it: apart for each attempt."""
    file = File(
        name=name,
        size=path.stat().st_size,
        sha256=sha256_of(path),
        key=f"model-{secrets.token_hex(4)}/{name}",
    )
    out.store.upload(path, f"{out.uri}/{file.path}")
    out.adopt([file])
