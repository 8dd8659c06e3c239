"""What an error of S3 means: whether asking again may help, for how long, and what a person can do
about it."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

_ADDRESS = "store.endpoint_url in the recipe or AWS_ENDPOINT_URL_S3"
_PASSING = frozenset(
    (
        "BandwidthLimitExceeded",
        "ConditionalRequestConflict",
        "InternalError",
        "OperationAborted",
        "RequestLimitExceeded",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
    )
)
"""Codes for what passes, whatever their HTTP status: 400 and 409 are among them. Only an S3 says
them."""
_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 8.0
OF_FILES = 3
"""So often the patience with a file's transfer is renewed."""
CONDITIONAL = "Use an S3 with conditional writes (AWS, MinIO, Ceph, SeaweedFS 4)."


@dataclass(frozen=True, slots=True)
class Place:
    """Where a store was looked for, and where its keys were looked for."""

    endpoint_url: str | None
    region: str
    access_key_env: str
    secret_key_env: str

    def __str__(self) -> str:
        return self.endpoint_url or f"AWS S3 in {self.region}"


def can_heal(error: BaseException, reached: bool) -> bool:
    """Whether asking again may help. `reached`: the store has answered before, so it may come back."""
    from botocore import exceptions as boto

    if isinstance(
        error, boto.IncompleteReadError | boto.ResponseStreamingError
    ):  # an answer that broke off
        return True
    response = getattr(error, "response", None)
    if response is None:
        return reached and isinstance(
            error, boto.ConnectionError | boto.HTTPClientError | boto.CredentialRetrievalError
        )
    if response["Error"].get("Code") in _PASSING:
        return True
    return reached and response["ResponseMetadata"].get("HTTPStatusCode") in (
        429,
        500,
        502,
        503,
        504,
    )


class Patience:
    """How long one call is tried again: `patience_s` from its first failure on.

    A failure after longer work counts as a first one again, `renewals` times: of a large file that
    was nearly through.
    """

    def __init__(self, patience_s: float, renewals: int = 0) -> None:
        self._patience_s = patience_s
        self._renewals = renewals
        self._pause_s = _PAUSE_S
        self._begun = time.monotonic()
        self._failing_since: float | None = None

    def pause(self) -> bool:
        """After a failure: waits and gives True where the call should be tried again; False when it
        has been enough."""
        now = time.monotonic()
        if self._failing_since is None:
            self._failing_since = now
        elif now - self._begun > self._patience_s and self._renewals:
            self._failing_since, self._pause_s = now, _PAUSE_S
            self._renewals -= 1
        if now - self._failing_since >= self._patience_s:
            return False
        time.sleep(self._pause_s * random.uniform(0.5, 1))
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
        self._begun = time.monotonic()
        return True


def undeleted(errors: Sequence[Mapping[str, Any]]) -> ClientError:
    """What DeleteObjects says of single keys in its answer 200, as an error: of a key that cannot
    heal, if there is one."""
    from botocore.exceptions import ClientError

    response: Any = {"ResponseMetadata": {"HTTPStatusCode": 200}}
    return min(
        (ClientError({**response, "Error": dict(error)}, "DeleteObjects") for error in errors),
        key=lambda error: can_heal(error, reached=True),
    )


def unanswered(error: BaseException, place: Place) -> str:
    """Where no answer came from the store at all."""
    kind = type(error).__name__
    match kind:
        case "NoCredentialsError" | "PartialCredentialsError" | "CredentialRetrievalError":
            return f"there are no keys for {place}. Set {place.access_key_env} and {place.secret_key_env} in the environment."
        case "SSLError":
            return (
                f"the certificate of {place} is not trusted here ({error}). "
                f"Set AWS_CA_BUNDLE to the file of its authority, or correct {_ADDRESS}."
            )
        case (
            "ConnectTimeoutError"
            | "EndpointConnectionError"
            | "ConnectionClosedError"
            | "ReadTimeoutError"
            | "HTTPClientError"
        ):
            return f"cannot connect to {place} ({kind}). Start the store, or correct {_ADDRESS}."
        case "ResponseParserError":
            return f"{place} does not answer as an S3 does ({error}). Correct {_ADDRESS}."
    return (
        f"{error}. Correct {_ADDRESS}."
        if isinstance(error, ValueError)
        else f"{place}: {kind}: {error}"
    )


def refused(code: str, message: str, bucket: str, place: Place) -> str:
    """Where the store answered with an error code."""
    keys = f"${place.access_key_env} and ${place.secret_key_env}"
    match code:
        case "NoSuchBucket" | "InvalidBucketName":
            remedy = f"Make the bucket '{bucket}', or correct store.root in the recipe."
        case "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "InvalidSecurity" | "InvalidToken":
            remedy = f"The keys in {keys} are not those of this store: correct them."
        case "ExpiredToken" | "ExpiredTokenException" | "RequestTimeTooSkewed":
            remedy = f"Renew the keys in {keys}, and check this machine's clock."
        case "AccessDenied" | "403" | "Forbidden" | "AllAccessDisabled":
            remedy = (
                f"Check the keys in {keys}: they need the right to read, write, list and delete "
                f"in the bucket '{bucket}', "
                "which must exist."
            )
        case (
            "PermanentRedirect"
            | "301"
            | "AuthorizationHeaderMalformed"
            | "IllegalLocationConstraintException"
        ):
            remedy = f"The bucket '{bucket}' is in another region than {place.region}: set store.region or AWS_REGION."
        case "404" | "405":
            remedy = f"That does not look like an S3: correct {_ADDRESS}."
        case "NotImplemented" | "501":
            remedy = CONDITIONAL
        case _:
            remedy = "Try again; if it stays, look into the store's log."
    return f"{place} answered {code} {message}".strip().rstrip(".") + f". {remedy}"
