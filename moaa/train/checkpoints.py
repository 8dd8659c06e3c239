"""Checkpoints that survive the machine: uploaded while training goes on, complete when their manifest is there.

    <output>/checkpoints/checkpoint-40/global_step40/bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt …
    <output>/checkpoints/checkpoint-40/manifest.json        written last, by rank 0

Each rank uploads its share of what lies on its node in a thread of its own. The ranks agree between two steps: that a
checkpoint is due, that all uploads are through (then the manifest is written and the older checkpoint deleted), or that
one failed (then this checkpoint is given up, counted, and training goes on).
"""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moaa.artifacts import sha256_of
from moaa.errors import ArtifactError, StoreError
from moaa.store import Store
from moaa.train.ranks import Ranks

Listed = dict[str, Any]
"""A file as manifests list it: {name, size, sha256}."""


@dataclass
class Checkpoints:
    """The checkpoints of one training below `output`, seen by one rank."""

    store: Store
    output: str
    ranks: Ranks
    folder: Path
    """Where the trainer of this node writes its checkpoints."""
    shape: Mapping[str, Any]
    """What a checkpoint can only be loaded with again: number of ranks, ZeRO stage, precision."""
    minutes: float
    steps: int | None = None
    seconds_before: float = 0.0
    """Seconds that earlier attempts trained until the checkpoint this one started from."""
    failed: int = 0
    started: float = field(default_factory=time.monotonic)
    _last: float = field(default_factory=time.monotonic)
    _last_step: int = 0
    _pending: _Upload | None = None

    @property
    def prefix(self) -> str:
        return f"{self.output}/checkpoints"

    @property
    def seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self.started

    # Between two steps, on every rank.

    def due(self, step: int) -> bool:
        """Whether all ranks should write a checkpoint now. Commits the one before when its uploads are through."""
        pending = self._pending
        time_is_up = step - self._last_step >= self.steps if self.steps else time.monotonic() - self._last >= self.minutes * 60
        wanted, busy, broken = self.ranks.largest(
            [self.ranks.first and time_is_up, pending is not None and pending.busy, pending is not None and pending.broken]
        )
        if pending is not None and not busy:
            self._settle(pending, bool(broken))
        return bool(wanted) and self._pending is None

    def saved(self, step: int) -> None:
        """The trainer has written checkpoint-`step` on every rank: begin to upload it."""
        self.ranks.wait()
        folder = self.folder / f"checkpoint-{step}"
        # One rank lists them for its node: files disappear as soon as the first upload is through.
        files = self.ranks.on_leaders(lambda: sorted(p for p in folder.rglob("*") if p.is_file()))
        mine = files[self.ranks.local_rank :: self.ranks.local_world]
        self._pending = _Upload(self.store, f"{self.prefix}/checkpoint-{step}", folder, mine, step)
        self._last, self._last_step = time.monotonic(), step

    def finish(self) -> None:
        """Nothing more is uploaded; what was under way has ended."""
        if self._pending is not None:
            self._pending.thread.join()

    def _settle(self, upload: _Upload, broken: bool) -> None:
        self._pending = None
        parts = self.ranks.gather(upload.files)
        if self.ranks.leader:
            shutil.rmtree(upload.folder, ignore_errors=True)
        self.failed += broken
        if broken or not self.ranks.first:
            return
        files = sorted((file for part in parts for file in part), key=lambda file: file["name"])
        manifest = {"schema_version": 1, "step": upload.step, "shape": dict(self.shape), "seconds": round(self.seconds, 3)}
        try:
            self.store.put(f"{upload.uri}/manifest.json", json.dumps({**manifest, "files": files}).encode())
            self.store.delete(*(uri for uri, _ in self.store.list(self.prefix) if not uri.startswith(f"{upload.uri}/")))
        except StoreError:
            self.failed += 1

    # At the start and at the end.

    def restore(self) -> dict[str, Any] | None:
        """The newest complete checkpoint, downloaded to every node: its manifest with its `path`; None where there is none.

        One of another shape cannot be loaded: its manifest comes without a `path`.
        """
        found = self.ranks.on_leaders(self._restore)
        if found and "path" in found:
            self.seconds_before, self._last_step = found["seconds"], found["step"]
        return found

    def _restore(self) -> dict[str, Any] | None:
        complete = [uri.split("/")[-2] for uri, _ in self.store.list(self.prefix) if uri.endswith("/manifest.json")]
        if not complete:
            return None
        newest = max(complete, key=lambda name: int(name.rsplit("-", 1)[1]))
        uri = f"{self.prefix}/{newest}"
        manifest: dict[str, Any] = json.loads(self.store.get(f"{uri}/manifest.json"))
        if manifest["shape"] != self.shape:
            return manifest
        folder = self.folder / newest
        for file in manifest["files"]:
            path = folder / file["name"]
            self.store.download(f"{uri}/{file['name']}", path)
            if sha256_of(path) != file["sha256"]:
                raise ArtifactError(
                    f"{uri}/{file['name']} is not what its manifest says: it was changed. Delete {uri} to train without it."
                )
        return {**manifest, "path": str(folder)}

    def delete(self) -> None:
        """Remove all checkpoints: the training is done."""
        self.store.delete_prefix(self.prefix)


class _Upload:
    """One rank's files of one checkpoint on their way to the store, and off the disk when they are there."""

    def __init__(self, store: Store, uri: str, folder: Path, paths: list[Path], step: int) -> None:
        self.store, self.uri, self.folder, self.step = store, uri, folder, step
        self.files: list[Listed] = []
        self.broken = False
        self.thread = threading.Thread(target=self._run, args=(paths,), daemon=True, name=f"checkpoint-{step}")
        self.thread.start()

    @property
    def busy(self) -> bool:
        return self.thread.is_alive()

    def _run(self, paths: list[Path]) -> None:
        try:
            for path in paths:
                self.files.append(upload(self.store, path, str(path.relative_to(self.folder)), self.uri))
                path.unlink()
        except (StoreError, OSError):
            self.broken = True


def upload(store: Store, path: Path, name: str, uri: str) -> Listed:
    """Upload one file as `name` below `uri`."""
    listed = {"name": name, "size": path.stat().st_size, "sha256": sha256_of(path)}
    store.upload(path, f"{uri}/{name}")
    return listed
