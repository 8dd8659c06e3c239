"""The keys of clients: what each key may do, and the file with the keys.

    keys:
      - name: alice
        sha256: 2bd806c97f0e00af1a1fc3328fa763a9269723c8db8fac4f93af71db186d6e90
        models: [smol]
        limits: {in_flight: 4, calls_per_minute: 60}

The file has no key itself, only its hash.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from moaa.errors import RecipeError
from moaa.recipe import secrets
from moaa.recipe.document import Part, Problems
from moaa.recipe.files import document_of
from moaa.recipe.forms import form
from moaa.recipe.mistakes import checked
from moaa.recipe.read import read


class Limits(Part):
    """How much may be asked. Each call to an engine counts: a mixture of three is four calls."""

    in_flight: int | None = Field(None, ge=1)
    """The most calls at the same time."""
    calls_per_minute: int | None = Field(None, ge=1)
    """The most calls a minute. After a minute without any, all of them may come at once."""
    tokens_per_minute: int | None = Field(None, ge=1)
    """The most tokens a minute, of prompts and answers. They are counted after an answer, so a
    limit delays the requests that follow."""


class Rights(Part):
    """What a client may do."""

    models: tuple[str, ...] | None = None
    """The models that the client may use. Default: all."""
    wake: bool = False
    """Whether a request may start a model that is asleep."""
    feedback: bool = False
    """Whether questions, answers and ratings of this key may be kept."""
    limits: Limits = Limits()


class Key(Rights):
    """A key of a client, as its hash: `printf %s "$KEY" | sha256sum`."""

    name: str = Field(min_length=1, max_length=100)
    """The name in metrics and logs."""
    sha256: Annotated[str, form(r"[0-9a-f]{64}", "64 hexadecimal digits, 0 to 9 and a to f")]
    """The hash of the key in hexadecimal; never the key itself."""


class KeysFile(Part):
    """A file with keys alone."""

    keys: tuple[Key, ...]

    @model_validator(mode="after")
    def _keys_differ(self) -> Self:
        if found := list(same_keys(self.keys)):
            raise Problems(found)
        return self


def same_keys(keys: Sequence[Key]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield the address and the problem of each key whose name or hash an earlier key has."""
    for field in ("name", "sha256"):
        seen: dict[str, int] = {}
        for index, key in enumerate(keys):
            value = getattr(key, field)
            if value in seen:
                yield (
                    ("keys", index, field),
                    f"it is the same as in keys[{seen[value]}]. Each key needs its own.",
                )
            seen.setdefault(value, index)


def load_keys(path: Path) -> tuple[Key, ...]:
    """Return the keys in a file. Raises RecipeError with every problem in it."""
    errors: list[str] = []
    given = read(document_of(path, "the file"), str(path), errors, "a file of keys")
    secrets.refuse_written(given, errors)
    found = checked(given, KeysFile, errors)
    if errors or found is None:
        raise RecipeError("\n".join(dict.fromkeys(errors)))
    return found.keys
