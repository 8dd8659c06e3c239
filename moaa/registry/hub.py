"""Published versions and their data in repositories of the Hugging Face hub.

A version is a commit with a tag of its name; the newest is `main`. A repository with the tag has
the version.
"""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from moaa.artifacts import Artifact
from moaa.errors import ArtifactError, MoaaError, RecipeError
from moaa.packages import install_command
from moaa.progress.messages import log
from moaa.recipe.publish import Hub
from moaa.rest import key_of, without_key
from moaa.store.bytes import sha256_of

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, HfApi

REPLACED: Final = (".safetensors", ".safetensors.index.json", ".parquet")
"""Files of an earlier version that leave `main` if this one has none of that name."""
LATER: Final = (408, 425, 429)
"""Statuses of refusals of the hub that may pass."""


def upload(
    given: Hub, repository: str, kind: Literal["model", "dataset"], version: Artifact
) -> str:
    """Put a version's files into a repository, with a tag. Return in a sentence why it could not.

    Empty if it worked, or if the version was already there. Raises RecipeError if the hub refuses:
    that does not pass by itself.
    """
    try:
        _upload(given, repository, kind, version)
    except MoaaError:
        raise
    except Exception as error:  # errors of the library and of two HTTP clients
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        first = _first(error)  # the library only says which file it was
        why = without_key(" ".join(f"{type(first).__name__}: {first}".split()), given.key_env)
        status = _status(first)
        if 400 <= status < 500 and status not in LATER:
            raise RecipeError(
                f"the hub refuses the {kind} {repository} ({status}): {why[:500]}. {version.uri} "
                f"is complete and stays. Let the token in {given.key_env} write to {repository}, "
                "or correct publish.hub, and run again: only this is repeated."
            ) from None
        log.warning(
            f"{version.uri} is not on the hub as {repository}: {why[:500]}. The version on S3 is "
            "not affected; the next run of the recipe tries again."
        )
        return why[:500]
    return ""


def _upload(
    given: Hub, repository: str, kind: Literal["model", "dataset"], version: Artifact
) -> None:
    try:
        from huggingface_hub import CommitOperationDelete, HfApi, constants
        from huggingface_hub.utils.tqdm import disable_progress_bars
    except ImportError:
        raise RecipeError(
            f"publish.hub needs the package huggingface-hub: {install_command('moaa[hub]')}"
        ) from None
    disable_progress_bars()  # a stage has its own
    tag = version.manifest.fingerprint
    endpoint = os.environ.get("HF_ENDPOINT") or constants.ENDPOINT
    api = HfApi(endpoint=endpoint, token=key_of(given.key_env), library_name="moaa")
    api.create_repo(repository, repo_type=kind, private=given.private, exist_ok=True)
    if tag in {each.name for each in api.list_repo_refs(repository, repo_type=kind).tags}:
        return
    there = api.list_repo_files(repository, repo_type=kind)
    new = {file.name for file in version.manifest.files}
    gone = [name for name in there if name.endswith(REPLACED) and name not in new]
    with tempfile.TemporaryDirectory(prefix="moaa-hub-") as folder:
        added = [
            _sent(api, repository, kind, version, name, Path(folder) / str(number))
            for number, name in enumerate(sorted(new))
        ]
        commit = api.create_commit(
            repository,
            [*added, *(CommitOperationDelete(name) for name in gone)],
            commit_message=f"Version {tag}",
            repo_type=kind,
        )
    api.create_tag(repository, tag=tag, revision=commit.oid, repo_type=kind, exist_ok=True)


def _sent(
    api: HfApi, repository: str, kind: str, version: Artifact, name: str, path: Path
) -> CommitOperationAdd:
    """Return a file of the commit. A large one is uploaded before this returns, and removed from
    this disk: a model then needs the space of one file."""
    from huggingface_hub import CommitOperationAdd

    file = next(each for each in version.manifest.files if each.name == name)
    version.store.download(f"{version.uri}/{file.path}", path)
    if sha256_of(path) != file.sha256:
        raise ArtifactError(
            f"{version.uri}/{file.path} was changed: it is not what was published. Restore it."
        )
    operation = CommitOperationAdd(name, path)
    api.preupload_lfs_files(repository, [operation], repo_type=kind)
    if operation.path_or_fileobj == b"":  # the library's sign that it has sent it
        path.unlink()
    return operation


def _first(error: BaseException) -> BaseException:
    """Return the first cause of an error."""
    while error.__cause__ is not None and not _status(error):
        error = error.__cause__
    return error


def _status(error: BaseException) -> int:
    """Return the HTTP status in an error; 0 if there is none."""
    response: Any = getattr(error, "response", None)
    return int(getattr(response, "status_code", 0))
