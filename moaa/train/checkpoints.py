"""Checkpoints that survive the machine: uploaded while training goes on, complete when their
manifest is there.

    <output>/checkpoints/3f9c01aa/checkpoint-40/global_step40/bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt …
    <output>/checkpoints/3f9c01aa/checkpoint-40/manifest.json        written last, by rank 0

Each attempt at the training writes in a folder of its own (3f9c01aa): two runs may be at the same
training at a time, and any attempt goes on from the newest checkpoint of all. Each rank uploads its
share of what lies on its node in a thread of its own. The ranks agree between two steps: that a
checkpoint is due, that all uploads are through (then the manifest is written and the older
checkpoint deleted), or that one failed (then this checkpoint is given up, counted, and training
goes on).
"""

from __future__ import annotations

import json
import secrets
import shutil
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from moaa.errors import StoreError
from moaa.progress.messages import log
from moaa.recipe.model_size import CHECKPOINT_BYTES
from moaa.store import Missing, Store
from moaa.store.bytes import sha256_of
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
    unusable: int = 0
    """Complete checkpoints that could not be resumed from: of another shape, changed, or no longer
    whole."""
    size: float = 0
    """Bytes that a checkpoint takes on this node's disk: what the last one took, before the first
    what it may take."""
    attempt: str = field(default_factory=lambda: secrets.token_hex(4))
    """Where this attempt writes: each rank draws a name, rank 0's stands."""
    started: float = field(default_factory=time.monotonic)
    _last: float = field(default_factory=time.monotonic)
    _last_step: int = 0
    _pending: _Upload | None = None
    _resumed: str | None = None
    """Address of the checkpoint that this attempt started from, until it has one of its own."""
    _loaded: Path | None = None
    """The restored checkpoint on this node's disk, until every rank has read it."""

    @property
    def prefix(self) -> str:
        return f"{self.output}/checkpoints"

    @property
    def seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self.started

    # Between two steps, on every rank.

    def due(self, step: int) -> bool:
        """Whether all ranks should write a checkpoint now. Commits the one before when its uploads
        are through.

        One that some node's disk has no room for is given up: the trainer, half-way through, would
        end the training.
        """
        pending = self._pending
        time_is_up = (
            step - self._last_step >= self.steps
            if self.steps
            else time.monotonic() - self._last >= self.minutes * 60
        )
        self._forget_loaded()
        no_room = (
            self.ranks.leader and self.size > 0 and shutil.disk_usage(self.folder).free < self.size
        )
        wanted, busy, broken, full = self.ranks.largest(
            [
                self.ranks.first and time_is_up,
                pending is not None and pending.busy,
                pending is not None and pending.broken,
                no_room,
            ]
        )
        if pending is not None and not busy:
            self._settle(pending, bool(broken))
        if not wanted or self._pending is not None:
            return False
        if full:
            self.failed += 1
            self._last, self._last_step = time.monotonic(), step
        if no_room:
            log.warning(
                f"no checkpoint at step {step}: {self.folder} has no "
                f"{self.size / 2**30:.1f} GiB free"
            )
        return not full

    def expect(self, parameters: int) -> None:
        """How large the model is: until a checkpoint was seen, its size is guessed from that."""
        self.size = (
            self.size or parameters * CHECKPOINT_BYTES * self.ranks.local_world / self.ranks.world
        )

    def saved(self, step: int) -> None:
        """The trainer has written checkpoint-`step` on every rank: begin to upload it."""
        self.attempt = self.ranks.gather(self.attempt)[0]
        folder = self.folder / f"checkpoint-{step}"
        # One rank lists them for its node: files disappear as soon as the first upload is through.
        found = self.ranks.on_leaders(
            lambda: sorted((p, p.stat().st_size) for p in folder.rglob("*") if p.is_file())
        )
        self.size = sum(size for _, size in found)
        mine = [path for path, _ in found[self.ranks.local_rank :: self.ranks.local_world]]
        self._pending = _Upload(
            self.store, f"{self.prefix}/{self.attempt}/checkpoint-{step}", folder, mine, step
        )
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
        manifest = {
            "schema_version": 1,
            "step": upload.step,
            "shape": dict(self.shape),
            "seconds": round(self.seconds, 3),
        }
        try:
            self.store.put(
                f"{upload.uri}/manifest.json", json.dumps({**manifest, "files": files}).encode()
            )
            self._delete_older(upload.uri)
        except StoreError:
            self.failed += 1

    def _delete_older(self, newest: str) -> None:
        """This attempt's own, and the one it started from: whatever else is there may be another
        attempt's, at work now."""
        own = [
            uri
            for uri, _ in self.store.list(f"{self.prefix}/{self.attempt}")
            if not uri.startswith(f"{newest}/")
        ]
        before = [uri for uri, _ in self.store.list(self._resumed)] if self._resumed else []
        self.store.delete(*own, *before)
        self._resumed = None

    def _forget_loaded(self) -> None:
        """Room for the next one. The trainer asks for the first time after a whole step: all ranks
        have read it then."""
        if self._loaded is not None and self.ranks.leader:
            shutil.rmtree(self._loaded, ignore_errors=True)
        self._loaded = None

    # At the start and at the end.

    def restore(self) -> dict[str, Any] | None:
        """The newest complete checkpoint that can be loaded, downloaded to every node: its manifest
        with its `path`.

        One of another shape, and one with a file that is gone or was changed, is counted in
        `unusable`, and the next newest is tried; None where none is left. Another attempt at work
        may meanwhile replace them: a newer one is tried then.
        """
        tried: list[str] = []
        while left := self.ranks.on_first(
            lambda: [each for each in self._complete() if each["uri"] not in tried]
        ):
            found = left[0]
            tried.append(found["uri"])
            path = (
                self.ranks.on_leaders(partial(self._downloaded, found))
                if found["shape"] == self.shape
                else None
            )
            everywhere = all(self.ranks.gather(path is not None))
            if path is not None and everywhere:
                self.seconds_before, self._last_step = found["seconds"], found["step"]
                self.size = (
                    sum(file["size"] for file in found["files"])
                    * self.ranks.local_world
                    / self.ranks.world
                )
                self._resumed, self._loaded = found["uri"], path
                return {**found, "path": str(path)}
            self.unusable += 1
            if path is not None and self.ranks.leader:
                shutil.rmtree(path)  # another node could not get it
        return None

    def _complete(self) -> list[dict[str, Any]]:
        """The manifests of all complete checkpoints with their `uri`, newest first."""
        found = []
        for uri, _ in self.store.list(self.prefix):
            if uri.endswith("/manifest.json"):
                with suppress(Missing):  # its attempt has just written a newer one
                    found.append(
                        {
                            **json.loads(self.store.get(uri)),
                            "uri": uri.removesuffix("/manifest.json"),
                        }
                    )
        return sorted(found, key=lambda manifest: manifest["step"], reverse=True)

    def _downloaded(self, manifest: Mapping[str, Any]) -> Path | None:
        """The folder with the checkpoint's files; None, and nothing on the disk, where they are not
        what the manifest says."""
        folder = self.folder / f"checkpoint-{manifest['step']}"
        try:
            for file in manifest["files"]:
                self.store.download(f"{manifest['uri']}/{file['name']}", folder / file["name"])
                if sha256_of(folder / file["name"]) != file["sha256"]:
                    break
            else:
                return folder
        except Missing:
            pass
        shutil.rmtree(folder, ignore_errors=True)
        return None

    def delete(self) -> None:
        """Remove all checkpoints: the training is done."""
        self.store.delete_prefix(self.prefix)


class _Upload:
    """One rank's files of one checkpoint on their way to the store, and off the disk when they are
    there."""

    def __init__(self, store: Store, uri: str, folder: Path, paths: list[Path], step: int) -> None:
        self.store, self.uri, self.folder, self.step = store, uri, folder, step
        self.files: list[Listed] = []
        self.broken = False
        self.thread = threading.Thread(
            target=self._run, args=(paths,), daemon=True, name=f"checkpoint-{step}"
        )
        self.thread.start()

    @property
    def busy(self) -> bool:
        return self.thread.is_alive()

    def _run(self, paths: list[Path]) -> None:
        try:
            for path in paths:
                self.files.append(
                    upload(self.store, path, str(path.relative_to(self.folder)), self.uri)
                )
                path.unlink()
        except (StoreError, OSError):
            self.broken = True


def upload(store: Store, path: Path, name: str, uri: str) -> Listed:
    """Upload one file as `name` below `uri`."""
    listed = {"name": name, "size": path.stat().st_size, "sha256": sha256_of(path)}
    store.upload(path, f"{uri}/{name}")
    return listed
