"""Checkpoints that survive the machine. They are uploaded while the training continues, and are
complete once their manifest exists.

    <output>/checkpoints/3f9c01aa/checkpoint-40/global_step40/….pt      each rank's own states
    <output>/checkpoints/3f9c01aa/checkpoint-40/manifest.json           written last, by rank 0

Each attempt at the training writes to its own folder (3f9c01aa), because two runs may work on the
same training at a time. Any attempt resumes from the newest checkpoint of all. Each rank uploads
its share of its node's files in a thread. Between two steps the ranks agree on one of these: a
checkpoint is due; all uploads are finished (then the manifest is written and the older checkpoint
deleted); or an upload failed (then this checkpoint is given up and counted, and the training
continues).
"""

from __future__ import annotations

import secrets
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from moaa.artifacts import File
from moaa.errors import StoreError
from moaa.progress.messages import log
from moaa.recipe.model_size import CHECKPOINT_BYTES
from moaa.store import Missing, Store
from moaa.train.checkpoint_files import CheckpointManifest, holds_data_only, upload
from moaa.train.ranks import Ranks


@dataclass(frozen=True, slots=True)
class Restored:
    """A checkpoint on this node's disk."""

    step: int
    path: Path


@dataclass
class Checkpoints:
    """The checkpoints of one training below `output`, as one rank handles them."""

    store: Store
    output: str
    ranks: Ranks
    folder: Path
    """Where the trainer writes its checkpoints on this node."""
    shape: Mapping[str, Any]
    """Ranks, ZeRO stage and precision: a checkpoint can be loaded only with the same ones."""
    minutes: float
    steps: int | None = None
    seconds_before: float = 0.0
    """How long earlier attempts trained until the checkpoint that this one resumed from."""
    failed: int = 0
    unusable: int = 0
    """The number of complete checkpoints that could not be used: of other ranks or precision, with
    a changed or missing file, or with more than data in it."""
    size: float = 0
    """Bytes of a checkpoint on this node's disk: of the last one; before the first, an estimate."""
    loadable: Callable[[Path], bool] = holds_data_only
    """Returns whether a downloaded checkpoint can be loaded without running code in it."""
    attempt: str = field(default_factory=lambda: secrets.token_hex(4))
    """The folder that this attempt writes to. Each rank draws a name; rank 0's name is used."""
    started: float = field(default_factory=time.monotonic)
    _last: float = field(default_factory=time.monotonic)
    _last_step: int = 0
    _pending: _Upload | None = None
    _resumed: str | None = None
    """Address of the checkpoint that this attempt resumed from, until it has written its own."""
    _loaded: Path | None = None
    """The restored checkpoint on this node's disk, until every rank has read it."""

    @property
    def prefix(self) -> str:
        """The folder of all attempts' checkpoints, below `output`."""
        return f"{self.output}/checkpoints"

    @property
    def seconds(self) -> float:
        """How long the training has taken, over all attempts."""
        return self.seconds_before + time.monotonic() - self.started

    # Called between two steps, on every rank.

    def due(self, step: int) -> bool:
        """Return whether all ranks should write a checkpoint now; commit the last one if its
        uploads are finished.

        A checkpoint that does not fit on a node's disk is given up: otherwise the trainer would
        fail halfway and stop the training.
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
            self._commit_or_give_up(pending, bool(broken))
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
        """Estimate a checkpoint's size from the model's size, until one has been written."""
        self.size = (
            self.size or parameters * CHECKPOINT_BYTES * self.ranks.local_world / self.ranks.world
        )

    def saved(self, step: int) -> None:
        """Start to upload checkpoint-`step`, which the trainer has written on every rank."""
        self.attempt = self.ranks.gather(self.attempt)[0]
        folder = self.folder / f"checkpoint-{step}"
        # One rank lists the files of its node: each file is deleted once it is uploaded.
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
        """Wait for the upload in progress, if any."""
        if self._pending is not None:
            self._pending.thread.join()

    def _commit_or_give_up(self, upload: _Upload, broken: bool) -> None:
        self._pending = None
        parts = self.ranks.gather(upload.files)
        if self.ranks.leader:
            shutil.rmtree(upload.folder, ignore_errors=True)
        self.failed += broken
        if broken or not self.ranks.first:
            return
        files = sorted((file for part in parts for file in part), key=lambda file: file.name)
        manifest = CheckpointManifest(
            step=upload.step,
            shape=dict(self.shape),
            seconds=round(self.seconds, 3),
            files=tuple(files),
        )
        try:
            manifest.write(self.store, upload.uri)
            self._delete_older(upload.uri)
        except StoreError:
            self.failed += 1

    def _delete_older(self, newest: str) -> None:
        """Delete this attempt's older checkpoints, and the one it resumed from. All others may
        belong to an attempt that is running now."""
        own = [
            uri
            for uri, _ in self.store.list(f"{self.prefix}/{self.attempt}")
            if not uri.startswith(f"{newest}/")
        ]
        before = [uri for uri, _ in self.store.list(self._resumed)] if self._resumed else []
        self.store.delete(*own, *before)
        self._resumed = None

    def _forget_loaded(self) -> None:
        """Delete the loaded checkpoint. `due` is first called after a whole step, so all ranks have
        read it."""
        if self._loaded is not None and self.ranks.leader:
            shutil.rmtree(self._loaded, ignore_errors=True)
        self._loaded = None

    # Called at the start and at the end.

    def restore(self) -> Restored | None:
        """Download the newest usable checkpoint to every node.

        A checkpoint is counted in `unusable`, and the next newest is tried, if it has other ranks
        or precision, a changed or missing file, more than data in it, or no valid manifest. None if
        none is left. If a running attempt writes a newer one during this, that one is tried next.
        """
        tried: list[str] = []
        while left := self.ranks.on_first(
            lambda: [each for each in self._complete() if each[0] not in tried]
        ):
            uri, manifest = left[0]
            tried.append(uri)
            path = None
            if manifest is not None and manifest.shape == self.shape:
                path = self.ranks.on_leaders(partial(self._downloaded, uri, manifest))
            everywhere = all(self.ranks.gather(path is not None))
            if manifest is not None and path is not None and everywhere:
                self.seconds_before, self._last_step = manifest.seconds, manifest.step
                self.size = manifest.size * self.ranks.local_world / self.ranks.world
                self._resumed, self._loaded = uri, path
                return Restored(manifest.step, path)
            self.unusable += 1
            if path is not None and self.ranks.leader:
                shutil.rmtree(path)  # another node could not download it
        return None

    def _complete(self) -> list[tuple[str, CheckpointManifest | None]]:
        """Return the addresses of all complete checkpoints with their manifests, newest first;
        those without a valid manifest come last."""
        found = []
        for uri, _ in self.store.list(self.prefix):
            if uri.endswith("/manifest.json"):
                where = uri.removesuffix("/manifest.json")
                with suppress(Missing):  # deleted: its attempt has just written a newer one
                    found.append((where, CheckpointManifest.read(self.store, where)))
        return sorted(found, key=lambda each: each[1].step if each[1] else -1, reverse=True)

    def _downloaded(self, uri: str, manifest: CheckpointManifest) -> Path | None:
        """Return the folder with the checkpoint's files. Return None, and leave nothing on the
        disk, if they differ from the manifest or hold more than data."""
        folder = self.folder / f"checkpoint-{manifest.step}"
        if not manifest.download(self.store, uri, folder):
            return None
        if self.loadable(folder):
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        return None


class _Upload:
    """Uploads one rank's files of one checkpoint; each is deleted from the disk afterwards."""

    def __init__(self, store: Store, uri: str, folder: Path, paths: list[Path], step: int) -> None:
        self.store, self.uri, self.folder, self.step = store, uri, folder, step
        self.files: list[File] = []
        self.broken = True
        """Whether not all files are on S3, for whatever reason; final once it is not `busy`."""
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
        except Exception as error:  # of any kind: the training continues
            log.warning(f"checkpoint {self.step} could not be uploaded: {error}")
        else:
            self.broken = False
