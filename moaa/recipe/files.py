"""The files whose text a recipe may use: those below its own folder, and the recipes that come with
moaa.

A recipe may come from somebody else. It must not put `~/.ssh` into a system message. Sources of
prompts and models are not confined: data may be anywhere.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import moaa
from moaa.errors import RecipeError, without_stop

MAX_BYTES: Final = 64 * 1024
"""A Kubeflow parameter of 140 KB fails with a misleading error; a task has about 7 copies of it."""
LARGEST_BYTES: Final = 1 << 20
"""No document, and no file that a recipe names, is read if it is larger."""
ANYWHERE_ENV: Final = "MOAA_ALLOW_FILES"
"""If set to 1 (or with `--allow-files`), a recipe may use any file of this machine."""
RECIPES: Final = Path(moaa.__file__).parent / "pipelines" / "recipes"
"""The recipes that come with moaa."""


def shipped() -> list[str]:
    """Return the names of the recipes that come with moaa."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def by_name(text: str, folder: Path) -> Path:
    """Return the file below `folder`, or the recipe of this name that comes with moaa."""
    if not text.strip():
        raise RecipeError("the path of the recipe is empty. Give a file, or a name: demo")
    path = folder / text
    ours = RECIPES / f"{text}.yaml"
    return ours if not path.exists() and Path(text).name == text and ours.exists() else path


def confined_text_of(path: Path, root: Path) -> str:
    """Return the text of a file that a recipe names. Raises RecipeError, without the path, if it is
    not one of ours.

    `root`: the folder of the recipe that was given first.
    """
    confine(path, root)
    # Windows' byte order mark is no part of the text.
    return text_of(path).removeprefix("\ufeff")


def confine(path: Path, root: Path | None) -> None:
    """Raise RecipeError, without the path, if a recipe may not name this file.

    `root`: the folder of the recipe that was given first; None for one that is given as text. Links
    are followed before they are compared with it.
    """
    try:
        whole = path.resolve(strict=True)
    except (OSError, ValueError, RuntimeError) as e:
        raise RecipeError(_why_not(e)) from None
    if os.environ.get(ANYWHERE_ENV) == "1":
        return
    if root is None:
        raise RecipeError("a recipe given as text has no folder. Write the text itself")
    if not any(whole.is_relative_to(folder.resolve()) for folder in (root, RECIPES)):
        raise RecipeError(
            f"it is outside of the recipe's folder ({root}). Copy it there, or allow such files "
            "with --allow-files if you trust the recipe"
        )


def text_of(path: Path) -> str:
    """Return a file's text. Raises RecipeError, without the path, if it is none."""
    try:
        if not path.is_file():
            path.stat()
            raise RecipeError("it is not a file. Check the path")
        if (size := path.stat().st_size) > LARGEST_BYTES:
            raise RecipeError(f"it has {size:,} bytes; {LARGEST_BYTES:,} is the limit")
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError, RuntimeError) as e:
        raise RecipeError(_why_not(e)) from None


def document_of(path: Path, what: str) -> str:
    """Return the text of a document: `what` says which, in the error. Raises RecipeError with the
    path if it cannot be read."""
    try:
        return text_of(path)
    except RecipeError as error:
        raise RecipeError(f"{path}: {what} cannot be read: {without_stop(error)}.") from None


def _why_not(error: Exception) -> str:
    """Return why a file cannot be read as text, and what to do."""
    if isinstance(error, UnicodeDecodeError):
        return "it is not text in UTF-8. Save it as UTF-8"
    # A loop of links is a RuntimeError, a NUL in the path a ValueError.
    return f"{getattr(error, 'strerror', None) or error}. Check the path"
