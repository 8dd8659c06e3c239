"""The errors of moaa: each says what was given, what is wrong and what to do.

MoaaError                   a user's mistake or an outside failure: shown without a traceback
├── RecipeError             the recipe cannot be used
├── StoreError              S3 cannot be reached, or refuses
│   └── StoreAway           S3 does not answer, or has ended the keys: it may pass
├── HubAway                 the Hugging Face hub does not answer: it may pass
├── DiskFull                a disk of this machine is full
├── ArtifactError           an artifact is damaged, changed or missing
├── ClusterError            Kubernetes cannot be reached, or refuses what was asked
├── EngineError             a model is not served: did not start, died too often, refuses the key
│   └── EngineAway          an endpoint does not answer any more: it may pass
├── CallError               one call to a model failed for good; its `reason` is counted
│   ├── CallRejected        the request itself is refused (context length, bad parameter)
│   └── CallFailed          a failure that may pass went on through all retries
├── RowRejected             a row leaves the data set, with its reason (too few proposals)
├── TooManyRejected         the share of rejected rows passed the limit
└── TrainError              a training failed: NaN loss, empty data set, a dead rank
Anything else that is raised is a bug, and keeps its traceback.
"""

import errno

OUTSIDE = 75
"""Exit status of a process that an outside fault ended: EX_TEMPFAIL of sysexits.h."""


class MoaaError(Exception):
    """Base of all errors that a user can act on. The message is complete without a traceback."""

    outside = False
    """Whether the fault is outside of the run and may pass: the same run may succeed later."""

    @property
    def exit_status(self) -> int:
        """Status of the process that this error ends: `OUTSIDE` if another attempt may succeed."""
        return OUTSIDE if self.outside else 1


class DiskFull(MoaaError):
    """A disk of this machine is full."""


def readable(error: BaseException) -> BaseException:
    """Return a full disk, which any write may meet, as an error that a user can act on."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" ({error.filename})" if error.filename else ""
        return DiskFull(
            f"a disk of this machine is full{where}: {error.strerror}. Free some space, or set "
            "TMPDIR, MOAA_CACHE or HF_HOME to a larger disk, and run again: what was answered and "
            "committed is kept."
        )
    return error


class RecipeError(MoaaError):
    """The recipe cannot be used; the message names file, line, field and remedy."""


class StoreError(MoaaError):
    """S3 cannot be reached, or refuses what was asked."""


class StoreAway(StoreError):
    """S3 did not answer for longer than the patience, or its keys ran out. Nothing is lost."""

    outside = True


class HubAway(MoaaError):
    """The Hugging Face hub does not answer."""

    outside = True


class ArtifactError(MoaaError):
    """An artifact is damaged, changed or missing; the message names the file."""


class ClusterError(MoaaError):
    """Kubernetes cannot be reached, or refuses what was asked; a missing right is named."""


class EngineError(MoaaError):
    """A model is not served, and no retry of a call would change that."""


class EngineAway(EngineError):
    """A server that somebody else keeps up has not answered for too long, or asks to wait."""

    outside = True


class CallError(MoaaError):
    """One call to a model failed for good. `reason` is a short stable word for counting."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class CallRejected(CallError):
    """The request itself is refused (HTTP 400: context length, bad parameter): no retry helps."""


class CallFailed(CallError):
    """Time-outs, 429, 5xx or broken connections continued through all retries."""


class RowRejected(MoaaError):
    """A row leaves the data set. `reason` is a short stable word for counting."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class TooManyRejected(MoaaError):
    """More rows were rejected than `runtime.max_rejected_share` allows."""


class TrainError(MoaaError):
    """A training failed; the message holds the reason and the last lines of its log."""
