"""The errors of moaa: each says what was given, what is wrong and what to do.

MoaaError                        a user's mistake or an outside failure: shown without a traceback
├── RecipeError                  the recipe cannot be used
├── StoreError                   S3 cannot be reached, or refuses
├── ArtifactError                an artifact is torn, changed or missing
├── ClusterError                 Kubernetes cannot be reached, or refuses what was asked
├── EngineError                  a model is not served: did not start, died too often, refuses the key or the name
├── CallError                    one call to a model failed for good; its `reason` is counted
│   ├── CallRejected             cannot heal: the request itself is refused (context length, bad parameter)
│   └── CallFailed               could have healed, but did not within its retries
├── RowRejected                  a row leaves the data set, with its reason (too few proposals, a failed aggregator)
├── TooManyRejected              the share of rejected rows passed the limit
└── TrainError                   a training failed: NaN loss, empty data set, a dead rank
Anything else that is raised is a bug, and keeps its traceback.
"""


class MoaaError(Exception):
    """Base of all errors that a user can act on. The message is complete: no traceback is needed to
    understand it."""


class RecipeError(MoaaError):
    """The recipe cannot be used; the message names file, line, field and remedy."""


class StoreError(MoaaError):
    """S3 cannot be reached, or refuses what was asked."""


class ArtifactError(MoaaError):
    """An artifact is torn, changed or missing; the message names the file."""


class ClusterError(MoaaError):
    """Kubernetes cannot be reached, or refuses what was asked; where a right is missing, the
    message names it."""


class EngineError(MoaaError):
    """A model is not served, and no retry of a call would change that."""


class CallError(MoaaError):
    """One call to a model failed for good. `reason` is a short stable word for counting; the
    message holds the detail."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class CallRejected(CallError):
    """The request itself is refused (HTTP 400: context length, bad parameter): asking again changes
    nothing."""


class CallFailed(CallError):
    """Time-outs, 429, 5xx or broken connections went on through all retries."""


class RowRejected(MoaaError):
    """A row leaves the data set. `reason` is a short stable word for counting; `detail` says more."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class TooManyRejected(MoaaError):
    """More rows were rejected than `limits.max_rejected_share` allows; the message holds the table
    of reasons."""


class TrainError(MoaaError):
    """A training failed; the message holds the reason and the last lines of its log."""
