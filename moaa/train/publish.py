"""The finished model: completed on this node's disk, and kept there until it is on S3.

A trained model is not lost if the store does not answer at the end. The upload waits for the store;
if it gives up, the model stays in `FINISHED` below the cache. The next attempt on this machine
uploads it and trains nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from moaa.errors import StoreError
from moaa.progress.messages import log
from moaa.store import Store
from moaa.train.checkpoint_files import upload
from moaa.train.job import Job
from moaa.train.protocol import PROGRESS, send
from moaa.train.rendering import conversation
from moaa.weights import local

T = TypeVar("T")

FINISHED: Final = "finished"
"""Folder below the cache with models that are trained but not yet on S3."""


@dataclass(frozen=True, slots=True)
class UploadPatience:
    """How long an upload waits for the store, beyond the store's own patience."""

    total_s: float = 3600
    pause_s: float = 30


@dataclass(frozen=True)
class Finished:
    """A trained model on this node's disk: `model/`, and `facts.json` once it is complete."""

    folder: Path

    @classmethod
    def new(cls, job: Job) -> Finished:
        """Return a new place for the model of this training.

        Places of attempts on this machine that were killed while they saved the model are deleted.
        """
        here = platform.node()
        for left in _place(job).glob(f"{here}.*.*"):
            pid = left.name.removeprefix(f"{here}.").split(".")[0]
            if not Path("/proc", pid).exists() and not (left / "facts.json").exists():
                shutil.rmtree(left, ignore_errors=True)
        return cls(_place(job) / f"{here}.{os.getpid()}.{secrets.token_hex(4)}")

    @classmethod
    def find(cls, job: Job) -> Finished | None:
        """Return the complete model that an earlier attempt could not upload, if there is one."""
        for facts in sorted(_place(job).glob("*/facts.json")):
            return cls(facts.parent)
        return None

    @property
    def model(self) -> Path:
        """The folder of the model."""
        return self.folder / "model"

    def keep(self, facts: Mapping[str, Any]) -> None:
        """Mark the model as complete; `facts` are for the report."""
        unfinished = self.folder / "facts.json.unfinished"
        unfinished.write_text(json.dumps(facts))
        unfinished.replace(self.folder / "facts.json")

    def facts(self) -> dict[str, Any]:
        """Return the facts given to `keep`."""
        found: dict[str, Any] = json.loads((self.folder / "facts.json").read_text())
        return found

    def delete(self) -> None:
        """Delete it, and the folder around it if that is then empty."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.folder.parent.rmdir()


def _place(job: Job) -> Path:
    # The address of the result ends in its fingerprint: the same address, the same model.
    identity = hashlib.sha256(job.output.encode()).hexdigest()[:16]
    return local.cache() / FINISHED / f"{job.kind}-{identity}"


def publish(
    job: Job, store: Store, finished: Finished, patience: UploadPatience = UploadPatience()
) -> None:
    """Upload the model, then `result.json`; then delete it here.

    If another attempt was faster, its result stays and this one is deleted. Raises StoreError if
    the store does not accept it for a long time; the model then stays here.
    """
    attempt = f"model-{secrets.token_hex(4)}"

    def put(path: Path) -> dict[str, Any]:
        name = str(path.relative_to(finished.model))
        listed = upload(store, path, name, f"{job.output}/{attempt}")
        return {**listed.model_dump(exclude_none=True), "key": f"{attempt}/{name}"}

    paths = sorted(
        path
        for path in finished.model.rglob("*")
        if path.is_file() and path.name != "training_args.bin"
    )
    waiting = _Waiting(finished, patience)
    with ThreadPoolExecutor(4, "moaa-upload") as pool:
        files = list(pool.map(lambda path: waiting.until_done(lambda: put(path)), paths))
    facts = {**finished.facts(), "upload_waits": waiting.waits}
    result = json.dumps({"schema_version": 1, "files": files, "facts": facts}).encode()
    if not waiting.until_done(lambda: store.put_new(job.result, result)):
        tidy(f"{job.output}/{attempt}", lambda: store.delete_prefix(f"{job.output}/{attempt}"))
    finished.delete()


class _Waiting:
    """Repeats calls that the store did not accept, and counts the repetitions."""

    def __init__(self, finished: Finished, patience: UploadPatience) -> None:
        self._finished, self._patience = finished, patience
        self.waits = 0

    def until_done(self, do: Callable[[], T]) -> T:
        """Return the result of `do`, and repeat it while the store does not answer,
        within our patience."""
        until = time.monotonic() + self._patience.total_s
        while True:
            try:
                return do()
            except StoreError as error:
                if not error.outside or time.monotonic() >= until:
                    raise type(error)(
                        f"{error}\n  The training is done, but its model could not be uploaded. It "
                        f"stays in {self._finished.folder}: run again, and it is uploaded without "
                        "training (on this machine; elsewhere the training continues from its "
                        "newest checkpoint)."
                    ) from error
                self.waits += 1
                send(PROGRESS, note=f"the model is trained; the store does not accept it: {error}")
                time.sleep(self._patience.pause_s)


def tidy(what: str, delete: Callable[[], object]) -> None:
    """Delete what is no longer needed. If the store does not answer, that only costs space."""
    try:
        delete()
    except StoreError as error:
        log.warning(f"{what} is no longer needed, but was not deleted: {error}")


def complete(folder: Path, job: Job, base: str, end_of_turn: str) -> None:
    """Add tokenizer, chat template and generation settings to the weights.

    The token that ends a turn is added to those at which engines stop, whatever the base model has:
    a model that was trained to end its turns otherwise would never stop.
    """
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    of_base: dict[str, Any] = {"revision": job.revision} if job.revision else {}
    tokenizer = AutoTokenizer.from_pretrained(base, **of_base)
    if job.chat_template:
        tokenizer.chat_template = job.chat_template
    # A base model without generation settings: those written with the weights stay.
    with contextlib.suppress(OSError):
        # Not `save_pretrained`, which refuses some settings that engines accept.
        GenerationConfig.from_pretrained(base, **of_base).to_json_file(
            folder / "generation_config.json", keys_to_pop=["compile_config"]
        )
    config = AutoConfig.from_pretrained(base, **of_base)
    settings = _read(folder / "generation_config.json")
    end: int = tokenizer.vocab[end_of_turn]
    # If the base model has no file with settings, these settings come from the trainer.
    stops = _ids(settings.get("eos_token_id")) or _ids(getattr(config, "eos_token_id", None))
    written = _read(folder / "config.json")
    if end not in stops:
        stops = [*stops, end]
        written["eos_token_id"] = stops
        _end_turns_with(tokenizer, end_of_turn, job)
    settings["eos_token_id"] = stops if len(stops) > 1 else stops[0]
    _write(folder / "generation_config.json", settings)
    tokenizer.save_pretrained(folder)
    # The trainer has turned the cache off.
    written |= {"dtype": "bfloat16", "use_cache": getattr(config, "use_cache", True)}
    _write(folder / "config.json", written)


def _end_turns_with(tokenizer: Any, end_of_turn: str, job: Job) -> None:
    """Make the end of a turn the tokenizer's end of text too, where engines stop that do not read
    the generation settings. Not if the template writes that token elsewhere."""

    def written() -> list[str]:
        return [
            tokenizer.apply_chat_template(
                conversation(turns=turns, system=False), tokenize=False, **job.template_variables
            )
            for turns in (1, 2)
        ]

    before, eos = written(), tokenizer.eos_token
    tokenizer.eos_token = end_of_turn
    if written() != before:
        tokenizer.eos_token = eos


def _ids(value: Any) -> list[int]:
    """Return the ids in a setting that may be one id, a list or nothing."""
    if value is None:
        return []
    return [int(each) for each in value] if isinstance(value, list) else [int(value)]


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return found


def _write(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
