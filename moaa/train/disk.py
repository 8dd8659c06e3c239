"""Names the folder of a full disk, and what to do."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from moaa.errors import DiskFull, MoaaError, without_stop

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_SAID: Final = ("No space left on device", "Disk quota exceeded", "file write failed")
"""What libraries that are not written in Python report for a full disk."""


@contextmanager
def named(*folders: Path) -> Iterator[None]:
    """Turn the error of a full disk into one that names these folders with their free space."""
    try:
        yield
    except MoaaError:
        raise  # it already says what to do
    except Exception as error:
        if not is_full(error):
            raise
        free = ", ".join(f"{folder} has {_free_gib(folder):.1f} GiB free" for folder in folders)
        raise DiskFull(
            f"The disk is full ({without_stop(error)}): {free}. Free some space, or set TMPDIR "
            "and MOAA_CACHE to folders with more room; on Kubernetes raise the size of the pod's "
            "/tmp. Run again: the training continues from its newest checkpoint."
        ) from error


def is_full(error: BaseException) -> bool:
    """Return whether this error, or one that caused it, is that of a full disk."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, OSError) and found.errno in _FULL:
            return True
        if any(text in str(found) for text in _SAID):
            return True
        found = found.__cause__ or found.__context__
    return False


def _free_gib(folder: Path) -> float:
    existing = next(each for each in (folder, *folder.parents) if each.exists())
    return shutil.disk_usage(existing).free / 2**30
