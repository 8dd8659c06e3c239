"""`moaa fetch` and `moaa split-armorm`: put a model's files into a directory, in the form that
engines read."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from moaa.progress.terminal import out
from moaa.store import Missing, Store


def fetch(source: str, directory: Path, revision: str | None) -> None:
    """Copy the files of a model or an artifact into a directory."""
    from moaa.weights import hub, local

    directory.mkdir(parents=True, exist_ok=True)
    if source.startswith("s3://"):
        from moaa.artifacts import Artifact

        store = Store(source)
        try:
            artifact = Artifact.open(store, source)
        except Missing:
            pass
        else:
            artifact.download(directory)
            out(
                f"{directory}: {len(artifact.manifest.files)} files of {artifact.uri}, digests "
                "verified"
            )
            return
    else:
        store = Store("s3://none")  # nothing is read from it: the source is no s3:// address
    found = local.resolve(source, store, revision)
    if not Path(found).is_dir():
        hub.download(found, revision, directory)
    else:
        _copy(Path(found), directory)
    out(f"{directory}: files of {source}")


def fetch_pointed(pointer: str, directory: Path, told: Path) -> None:
    """Fetch the model of a slot's pointer, as a slot's pods do at their start. Each version gets
    its own folder; `told` gets the shell variables with its path and revision."""
    from moaa.gateway.slots import pointed, revision_of

    source = pointed(Store(pointer).get(pointer).decode(errors="replace"), pointer)
    revision = revision_of(source)
    fetch(source, directory / revision, None)
    # Both values are safe in a shell: `revision_of` leaves only letters, digits, `.`, `_` and `-`.
    told.write_text(f"MOAA_MODEL={directory / revision}\nMOAA_REVISION={revision}\n")


def split_armorm(published: Path, directory: Path) -> None:
    """Split ArmoRM into a body that engines can serve and its heads."""
    from moaa.weights import armorm

    armorm.split(published, directory)
    out(f"{directory}: the body of {published}, and its heads in {armorm.HEADS}")


def _copy(folder: Path, directory: Path) -> None:
    """Copy files: hard links on the same disk, else copies.
    A file appears complete or not at all."""
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        target = directory / file.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.{os.getpid()}.part")
        part.unlink(missing_ok=True)
        try:
            os.link(file, part)
        except OSError:
            shutil.copyfile(file, part)
        part.replace(target)
