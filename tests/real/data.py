"""Get the public data of tests/real into a folder: python -m tests.real.data FOLDER

Then: MOAA_REAL_DATA=FOLDER python -m pytest tests/real

Each file comes from a public repository at a commit, by git, and its sha256 is checked. Only what
is named here is fetched. AlpacaEval's data are CC BY-NC: they stay in that folder.
AlpacaEval's difficulties are a file of its data set on the hub (`df_gamed.csv`); if the hub cannot
be reached, put the file there yourself, or the tests that need it fail.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Final

HUB_FILE: Final = (
    "tatsu-lab/alpaca_eval",
    "df_gamed.csv",
    "2edc6fad8be6b14ea7230aabfd08188da6b8b814",
)
HUB_SHA256: Final = "97aeec3f1c7de6dee6fd31fe66f1702623f4614c3efe1c6fc5f4927cd5fd674d"


@dataclass(frozen=True, slots=True)
class File:
    """A file of a public repository at a commit, and its name in the folder."""

    repository: str
    commit: str
    path: str
    name: str
    sha256: str


def files() -> Iterator[File]:
    """Yield every file, those of one repository together."""
    for line in (Path(__file__).parent / "data.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            yield File(*line.split("\t"))


def fetch(folder: Path) -> None:
    """Get the files that are not in `folder` yet. Exits if one has another content."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [file for file in files() if not (folder / file.name).exists()]
    for (repository, commit), wanted in groupby(missing, lambda f: (f.repository, f.commit)):
        print(f"{repository}@{commit[:12]}")
        with tempfile.TemporaryDirectory() as clone:
            address = f"https://github.com/{repository}.git"
            git(clone, "init", "-q", "--bare", ".")
            git(clone, "remote", "add", "origin", address)
            git(clone, "config", "remote.origin.promisor", "true")
            git(clone, "config", "remote.origin.partialclonefilter", "blob:none")
            git(clone, "fetch", "-q", "--depth=1", "--filter=blob:none", "origin", commit)
            for file in wanted:
                content = git(clone, "show", f"{commit}:{file.path}")
                check(file.name, content, file.sha256)
                (folder / file.name).parent.mkdir(parents=True, exist_ok=True)
                (folder / file.name).write_bytes(content)
                print(f"  {file.name}")


def fetch_from_hub(folder: Path) -> None:
    """Get AlpacaEval's difficulties, if the hub answers; say so if not."""
    repository, path, revision = HUB_FILE
    target = folder / path
    if target.exists():
        return
    from huggingface_hub import hf_hub_download

    try:
        found = hf_hub_download(repository, path, repo_type="dataset", revision=revision)
    except Exception as error:  # a dozen kinds: offline, no connection, no access
        print(f"  NOT {path}: {str(error).splitlines()[0]}", file=sys.stderr)
        return
    content = Path(found).read_bytes()
    check(path, content, HUB_SHA256)
    target.write_bytes(content)


def check(name: str, content: bytes, sha256: str) -> None:
    """Exit if this is not the content that the tests were written for."""
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        sys.exit(f"{name} has sha256 {found}, expected {sha256}: not the published content")


def git(folder: str, *arguments: str) -> bytes:
    """Run git; return what it prints. Exits, with the reason, if it fails: there is no network."""
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
    try:
        return subprocess.run(
            ["git", "-C", folder, *arguments], check=True, capture_output=True, env=environment
        ).stdout
    except subprocess.CalledProcessError as error:
        why = error.stderr.decode(errors="replace").strip()
        sys.exit(
            f"the public data cannot be fetched: git {' '.join(arguments[:2])}: {why}\n"
            "This needs a network that reaches github.com. Run the same command again with one, or "
            "name a folder that has the data: make test-real REAL_DATA=FOLDER"
        )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    fetch(Path(sys.argv[1]))
    fetch_from_hub(Path(sys.argv[1]))
