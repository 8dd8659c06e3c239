"""The current content of a model's source: new weights at an old address are another input.

hub id          the commit of its revision
s3://…          the versions of the objects
a local folder  the digests of its files
package:…       nothing: the installed version is part of the image
an endpoint     nothing: its owner decides what it serves

Files and models in engine arguments (`--tokenizer`, `--chat-template`, …) count as well.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from moaa.recipe.engine_args import named, tokenizer_of
from moaa.recipe.schema import Model, Recipe
from moaa.store import Store
from moaa.store.bytes import sha256_of
from moaa.weights.local import cache, is_hub_id
from moaa.weights.revisions import commit, is_commit

NAMES_A_MODEL: Final = ("--tokenizer", "--hf-config-path")
"""Engine arguments that name another model: a hub id, or a folder."""
TEMPLATE: Final = "--chat-template"
"""The engine argument with a chat template: a path, or the text itself."""


def of_asked(recipe: Recipe, names: Collection[str], store: Store) -> dict[str, str]:
    """Return the content of these models' sources, if this run loads the models itself.

    Models of engines on Kubernetes are what was deployed; only S3 is read for them.
    """
    found: dict[str, str] = {}
    for name in sorted(names):
        model = recipe.models[name]
        if model.endpoint or recipe.runtime.engines.kind == "endpoint":
            continue
        if recipe.runtime.engines.kind == "process":
            found |= _of_args(f"models.{name}", model)
        elif not model.source.startswith("s3://"):
            continue
        if content := of_source(model, store):
            found[f"models.{name}"] = content
    return found


def of_source(model: Model, store: Store) -> str | None:
    """Return the content of a model's source; None for a package, and for a path that is not here.

    Raises StoreError, HubAway or RecipeError if it cannot be read.
    """
    if model.source.startswith("package:"):
        return None
    if model.source.startswith("s3://"):
        return versions_digest(store.versions(model.source))
    if is_hub_id(model.source):
        return commit(model.source, model.revision, "model")
    path = Path(model.source).expanduser()
    return digest(path) if path.exists() else None


def of_template(recipe: Recipe) -> dict[str, str]:
    """Return the content of the file with the target's chat template, if it is given as one: its
    text is what a training teaches."""
    model = recipe.models[recipe.target]
    values = [" ".join(found) for name, found in named(model.engine_args) if name == TEMPLATE]
    return {
        f"models.{recipe.target}: {value}": held for value in values if (held := _of_path(value))
    }


def pinned(recipe: Recipe, content: dict[str, str]) -> Recipe:
    """Return the recipe with each hub model, and each separate tokenizer,
    at the commit that was found."""
    changed = {
        name: model.model_copy(update=update)
        for name, model in recipe.models.items()
        if (update := _pins(f"models.{name}", model, content))
    }
    return recipe.model_copy(update={"models": {**recipe.models, **changed}}) if changed else recipe


def _pins(name: str, model: Model, content: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if is_commit(content.get(name)) and is_hub_id(model.source):
        found["revision"] = content[name]
    tokenizer, revision = tokenizer_of(model.engine_args)
    held = content.get(f"{name}: {tokenizer}")
    if held and is_commit(held) and held != revision and is_hub_id(tokenizer):
        # The last one counts.
        found["engine_args"] = (*model.engine_args, f"--tokenizer-revision={held}")
    return found


def versions_digest(versions: dict[str, str]) -> str:
    """Return one digest for the versions of several objects."""
    text = json.dumps(sorted(versions.items()))
    return hashlib.sha256(text.encode()).hexdigest()


def _of_args(name: str, model: Model) -> dict[str, str]:
    """Return the content of the files, folders and hub models in engine arguments."""
    tokenizer, revision = tokenizer_of(model.engine_args)
    found: dict[str, str] = {}
    for value in sorted(_values(model.engine_args)):
        if held := _of_path(value):
            found[f"{name}: {value}"] = held
    for value in sorted(_models(model.engine_args)):
        if is_hub_id(value):
            of_it = revision if value == tokenizer else None
            found[f"{name}: {value}"] = commit(value, of_it, "model")
        elif Path(value).is_dir():
            found[f"{name}: {value}"] = digest(Path(value))
    return found


def _values(engine_args: Iterable[str]) -> set[str]:
    # `--chat-template X`, `--chat-template=X`, `--lora-modules NAME=X`
    return {value for text in engine_args for value in (text, text.partition("=")[2])}


def _of_path(value: str) -> str | None:
    """Return the digest of the file, if it is one."""
    try:
        return digest(Path(value)) if value and Path(value).is_file() else None
    except OSError:  # a template given as text is too long for a name
        return None


def _models(engine_args: Sequence[str]) -> Iterator[str]:
    """Yield the other models, by hub id or folder, in engine arguments."""
    for name, values in named(engine_args):
        if name in NAMES_A_MODEL:
            yield from values
        elif name == "--lora-modules":
            for value in values:
                yield _path_of_adapter(value)


def _path_of_adapter(value: str) -> str:
    """Return the path in `NAME=PATH` or in {"name": …, "path": …}."""
    try:
        return str(json.loads(value)["path"])
    except (ValueError, TypeError, KeyError):
        return value.partition("=")[2]


def digest(path: Path) -> str:
    """Return the digest of a file, or of all files of a folder with their names."""
    if path.is_file():
        return _of_file(path)
    files = sorted(each for each in path.rglob("*") if each.is_file())
    return versions_digest({str(each.relative_to(path)): _of_file(each) for each in files})


def _of_file(path: Path) -> str:
    """Return the sha256 of a file. It is cached until the file changes,
    because weights are large."""
    about = path.stat()
    identity = f"{path.absolute()} {about.st_ino} {about.st_size} {about.st_ctime_ns}"
    kept = cache() / "digests" / hashlib.sha256(identity.encode()).hexdigest()
    try:
        if len(known := kept.read_text()) == 64:
            return known
    except OSError:
        pass
    found = sha256_of(path)
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(found)
    except OSError:  # the next time is only slower
        pass
    return found
