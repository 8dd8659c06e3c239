"""Errors that nobody expected while a benchmark is read, judged or scored: they fail it alone."""

from __future__ import annotations

from moaa.errors import MoaaError, readable, without_stop
from moaa.progress.messages import log


def unexpected(error: Exception, where: str, *, said: bool = False) -> str:
    """Return the reason for the benchmark's row; the traceback goes to the log,
    unless a reason was `said` before.

    Raises the error again if it is not about the benchmark: a full disk, an engine, the store.
    """
    if isinstance(readable(error), MoaaError):
        raise error
    if not said:
        log.error(f"{where}: an unexpected error", exc_info=error)
    return (
        f"unexpected {type(error).__name__}: {without_stop(error)}. Its traceback is in the log of "
        "the stage."
    )
