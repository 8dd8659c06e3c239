"""The tokenizer of a model without its weights, and the chat template that its engine uses."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from moaa.artifacts import Artifact
from moaa.errors import RecipeError, without_stop
from moaa.recipe.engine_args import answer_args, is_template, tokenizer_of
from moaa.recipe.files import text_of
from moaa.recipe.schema import Model
from moaa.store import Missing, Store
from moaa.weights import gguf, hub, local
from moaa.weights.chat_template import ChatTemplate
from moaa.weights.revisions import commit

FILES: Final = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
    "additional_chat_templates/default.jinja",
    "config.json",
    "generation_config.json",
)
"""Small files that say how a model reads and writes text."""


@dataclass(frozen=True, slots=True)
class TemplateArgs:
    """The chat template in a model's `engine_args`."""

    text: str = ""
    """The template itself, instead of the tokenizer's; empty: the tokenizer's."""
    variables: dict[str, Any] = field(default_factory=dict)
    """Variables of the template: for example `enable_thinking`."""

    @classmethod
    def of(cls, model: Model) -> Self:
        """Return the values of `--chat-template` and `--default-chat-template-kwargs`.

        Raises RecipeError if one of them cannot be read here.
        """
        text = ""
        variables: dict[str, Any] = {}
        for name, *values in answer_args(model.engine_args):
            value = " ".join(values)
            if name == "--chat-template":
                text = _template(value)
            elif name.partition(".")[0] == "--default-chat-template-kwargs":
                variables |= _variables(name, value)
        return cls(text, variables)


def chat_template(model: Model, store: Store) -> ChatTemplate:
    """Return the chat template that an engine of this model uses.

    Raises RecipeError or EngineError if its tokenizer cannot be read here.
    """
    return template_in(place_of(model, store), TemplateArgs.of(model))


def place_of(model: Model, store: Store) -> Path:
    """Return where the tokenizer of an engine of this model is: a folder, or a GGUF file.

    Such a file is not converted for it, which would take long: its head has all.
    """
    other, revision = tokenizer_of(model.engine_args)
    if other:
        return folder(other, store, revision)
    return local.gguf_file(model.source) or folder(model.source, store, model.revision)


def template_in(place: Path, args: TemplateArgs) -> ChatTemplate:
    """Return the chat template at a `place_of` a model. Raises RecipeError if there is none."""
    if place.is_file():
        return gguf.template_of(place, args.variables, args.text)
    return ChatTemplate.read(place, args.variables, args.text)


def _template(value: str) -> str:
    """Return the text of a template that is given as a path or as text, as vLLM accepts it."""
    if is_template(value):
        return value
    try:
        return text_of(Path(value))
    except RecipeError as error:
        raise RecipeError(
            f"--chat-template {value} cannot be read here: {without_stop(error)}. Give the engine "
            "a file that this machine has too, or the template's own text."
        ) from None


def _variables(name: str, value: str) -> dict[str, Any]:
    """Return the variables in this argument: a JSON object, or one of its keys with a value."""
    _, _, key = name.partition(".")
    try:
        found = json.loads(value)
    except ValueError:
        found = value
    if key:
        for part in reversed(key.split(".")):
            found = {part: found}
    if not isinstance(found, dict):
        raise RecipeError(f"{name} is {value!r}. Give it a JSON object.")
    return found


def folder(source: str, store: Store, revision: str | None = None) -> Path:
    """Return a folder with the tokenizer's files of this model. Of a model on the hub or on S3 only
    these files are downloaded.

    Raises RecipeError if there is no such model here, EngineError if it cannot be converted,
    HubAway if the hub does not answer.
    """
    if source.startswith("s3://"):
        return _from_s3(source.rstrip("/"), store)
    found = local.resolve(source, store, revision)
    if Path(found).is_dir():
        return Path(found)
    # A hub that does not answer is noticed within seconds by this.
    return hub.download_files(found, commit(found, revision, "model"), FILES)


def _from_s3(uri: str, store: Store) -> Path:
    """Download the files below `uri`; with a manifest their digests are verified."""
    identity = hashlib.sha256(f"{store.endpoint_url} {uri}".encode()).hexdigest()[:12]
    place = local.cache() / "tokenizers" / f"{uri.rsplit('/', 1)[1]}-{identity}"
    try:
        manifest = Artifact.open(store, uri).manifest
    except Missing:
        there = [name for name in FILES if store.exists(f"{uri}/{name}")]
        for name in there:
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            store.download(f"{uri}/{name}", place / name)
    else:
        files = tuple(file for file in manifest.files if file.name in FILES)
        there = [file.name for file in files]
        Artifact(store, manifest.model_copy(update={"files": files})).download(place)
    if "tokenizer_config.json" not in there:
        raise RecipeError(
            f"model source '{uri}' has no tokenizer. Give the s3:// address of a folder written "
            "by save_pretrained, or of a model artifact."
        )
    return place
