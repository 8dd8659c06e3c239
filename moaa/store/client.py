"""How boto3's client for a store is made: its settings, its keys, its transfers of files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from moaa.errors import StoreError
from moaa.store.errors import Place

_USUAL_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
_PART = 16 << 20
_TRANSFERS = 8


def connect(place: Place, environ: Mapping[str, str]) -> Any:
    """A boto3 client, which several threads may share. Raises StoreError where the keys' variables
    are not set."""
    import boto3
    from botocore.config import Config

    config = Config(
        retries={"total_max_attempts": 3, "mode": "standard"},
        connect_timeout=3,
        read_timeout=60,
        max_pool_connections=32,
        tcp_keepalive=True,
        # Stores other than AWS: virtual hosts are rare, and not all know the newer trailing
        # checksums.
        s3={"addressing_style": "path" if place.endpoint_url else "auto"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    # A session of our own: boto3's default session is not safe to make clients from in threads.
    session = boto3.session.Session(**_keys(place, environ))
    return session.client(
        "s3", endpoint_url=place.endpoint_url, region_name=place.region, config=config
    )


def transfers() -> Any:
    """How files go up and down: in parts, several at a time."""
    from boto3.s3.transfer import TransferConfig

    sizes = {
        "multipart_threshold": _PART,
        "multipart_chunksize": _PART,
        "max_concurrency": _TRANSFERS,
    }
    return TransferConfig(**sizes, preferred_transfer_client="classic")


def _keys(place: Place, environ: Mapping[str, str]) -> dict[str, str]:
    """Keys from the variables that the recipe names; with the usual names boto3 looks itself
    (roles, profiles too)."""
    names = (place.access_key_env, place.secret_key_env)
    if names == _USUAL_KEYS and environ is os.environ:
        return {}
    unset = [name for name in names if not environ.get(name)]
    if unset:
        raise StoreError(
            f"The store's keys should stand in {names[0]} and {names[1]}, but "
            f"{' and '.join(unset)} is not set. "
            "Set it, or correct store.access_key_env and store.secret_key_env in the recipe."
        )
    return {"aws_access_key_id": environ[names[0]], "aws_secret_access_key": environ[names[1]]}
