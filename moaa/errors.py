"""The errors of moaa: each says what was given, what is wrong and what to do.

MoaaError                   a user's mistake or an outside failure: shown without a traceback
├── RecipeError             the recipe cannot be used
├── StoreError              S3 cannot be reached, or refuses
│   └── StoreAway           S3 does not answer, or its keys have expired: it may pass
├── HubAway                 the Hugging Face hub does not answer: it may pass
├── DiskFull                a disk of this machine is full
├── ArtifactError           an artifact is damaged, changed or missing
├── ClusterError            Kubernetes cannot be reached, or refuses what was asked
├── EngineError             a model is not served: did not start, died too often, refuses the key
│   └── EngineAway          an endpoint no longer answers: it may pass
├── CallError               one call to a model failed for good; its `reason` is counted
│   ├── CallRejected        the request itself is refused (context length, bad parameter)
│   └── CallFailed          a failure that may pass did not pass in any retry
├── RowRejected             a row is left out of the data set, with its reason (too few proposals)
├── TooManyRejected         the share of rejected rows is above the limit
└── TrainError              a training failed: NaN loss, empty data set, a dead rank
Anything else that is raised is a bug, and keeps its traceback.
"""

import errno

OUTSIDE = 75
"""Exit status of a process that stopped because of an outside fault: EX_TEMPFAIL of sysexits.h."""


class MoaaError(Exception):
    """Base class of all errors that a user can correct.
    The message is complete without a traceback."""

    outside = False
    """Whether the cause is outside of the run and may pass: the same run may succeed later."""

    @property
    def exit_status(self) -> int:
        """The exit status of a process that stops with this error:
        `OUTSIDE` if a retry may succeed."""
        return OUTSIDE if self.outside else 1


class DiskFull(MoaaError):
    """A disk of this machine is full."""


def readable(error: BaseException) -> BaseException:
    """Return a full disk, which any write may meet, as an error that a user can correct."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" ({error.filename})" if error.filename else ""
        return DiskFull(
            f"a disk of this machine is full{where}: {error.strerror}. Free some space, or set "
            "TMPDIR, MOAA_CACHE or HF_HOME to a larger disk, and run again: what was answered and "
            "committed is kept."
        )
    return error


def without_stop(error: BaseException) -> str:
    """Return an error's text without its final full stop, for the middle of a sentence."""
    return str(error).rstrip(". ")


class RecipeError(MoaaError):
    """The recipe cannot be used. The message has file, line, field and remedy."""


class StoreError(MoaaError):
    """S3 cannot be reached, or refuses what was asked."""


class StoreAway(StoreError):
    """S3 did not answer for longer than the patience, or its keys expired. Nothing is lost."""

    outside = True


class HubAway(MoaaError):
    """The Hugging Face hub does not answer."""

    outside = True


class ArtifactError(MoaaError):
    """An artifact is damaged, changed or missing. The message names the file."""


class ClusterError(MoaaError):
    """Kubernetes cannot be reached, or refuses what was asked. A missing right is named."""


class EngineError(MoaaError):
    """A model is not served, and no retry of a call would help."""


class EngineAway(EngineError):
    """A server that moaa does not start has not answered for too long, or asks to wait."""

    outside = True


class CallError(MoaaError):
    """One call to a model failed for good. `reason` is a short fixed word for counting."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class CallRejected(CallError):
    """The request itself is refused (HTTP 400: context length, bad parameter): no retry helps."""


class CallFailed(CallError):
    """Time-outs, 429, 5xx or broken connections went on through all retries."""


class RowRejected(MoaaError):
    """A row is left out of the data set. `reason` is a short fixed word for counting."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class TooManyRejected(MoaaError):
    """More rows were rejected than `runtime.max_rejected_share` allows."""


class TrainError(MoaaError):
    """A training failed. The message has the reason and the last lines of its log."""
