"""Addresses of objects: s3://BUCKET/KEY."""

from __future__ import annotations

from moaa.errors import StoreError


class Missing(StoreError):
    """There is no object at this address."""


def split(uri: str) -> tuple[str, str]:
    """Return bucket and key of an s3:// address; the key of a bucket alone is empty."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not uri.startswith("s3://") or not bucket:
        raise StoreError(f"{uri!r} is not an S3 address. Write s3://BUCKET/PREFIX.")
    return bucket, key


def folder(uri: str) -> tuple[str, str]:
    """Return bucket and key prefix of a folder: the prefix ends with a slash, or is empty."""
    bucket, key = split(uri)
    return bucket, f"{key.rstrip('/')}/" if key.strip("/") else ""
