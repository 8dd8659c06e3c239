"""What a model's source holds now: new weights at an old address are another input.

hub id          the commit of its revision
s3://…          the versions of the objects
a local folder  the digests of its files
package:…       nothing: the installed version is part of the image
an endpoint     nothing: who serves it decides what it serves
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable
from pathlib import Path

from moaa.recipe.schema import Model, Recipe
from moaa.store import Store
from moaa.store.bytes import sha256_of
from moaa.weights.local import cache, is_hub_id
from moaa.weights.revisions import commit, is_commit


def of_asked(recipe: Recipe, names: Collection[str], store: Store) -> dict[str, str]:
    """Return what the sources of these models hold, as far as this run loads them itself.

    Those of engines on Kubernetes are what was deployed; only S3 is asked for them.
    """
    found: dict[str, str] = {}
    for name in sorted(names):
        model = recipe.models[name]
        if model.endpoint or recipe.runtime.engines.kind == "endpoint":
            continue
        if recipe.runtime.engines.kind == "process":
            found |= _of_files(name, model.engine_args)
        elif not model.source.startswith("s3://"):
            continue
        if content := of_source(model, store):
            found[f"models.{name}"] = content
    return found


def of_source(model: Model, store: Store) -> str | None:
    """Return what a model's source holds; None for a package, and for a path that is not here.

    Raises StoreError, HubAway or RecipeError if it cannot be asked.
    """
    if model.source.startswith("package:"):
        return None
    if model.source.startswith("s3://"):
        return versions_digest(store.versions(model.source))
    if is_hub_id(model.source):
        return commit(model.source, model.revision, "model")
    path = Path(model.source).expanduser()
    return digest(path) if path.exists() else None


def pinned(recipe: Recipe, content: dict[str, str]) -> Recipe:
    """Return the recipe with each hub model at the commit that was found for it."""
    changed = {
        name: model.model_copy(update={"revision": content[f"models.{name}"]})
        for name, model in recipe.models.items()
        if is_commit(content.get(f"models.{name}")) and is_hub_id(model.source)
    }
    return recipe.model_copy(update={"models": {**recipe.models, **changed}}) if changed else recipe


def versions_digest(versions: dict[str, str]) -> str:
    """Return one digest for the versions of several objects."""
    text = json.dumps(sorted(versions.items()))
    return hashlib.sha256(text.encode()).hexdigest()


def _of_files(name: str, engine_args: Iterable[str]) -> dict[str, str]:
    """Return the digests of the files that engine arguments name (chat templates)."""
    # `--chat-template X`, `--chat-template=X`, `--lora-modules NAME=X`
    values = [value for text in engine_args for value in {text, text.partition("=")[2]}]
    found: dict[str, str] = {}
    for value in sorted(values):
        try:
            if value and Path(value).is_file():
                found[f"models.{name}: {value}"] = digest(Path(value))
        except OSError:  # a template as a text is too long for a name
            continue
    return found


def digest(path: Path) -> str:
    """Return the digest of a file, or of all files of a folder with their names."""
    if path.is_file():
        return _of_file(path)
    files = sorted(each for each in path.rglob("*") if each.is_file())
    return versions_digest({str(each.relative_to(path)): _of_file(each) for each in files})


def _of_file(path: Path) -> str:
    """Return the sha256 of a file. It is kept, since weights are large, until the file changes."""
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
    except OSError:  # only slower the next time
        pass
    return found
