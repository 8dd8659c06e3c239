"""What a person can do about an error of S3: from boto3's exceptions to sentences."""

from __future__ import annotations

from dataclasses import dataclass

_ADDRESS = "store.endpoint_url in the recipe or AWS_ENDPOINT_URL_S3"
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
    from botocore.exceptions import ConnectionError, HTTPClientError, IncompleteReadError, ResponseStreamingError

    if isinstance(error, IncompleteReadError | ResponseStreamingError):  # an answer that broke off
        return True
    response = getattr(error, "response", None)
    if response is None:
        return reached and isinstance(error, ConnectionError | HTTPClientError)
    if response["Error"].get("Code") == "ConditionalRequestConflict":  # neither won nor lost: another write is under way
        return True
    return reached and response["ResponseMetadata"].get("HTTPStatusCode") in (429, 500, 502, 503, 504)


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
        case "ConnectTimeoutError" | "EndpointConnectionError" | "ConnectionClosedError" | "ReadTimeoutError" | "HTTPClientError":
            return f"cannot connect to {place} ({kind}). Start the store, or correct {_ADDRESS}."
        case "ResponseParserError":
            return f"{place} does not answer as an S3 does ({error}). Correct {_ADDRESS}."
    return f"{error}. Correct {_ADDRESS}." if isinstance(error, ValueError) else f"{place}: {kind}: {error}"


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
                f"Check the keys in {keys}: they need the right to read, write, list and delete in the bucket '{bucket}', "
                "which must exist."
            )
        case "PermanentRedirect" | "301" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException":
            remedy = f"The bucket '{bucket}' is in another region than {place.region}: set store.region or AWS_REGION."
        case "404" | "405":
            remedy = f"That does not look like an S3: correct {_ADDRESS}."
        case "NotImplemented" | "501":
            remedy = CONDITIONAL
        case _:
            remedy = "Try again; if it stays, look into the store's log."
    return f"{place} answered {code} {message}".strip().rstrip(".") + f". {remedy}"
