"""A checkpoint on S3: its manifest, and the transfer of its files.

Anyone who can write to the bucket can write a checkpoint. So nothing in it is trusted: names stay
below the checkpoint's folder, digests are verified, and only data that cannot run code is loaded
(`load_data_only`).
"""

from __future__ import annotations

import copyreg
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from moaa.artifacts import File
from moaa.progress.messages import log
from moaa.recipe.schema import Part
from moaa.store import Missing, Store
from moaa.store.bytes import sha256_of


class CheckpointManifest(Part):
    """What a checkpoint is and which files it has; written last."""

    schema_version: Literal[1] = 1
    step: int = Field(ge=0)
    shape: dict[str, Any]
    """Ranks, ZeRO stage and precision: a checkpoint can be loaded only with the same ones."""
    seconds: float = Field(ge=0)
    """How long the training took until this step, over all attempts."""
    files: tuple[File, ...]

    @classmethod
    def read(cls, store: Store, uri: str) -> CheckpointManifest | None:
        """Return the manifest of the checkpoint at `uri`; None if it is not a checkpoint.

        Raises `Missing` if it was deleted before it could be read.
        """
        try:
            return cls.model_validate(json.loads(store.get(f"{uri}/manifest.json")))
        except (ValueError, RecursionError, ValidationError):
            return None

    def write(self, store: Store, uri: str) -> None:
        """Write the manifest: the checkpoint at `uri` is then complete."""
        store.put(f"{uri}/manifest.json", self.model_dump_json(exclude_none=True).encode())

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def download(self, store: Store, uri: str, folder: Path) -> bool:
        """Download the files to `folder`. Return False, and leave no folder, if one differs from
        the list."""
        return downloaded(store, uri, self.files, folder)


def downloaded(store: Store, uri: str, files: Iterable[File], folder: Path) -> bool:
    """Download files below `uri` to `folder`. Return False, and leave no folder, if one differs."""
    try:
        for file in files:
            path = folder / file.name
            store.download(f"{uri}/{file.path}", path)
            if path.stat().st_size != file.size or sha256_of(path) != file.sha256:
                break
        else:
            return True
    except Missing:
        pass
    shutil.rmtree(folder, ignore_errors=True)
    return False


def upload(store: Store, path: Path, name: str, uri: str) -> File:
    """Upload one file as `name` below `uri`."""
    listed = File(name=name, size=path.stat().st_size, sha256=sha256_of(path))
    store.upload(path, f"{uri}/{name}")
    return listed


def load_data_only() -> None:
    """Make torch load only data in this process, for any caller, and write checkpoints that can
    be loaded this way.

    DeepSpeed loads its checkpoints as pickles, which can run any command. With this, torch accepts
    only tensors, plain values and the classes below, which hold numbers.
    """
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    import torch
    from deepspeed.runtime.zero.config import ZeroStageEnum

    torch.serialization.add_safe_globals(_inert())
    # Debian 12's Python 3.11.2 pickles an enumeration's member as a call of getattr, which is not
    # data.
    copyreg.pickle(ZeroStageEnum, lambda member: (ZeroStageEnum, (member.value,)))


def holds_data_only(folder: Path) -> bool:
    """Return whether torch can load each of its files in `folder` as only data.

    It reads only the outlines, not the tensors.
    """
    import torch
    from transformers import trainer_pt_utils

    of_trainer: Any = trainer_pt_utils

    for path in sorted(folder.rglob("*")):
        if path.suffix not in (".pt", ".pth", ".bin"):
            continue
        try:
            with of_trainer.safe_globals():
                torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:  # torch raises many kinds
            lines = [line.strip() for line in str(error).split("\n")]
            reason = next((line for line in lines if "WeightsUnpickler" in line), lines[0])[:200]
            log.warning(
                f"the checkpoint's file {path.relative_to(folder)} is not loaded: it is not plain "
                f"data ({reason})"
            )
            return False
    return True


def _inert() -> list[Any]:
    """Return DeepSpeed's classes in its checkpoints of every ZeRO stage. They hold numbers, and do
    nothing when they are loaded."""
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    return [LossScaler, ZeroStageEnum, fragment_address]
