"""Writes that happen only if the object has not changed since the writer read it."""

from __future__ import annotations

from typing import Any

from moaa.store.address import Missing, split
from moaa.store.client import Client


def put(client: Client, uri: str, data: bytes, **condition: str) -> bool:
    """Write an object under a condition of S3; return whether the condition held.

    `condition`: `IfNoneMatch="*"` (there is no object), or `IfMatch=` and the ETag that it must
    have.
    """
    from botocore.exceptions import ClientError

    bucket, key = split(uri)
    sent = 0

    def send(s3: Any) -> bool:
        nonlocal sent
        sent += 1
        try:
            s3.put_object(Bucket=bucket, Key=key, Body=data, **condition)
            return True
        except ClientError as error:
            if error.response["Error"].get("Code") not in ("PreconditionFailed", "412"):
                raise
            # After a lost answer the request is sent again, and may find its own object.
            resent = sent > 1 or error.response["ResponseMetadata"].get("RetryAttempts")
            return bool(resent) and _read(client, uri)[0] == data

    return client.do(uri, send)


def replace(client: Client, uri: str, old: bytes, new: bytes) -> bool:
    """Write an object if its content is still `old`; return whether it was. Raises `Missing`."""
    content, etag = _read(client, uri)
    if content != old:
        return False
    try:
        return put(client, uri, new, IfMatch=etag)
    except Missing:  # deleted after it was read
        return False


def _read(client: Client, uri: str) -> tuple[bytes, str]:
    """Return the object's content and its ETag."""
    bucket, key = split(uri)

    def get(s3: Any) -> tuple[bytes, str]:
        found = s3.get_object(Bucket=bucket, Key=key)
        return found["Body"].read(), found["ETag"]

    return client.do(uri, get)
