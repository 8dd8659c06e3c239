"""A checkpoint on S3: its manifest, and its files on the way there and back.

Whoever can write the bucket can write a checkpoint. So nothing in it is trusted: names stay below
the checkpoint's folder, digests are verified, and what is read back is data that cannot run
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
    """A checkpoint can only be loaded with the same number of ranks, ZeRO stage and precision."""
    seconds: float = Field(ge=0)
    """How long the training took until this step, over all attempts."""
    files: tuple[File, ...]

    @classmethod
    def read(cls, store: Store, uri: str) -> CheckpointManifest | None:
        """Return the manifest of the checkpoint at `uri`; None if it is none.

        Raises `Missing` if it was deleted meanwhile.
        """
        try:
            return cls.model_validate(json.loads(store.get(f"{uri}/manifest.json")))
        except (ValueError, RecursionError, ValidationError):
            return None

    def write(self, store: Store, uri: str) -> None:
        """Write it: the checkpoint at `uri` is complete then."""
        store.put(f"{uri}/manifest.json", self.model_dump_json(exclude_none=True).encode())

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def download(self, store: Store, uri: str, folder: Path) -> bool:
        """Download the files to `folder`; False, and no folder, if one is not as listed."""
        return downloaded(store, uri, self.files, folder)


def downloaded(store: Store, uri: str, files: Iterable[File], folder: Path) -> bool:
    """Download the files below `uri` to `folder`; False, and no folder, if one is not as listed."""
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
    """Let torch load nothing but data in this process, whoever asks it to load what, and write
    checkpoints that can be loaded so.

    DeepSpeed loads its checkpoints as pickles, which may run any command. With this, torch takes
    only tensors, plain values and the classes below, which hold numbers.
    """
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    import torch
    from deepspeed.runtime.zero.config import ZeroStageEnum

    torch.serialization.add_safe_globals(_inert())
    # Debian 12's Python 3.11.2 pickles a member of an enumeration as a call of getattr: no data.
    copyreg.pickle(ZeroStageEnum, lambda member: (ZeroStageEnum, (member.value,)))


def holds_data_only(folder: Path) -> bool:
    """Return whether torch can load every one of its files in `folder` as data alone.

    Only the outlines are read, not the tensors.
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
                f"the checkpoint's file {path.relative_to(folder)} is not loaded: it is no plain "
                f"data ({reason})"
            )
            return False
    return True


def _inert() -> list[Any]:
    """DeepSpeed's classes in its checkpoints of every ZeRO stage: they hold numbers, and do nothing
    when they are loaded."""
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    return [LossScaler, ZeroStageEnum, fragment_address]
