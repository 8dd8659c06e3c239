"""From a model's `source` in the recipe to something that vLLM and transformers can load.

    resolve("Qwen/Qwen2-72B-Instruct", store)      the hub id itself (`hub` downloads it)
    resolve("./my-model", store)                   the folder
    resolve("s3://bucket/sft/3f…", store)          downloaded to the cache; digests are verified
                                                   if there is a manifest
    resolve("package:PKG/model.Q4_1.gguf", store)  found in an installed package, and converted
                                                   once to a folder in the cache

The content of a source is in fingerprints too (`content`): new weights at an old address are
noticed.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from moaa.artifacts import Artifact
from moaa.artifacts.manifest import is_plain
from moaa.errors import EngineError, RecipeError
from moaa.packages import install_command, package_folders
from moaa.progress.messages import say
from moaa.store import Missing, Store

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def resolve(source: str, store: Store, revision: str | None = None) -> str:
    """Return a hub id, or the path of a folder on this machine.

    `revision` is only for hub ids. Raises RecipeError if there is no such model, or if another
    source has a revision; EngineError if the model cannot be converted.
    """
    path = Path(source).expanduser()
    if is_hub_id(source):
        return source
    if revision is not None:
        raise RecipeError(
            f"model source '{source}' has revision '{revision}', but only hub models have "
            "revisions. Remove it."
        )
    if source.startswith("s3://"):
        return str(_from_s3(source.rstrip("/"), store))
    if source.startswith("package:"):
        path = package_file(source.removeprefix("package:"))
    if path.suffix == ".gguf" and path.is_file():
        return str(_converted(path))
    if not (path / "config.json").is_file():
        raise RecipeError(
            f"model source '{source}': there is no config.json in {path.absolute()}. "
            "Give a folder written by save_pretrained, a hub id, an s3:// address or "
            "package:PATH.gguf."
        )
    return str(path.absolute())


def is_hub_id(source: str) -> bool:
    """Return whether a source is a name of the hub: it looks like one and is not a path here."""
    return (
        not source.startswith(("s3://", "package:", "."))
        and not Path(source).expanduser().exists()
        and _HUB_ID.fullmatch(source) is not None
    )


def package_file(path: str) -> Path:
    """Return the absolute path of `path` inside an installed package.

    The folders of MOAA_PACKAGES (separated like PATH; default `.cache/pkgs`) are searched first,
    then sys.path. Raises RecipeError if none has it.
    """
    own = package_folders()
    for place in (*own, *(Path(root) for root in sys.path if root)):
        if (place / path).exists():
            return (place / path).absolute()
    if found := _importable(path):
        return found
    raise RecipeError(
        f"package:{path} is not in {', '.join(map(str, own))} (MOAA_PACKAGES), nor in a package "
        f"of {sys.prefix}. If `make setup` has installed it: run moaa in the checkout's folder. "
        "Else install the package that contains it, or add its folder to MOAA_PACKAGES."
    )


def _importable(path: str) -> Path | None:
    """Return the file in a package installed from a folder of its own (an editable install)."""
    name, _, rest = path.partition("/")
    spec = find_spec(name) if rest and name.isidentifier() else None
    for place in (spec and spec.submodule_search_locations) or ():
        if (Path(place) / rest).exists():
            return (Path(place) / rest).absolute()
    return None


def cache() -> Path:
    """Return the folder of downloaded and converted models: MOAA_CACHE, else ~/.cache/moaa."""
    return Path(os.environ.get("MOAA_CACHE") or Path.home() / ".cache" / "moaa").absolute()


def _from_s3(uri: str, store: Store) -> Path:
    name = uri.rsplit("/", 1)[1]
    identity = hashlib.sha256(f"{store.endpoint_url} {uri}".encode()).hexdigest()[:12]
    folder = cache() / "s3" / f"{name}-{identity}"
    with _locked(folder):
        try:
            return Artifact.open(store, uri).download(folder)
        except Missing:
            pass
    # Other weights of the same size at the same address get their own folder.
    versions = json.dumps(sorted(store.versions(f"{uri}/").items()))
    folder = folder.with_name(f"{folder.name}-{hashlib.sha256(versions.encode()).hexdigest()[:12]}")
    with _locked(folder):
        _download_prefix(uri, store, folder)
    return folder


def _download_prefix(uri: str, store: Store, folder: Path) -> None:
    """Download every object below `uri`.

    An existing file with the right size is kept: the store's download is atomic, and the folder is
    only for these versions.
    """
    found = dict(store.list(uri + "/"))
    if f"{uri}/config.json" not in found:
        raise RecipeError(
            f"model source '{uri}' contains neither manifest.json nor config.json. "
            "Give the s3:// address of a folder written by save_pretrained, or of a model artifact."
        )
    for each, size in found.items():
        path = folder / each.removeprefix(uri + "/")
        if not is_plain(each.removeprefix(uri + "/")):
            raise RecipeError(
                f"model source '{uri}' contains an object whose name leaves the folder: "
                f"{each}. Remove it."
            )
        if not (path.is_file() and path.stat().st_size == size):
            path.parent.mkdir(parents=True, exist_ok=True)
            store.download(each, path)


def gguf_file(source: str) -> Path | None:
    """Return the GGUF file of a source; None if the source is not one, or the file is not here.

    Raises RecipeError for a package that is not installed.
    """
    path = Path(source).expanduser()
    if source.startswith("package:"):
        path = package_file(source.removeprefix("package:"))
    return path if path.suffix == ".gguf" and path.is_file() else None


def _conversion(gguf: Path) -> Path:
    """Return the folder of the converted model, whether it exists or not.

    In an image that folder is next to the file; otherwise it is in the cache.
    """
    beside = gguf.with_suffix("")
    if (beside / "config.json").is_file():
        return beside
    with gguf.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()[:12]
    return cache() / "models" / f"{gguf.stem}-{digest}"


def _converted(gguf: Path) -> Path:
    """Return the folder of the converted model; convert it if there is none.

    135M parameters take about 30 s.
    """
    folder = _conversion(gguf)
    if folder.is_dir():
        return folder
    with _locked(folder):
        if not folder.is_dir():
            say(f"converting {gguf.name} to {folder} (once)")
            _convert_in_child(gguf, folder)
    return folder


def _convert_in_child(gguf: Path, folder: Path) -> None:
    """Convert in a child process, so that the caller never loads torch.

    The folder appears complete or not at all.
    """
    unfinished = Path(tempfile.mkdtemp(prefix=folder.name + ".", dir=folder.parent))
    try:
        done = subprocess.run(
            [sys.executable, "-m", "moaa.weights.local", str(gguf), str(unfinished)],
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        if done.returncode:
            tail = "\n".join(done.stdout.strip().splitlines()[-20:])
            raise EngineError(
                f"{gguf} could not be converted (exit status {done.returncode}). This needs torch, "
                f"transformers and gguf: `{install_command('moaa[train]')}`. The last "
                f"lines were:\n{tail}"
            )
        unfinished.chmod(0o755)
        # Other users of a shared cache, or of an image that contains it, read it too.
        for file in unfinished.iterdir():
            file.chmod(0o644)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _convert(gguf: Path, folder: Path) -> None:
    """Write a GGUF file's weights, in bfloat16, and its tokenizer in the format of transformers."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    where, name = str(gguf.parent), gguf.name
    AutoTokenizer.from_pretrained(where, gguf_file=name).save_pretrained(folder)
    quantized = GgufConfig(gguf_file=name, dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(
        where, gguf_file=name, dtype=torch.bfloat16, quantization_config=quantized
    )
    model.save_pretrained(folder)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one process at a time fill `folder`; the others wait and then find it filled."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(folder.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    _convert(Path(sys.argv[1]), Path(sys.argv[2]))
