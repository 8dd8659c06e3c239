"""A model's chat template, rendered without transformers: the text that an engine passes to a
model.

The stages that ask and check have no transformers, but they must know what a template does with a
conversation before anything is paid for. `ChatTemplate.render` returns the same text as
transformers' `apply_chat_template(tokenize=False)`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from moaa.chat.message import Message
from moaa.errors import RecipeError, without_stop

if TYPE_CHECKING:
    from jinja2 import Template

SPECIAL = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)
"""The tokens in a tokenizer's configuration that its template may use."""


class Render(Protocol):
    """Turns a conversation into text. `prompt`: it ends with the start of an answer."""

    def __call__(self, messages: Sequence[Message], *, prompt: bool = False) -> str: ...


@dataclass(frozen=True)
class ChatTemplate:
    """The chat template of one model, with the tokens that it may use."""

    text: str
    tokens: Mapping[str, str] = field(default_factory=dict)
    """The tokens by name: `bos_token`, `eos_token` and so on."""
    added: tuple[tuple[str, bool], ...] = ()
    """The tokenizer's added tokens: (text, whether it is special)."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """More variables: for example `enable_thinking`."""

    @classmethod
    def read(cls, folder: Path, arguments: Mapping[str, Any] | None = None, text: str = "") -> Self:
        """Return the template in the files of a tokenizer; `text` replaces it if given.

        Raises RecipeError if the files cannot be read, or have no template.
        """
        config = _json(folder / "tokenizer_config.json")
        listed = _json(folder / "special_tokens_map.json")
        tokens = {
            name: content
            for name in SPECIAL
            if (content := _content(config.get(name) or listed.get(name)))
        }
        found = text or _text(folder, config)
        if not found:
            raise RecipeError(
                f"the tokenizer in {folder} has no chat template. Give the model one "
                "(chat_template.jinja)."
            )
        return cls(found, tokens, added_tokens(folder), arguments or {})

    def render(self, messages: Sequence[Message], *, prompt: bool = False) -> str:
        """Return the conversation as text. Raises jinja2's TemplateError if the template refuses
        it, or fails."""
        from jinja2 import TemplateError

        given = {
            "messages": [dict(message) for message in messages],
            "tools": None,
            "documents": None,
            "add_generation_prompt": prompt,
        }
        try:
            return self._compiled.render({**given, **self.tokens, **self.arguments})
        except TemplateError:
            raise
        except Exception as error:  # what its expressions raise: 1 + "a", 1 / 0, a missing key
            raise TemplateError(f"{type(error).__name__}: {error}") from error

    @cached_property
    def _compiled(self) -> Template:
        import jinja2
        from jinja2 import nodes
        from jinja2.ext import Extension, loopcontrols
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        class Generation(Extension):
            """`{% generation %}…{% endgeneration %}`, which marks answers:
            it returns the text inside."""

            tags = {"generation"}  # noqa: RUF012

            def parse(self, parser: Any) -> nodes.Node:
                line = next(parser.stream).lineno
                inside = parser.parse_statements(("name:endgeneration",), drop_needle=True)
                return nodes.Scope(inside).set_lineno(line)

        def refuse(message: str) -> None:
            raise jinja2.TemplateError(message)

        def tojson(value: Any, **options: Any) -> str:
            return json.dumps(value, **{"ensure_ascii": False, **options})

        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
        )
        environment.filters["tojson"] = tojson
        environment.globals["raise_exception"] = refuse
        environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        return environment.from_string(self.text)


def added_tokens(folder: Path) -> tuple[tuple[str, bool], ...]:
    """Return a tokenizer's added tokens: (text, whether it is special)."""
    config = _json(folder / "tokenizer_config.json")
    found: dict[str, bool] = {}
    listed = _json(folder / "tokenizer.json").get("added_tokens") or []
    decoder = config.get("added_tokens_decoder") or {}
    for token in (*listed, *decoder.values()):
        found[token["content"]] = bool(token.get("special")) or found.get(token["content"], False)
    named = {**config, **_json(folder / "special_tokens_map.json")}
    more = named.get("additional_special_tokens") or named.get("extra_special_tokens") or []
    more = list(more.values()) if isinstance(more, dict) else list(more)
    for value in (*(named.get(name) for name in SPECIAL), *more):
        if content := _content(value):
            found[content] = True
    return tuple(found.items())


def _text(folder: Path, config: Mapping[str, Any]) -> str:
    """Return the template's text: from a file of its own, or from the configuration."""
    for name in ("chat_template.jinja", "additional_chat_templates/default.jinja"):
        if (folder / name).is_file():
            return (folder / name).read_text()
    found = _json(folder / "chat_template.json").get("chat_template") or config.get("chat_template")
    if isinstance(found, list):
        named = {each["name"]: each["template"] for each in found}
        found = named.get("default")
    return found if isinstance(found, str) else ""


def _content(value: Any) -> str:
    """Return a token's text, which a configuration has as text or as an object."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else ""


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise RecipeError(
            f"{path} is not JSON: {without_stop(error)}. Get the model again."
        ) from None
    return found if isinstance(found, dict) else {}
