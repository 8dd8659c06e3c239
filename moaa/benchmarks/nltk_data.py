"""NLTK's data for splitting sentences and tagging words: from a package, never downloaded later."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from moaa.errors import RecipeError
from moaa.packages import install_command
from moaa.weights.local import cache, package_file

FOLDER: Final = "llama_index/core/_static/nltk_cache"
"""The package llama-index-core contains it."""
SENTENCES: Final = "tokenizers/punkt_tab/english"
STOP_WORDS: Final = "corpora/stopwords/english"
TAGGER: Final = "taggers/averaged_perceptron_tagger_eng"


def has(resource: str) -> bool:
    """Return whether NLTK finds a resource: below NLTK_DATA, or in the package."""
    import nltk

    folder = cache() / "nltk"
    if str(folder) not in nltk.data.path:
        nltk.data.path.append(str(folder))
    for _ in range(2):
        try:
            nltk.data.find(resource)
        except LookupError:
            _copy(resource, folder)
        else:
            return True
    return False


def _copy(resource: str, folder: Path) -> None:
    """Copy a resource out of the package, if it is there. NLTK refuses files with several hard
    links, which some installers make."""
    try:
        source = package_file(f"{FOLDER}/{resource}")
    except RecipeError:
        return
    target = folder / resource
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        made = Path(place) / source.name
        if source.is_dir():
            shutil.copytree(source, made, copy_function=shutil.copyfile)
        else:
            shutil.copyfile(source, made)
        # Another process may have put it there.
        with suppress(OSError):
            made.rename(target)


def need(benchmark: str, *resources: str) -> None:
    """Check that NLTK has these resources. Raises RecipeError, with the remedy."""
    if missing := [each for each in resources if not has(each)]:
        names = " ".join(each.split("/")[1] for each in missing)
        raise RecipeError(
            f"{benchmark} needs NLTK's {names}: "
            f"`{install_command('--no-deps', 'llama-index-core==0.14.25')}`, which contains it, or "
            f"`{sys.executable} -m nltk.downloader {names}`, and set NLTK_DATA."
        )


@contextmanager
def without_downloads() -> Iterator[None]:
    """Let libraries be imported that would download what NLTK lacks; moaa uses the data of `has`.

    A pod without internet access would wait minutes for each download.
    """
    import nltk

    download = nltk.download
    nltk.download = lambda *_, **__: False
    try:
        yield
    finally:
        nltk.download = download
