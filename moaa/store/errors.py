"""What an S3 error means: whether a retry may help, and what a person can do about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from moaa.errors import without_stop

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

_ADDRESS = "store.endpoint_url in the recipe or AWS_ENDPOINT_URL_S3"
_TEMPORARY = frozenset(
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
"""Error codes of temporary failures with any HTTP status: some come with 400 or 409."""
_EXPIRED = ("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired")
_TEMPORARY_STATUS = (429, 500, 502, 503, 504)
NO_BATCH_DELETE = (
    "MissingContentMD5",
    "MethodNotAllowed",
    "NotImplemented",
    "InvalidDigest",
    "405",
    "501",
)
"""Answers to DeleteObjects from stores that delete one object at a time."""
FILE_RETRY_WINDOWS = 3
"""How many times the retry window of a file transfer may start again."""
CONDITIONAL = "Use an S3 with conditional writes (AWS, MinIO, Ceph, SeaweedFS 4)."


@dataclass(frozen=True, slots=True)
class KeyNames:
    """The names of the environment variables with a store's keys."""

    access: str = "AWS_ACCESS_KEY_ID"
    secret: str = "AWS_SECRET_ACCESS_KEY"
    token: str | None = None


@dataclass(frozen=True, slots=True)
class StoreLocation:
    """The address of a store, and the names of the variables with its keys."""

    endpoint_url: str | None
    region: str
    keys: KeyNames
    expected_owner: str | None = None

    def __str__(self) -> str:
        return self.endpoint_url or f"AWS S3 in {self.region}"


def is_temporary(error: BaseException, reached: bool) -> bool:
    """Return whether a retry may help. `reached`: the store has answered before."""
    from botocore import exceptions as boto

    # An answer that was broken off.
    if isinstance(error, boto.IncompleteReadError | boto.ResponseStreamingError):
        return True
    response = getattr(error, "response", None)
    if response is None:
        return reached and isinstance(
            error, boto.ConnectionError | boto.HTTPClientError | boto.CredentialRetrievalError
        )
    if response["Error"].get("Code") in _TEMPORARY:
        return True
    return reached and response["ResponseMetadata"].get("HTTPStatusCode") in _TEMPORARY_STATUS


def has_expired(error: BaseException) -> bool:
    """Return whether the keys were right but have expired."""
    response = getattr(error, "response", None) or {}
    return response.get("Error", {}).get("Code") in _EXPIRED


def delete_error(errors: Sequence[Mapping[str, Any]]) -> ClientError:
    """Return one of the failures that DeleteObjects lists in an answer with status 200.

    A permanent failure comes first: if there is one, a retry does not help.
    """
    from botocore.exceptions import ClientError

    response: Any = {"ResponseMetadata": {"HTTPStatusCode": 200}}
    return min(
        (ClientError({**response, "Error": dict(error)}, "DeleteObjects") for error in errors),
        key=lambda error: is_temporary(error, reached=True),
    )


def explain_no_answer(error: BaseException, place: StoreLocation) -> str:
    """Return what is wrong and what to do if the store did not answer."""
    kind = type(error).__name__
    match kind:
        case "NoCredentialsError" | "PartialCredentialsError" | "CredentialRetrievalError":
            return (
                f"there are no keys for {place}. "
                f"Set {place.keys.access} and {place.keys.secret} in the environment."
            )
        case "SSLError":
            return (
                f"the certificate of {place} is not trusted here ({without_stop(error)}). "
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
            return (
                f"{place} does not answer as an S3 does ({without_stop(error)}). Correct "
                f"{_ADDRESS}."
            )
    if isinstance(error, ValueError):
        return f"{without_stop(error)}. Correct {_ADDRESS}."
    return f"{place}: {kind}: {error}"


def explain_refusal(code: str, message: str, bucket: str, place: StoreLocation) -> str:
    """Return what is wrong and what to do if the store answered with an error code."""
    remedy = _remedy(code, bucket, place)
    return f"{place} answered {code} {message}".strip().rstrip(".") + f". {remedy}"


def _remedy(code: str, bucket: str, place: StoreLocation) -> str:
    keys = f"${place.keys.access} and ${place.keys.secret}"
    match code:
        case "NoSuchBucket" | "InvalidBucketName":
            return f"Make the bucket '{bucket}', or correct store.root in the recipe."
        case "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "InvalidSecurity" | "InvalidToken":
            return f"The keys in {keys} are not those of this store: correct them."
        case "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" | "RequestExpired":
            return f"Renew the keys in {keys} and run again: nothing that was computed is lost."
        case "RequestTimeTooSkewed":
            return "Set this machine's clock."
        case "AccessDenied" | "403" | "Forbidden" | "AllAccessDisabled":
            return (
                f"Check the keys in {keys}: they need the right to read, write, list and delete "
                f"in the bucket '{bucket}', which must exist"
                + (
                    f" and belong to the account {place.expected_owner} (store.expected_owner)."
                    if place.expected_owner
                    else "."
                )
            )
        case (
            "PermanentRedirect"
            | "301"
            | "AuthorizationHeaderMalformed"
            | "IllegalLocationConstraintException"
        ):
            return (
                f"The bucket '{bucket}' is in another region than {place.region}: "
                "set store.region or AWS_REGION."
            )
        case "404" | "405":
            return f"That does not look like an S3: correct {_ADDRESS}."
        case "NotImplemented" | "501":
            return CONDITIONAL
    return "Try again; if the error stays, look at the store's log."
