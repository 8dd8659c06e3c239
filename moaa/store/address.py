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
