"""The best weights so far, on S3 during the training, so that an attempt that resumes has them.

    <output>/best/40-3f9c01aa/model.safetensors …
    <output>/best/40-3f9c01aa/manifest.json           written last

They are verified like a checkpoint, and only data is loaded: no pickle, no code.
"""

from __future__ import annotations

import json
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from pydantic import ValidationError

from moaa.artifacts import File
from moaa.errors import StoreError
from moaa.progress.messages import log
from moaa.recipe.schema import Part
from moaa.store import Missing, Store
from moaa.train.checkpoint_files import downloaded, upload

DATA: Final = (".safetensors", ".json", ".jinja", ".txt", ".model")
"""The files of a saved model and its tokenizer."""


class Manifest(Part):
    """The measurement of these weights, and their files; written last."""

    schema_version: Literal[1] = 1
    step: int
    loss: float
    files: tuple[File, ...]


@dataclass(frozen=True, slots=True)
class Best:
    """The best weights of one training, on S3 below `output`."""

    store: Store
    output: str

    @property
    def prefix(self) -> str:
        """The folder of the best weights, below `output`."""
        return f"{self.output}/best"

    def keep(self, folder: Path, step: int, loss: float) -> None:
        """Upload the folder, and delete the earlier weights. A failure is logged and the training
        continues: an attempt that resumes then has the earlier weights."""
        uri = f"{self.prefix}/{step}-{secrets.token_hex(4)}"
        try:
            files = tuple(
                upload(self.store, path, str(path.relative_to(folder)), uri)
                for path in sorted(folder.rglob("*"))
                if path.is_file() and path.suffix in DATA
            )
            manifest = Manifest(step=step, loss=loss, files=files)
            self.store.put(f"{uri}/manifest.json", manifest.model_dump_json().encode())
            older = [each for each, _ in self.store.list(self.prefix)]
            self.store.delete(*(each for each in older if not each.startswith(f"{uri}/")))
        except (StoreError, OSError) as error:
            log.warning(f"the best weights (step {step}) are on this machine only: {error}")

    def restore(self, folder: Path) -> tuple[int, float] | None:
        """Download the best weights to `folder`; return their step and loss. Return None, and leave
        no folder, if there are no usable ones."""
        found = {uri: kept for uri in self._complete() if (kept := self._read(uri))}
        for uri, manifest in sorted(found.items(), key=lambda each: each[1].loss):
            shutil.rmtree(folder, ignore_errors=True)
            named = all(Path(file.name).suffix in DATA for file in manifest.files)
            if named and downloaded(self.store, uri, manifest.files, folder):
                return manifest.step, manifest.loss
        return None

    def _complete(self) -> list[str]:
        end = "/manifest.json"
        return [
            uri.removesuffix(end) for uri, _ in self.store.list(self.prefix) if uri.endswith(end)
        ]

    def _read(self, uri: str) -> Manifest | None:
        try:
            return Manifest.model_validate(json.loads(self.store.get(f"{uri}/manifest.json")))
        except (ValueError, RecursionError, ValidationError, Missing):
            return None
