"""Addresses: of objects, s3://BUCKET/KEY, and of the S3 that the environment names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from moaa.errors import StoreError
from moaa.recipe.urls import problem_of

_ENDPOINTS: Final = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")


class Missing(StoreError):
    """There is no object at this address."""


def endpoint_of(environ: Mapping[str, str]) -> str | None:
    """Return the address of the S3 in the environment; None if it names none.

    Raises StoreError, without the address, if it holds a password or is no address: messages and
    reports show it.
    """
    for name in _ENDPOINTS:
        if url := environ.get(name):
            if problem := problem_of(url):
                raise StoreError(f"the environment variable {name} {problem}.")
            return url
    return None


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
