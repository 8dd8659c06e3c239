"""The files that a recipe may use: those below its own folder, and the recipes that come with moaa.

A recipe may come from somebody else. It must not put `~/.ssh` into a system message.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import moaa
from moaa.errors import RecipeError

MAX_BYTES: Final = 64 * 1024
"""A Kubeflow parameter of 140 KB fails with a misleading error; a task has about 7 copies of it."""
ANYWHERE_ENV: Final = "MOAA_ALLOW_FILES"
"""If set to 1 (or with `--allow-files`), a recipe may use any file of this machine."""
RECIPES: Final = Path(moaa.__file__).parent / "pipelines" / "recipes"
"""The recipes that come with moaa."""


def shipped() -> list[str]:
    """Return the names of the recipes that come with moaa."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def by_name(text: str, folder: Path) -> Path:
    """Return the file below `folder`, or the recipe of this name that comes with moaa."""
    path = folder / text
    ours = RECIPES / f"{text}.yaml"
    return ours if not path.exists() and Path(text).name == text and ours.exists() else path


def text_of(path: Path, root: Path) -> str:
    """Return a file's text. Raises RecipeError, without the path, if the file is not allowed.

    `root`: the folder of the recipe that was given first. Links are followed before the comparison.
    """
    try:
        whole = path.resolve(strict=True)
        if not (_allowed(whole, root) or os.environ.get(ANYWHERE_ENV) == "1"):
            raise RecipeError(
                f"it is outside of the recipe's folder ({root}). Copy it there, or allow such "
                "files with --allow-files if you trust the recipe"
            )
        if not whole.is_file():
            raise RecipeError("it is not a file")
        if whole.stat().st_size > 16 * MAX_BYTES:
            raise RecipeError(f"it has {whole.stat().st_size:,} bytes; {MAX_BYTES:,} is the limit")
        return whole.read_text(encoding="utf-8-sig")  # without Windows' byte order mark
    except (OSError, UnicodeDecodeError, ValueError, RuntimeError) as e:
        # A loop of links is a RuntimeError, a NUL in the path a ValueError.
        raise RecipeError(str(getattr(e, "strerror", None) or e)) from None


def _allowed(whole: Path, root: Path) -> bool:
    return any(whole.is_relative_to(folder.resolve()) for folder in (root, RECIPES))
