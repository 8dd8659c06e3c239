"""How boto3 is called: its settings, the keys, retries, and errors that say what to do."""

from __future__ import annotations

import base64
import hashlib
import os
import threading
import time
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any, TypeVar

from moaa.errors import StoreAway, StoreError
from moaa.progress.messages import log, say
from moaa.recipe.secrets import S3_KEYS
from moaa.recipe.urls import needs_no_proxy
from moaa.store.address import Missing, split
from moaa.store.errors import (
    StoreLocation,
    explain_no_answer,
    explain_refusal,
    has_expired,
    is_temporary,
)
from moaa.store.retry import RetryWindow

T = TypeVar("T")
RETRY_S = 20 * 60.0
"""How long to retry if the store has answered before: it restarts, or the network is down.

If it never has, its address is probably wrong: then an error comes after boto3's own retries,
within seconds.
"""
SAY_AFTER_S = 5.0
"""A shorter failure is not reported."""
S3_SETTINGS = ("AWS_ENDPOINT_URL_S3", "AWS_REGION")
"""The usual names of the store's address and region:
of environment variables, and in a cluster's Secret."""
SESSION_TOKEN = "AWS_SESSION_TOKEN"
"""The token of keys that expire after some hours; in the same places."""
ATTEMPTS = 3
"""boto3's own retries, for a lost packet; the others are ours."""
_PART = 16 << 20
_TRANSFERS = 8


class Client:
    """boto3's client for one store, created on first use. Several threads may share it."""

    def __init__(self, place: StoreLocation, environ: Mapping[str, str], reached: bool) -> None:
        self._place = place
        self._environ = environ
        self._reached = reached
        self._lock = threading.Lock()
        self._client: Any = None
        self._outage = Outage(str(place))

    def do(self, uri: str, action: Callable[[Any], T], renewals: int = 0) -> T:
        """Return the result of `action` for the boto3 client; retry temporary failures.

        Raises StoreError, which says what to do; StoreAway if the same call may succeed later.
        """
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError

        window = RetryWindow(RETRY_S, renewals)
        renewed = False
        while True:
            s3: Any = None
            try:
                s3 = self._s3()
                result = action(s3)
            # botocore refuses a malformed endpoint with a ValueError.
            except (ClientError, BotoCoreError, Boto3Error, ValueError) as error:
                cause = _cause(error) if isinstance(error, Boto3Error) else error
                if has_expired(cause) and not renewed:
                    renewed = True  # a profile or a role may have newer keys now
                    self._connect_again(s3)
                    continue
                temporary = is_temporary(cause, self._reached)
                if temporary:
                    self._outage.failed(cause, window.failed_s)
                if not (temporary and window.pause()):
                    self._reached |= hasattr(cause, "response")
                    raise self._explain(uri, cause, temporary or has_expired(cause)) from error
            else:
                self._reached = True
                self._outage.over()
                return result

    def _s3(self) -> Any:
        with self._lock:
            if self._client is None:
                self._client = _connect(self._place, self._environ)
            return self._client

    def _connect_again(self, used: Any) -> None:
        with self._lock:
            if self._client is used:
                self._client = None

    def _explain(self, uri: str, error: BaseException, passes: bool) -> StoreError:
        response = getattr(error, "response", None)
        kind = StoreAway if passes else StoreError
        if response is None:
            return kind(f"{uri}: {explain_no_answer(error, self._place)}")
        code = str(response["Error"].get("Code") or response["ResponseMetadata"]["HTTPStatusCode"])
        # The answer to HEAD has no body with the code. Any other 404 without a code comes from
        # something that is not an S3.
        is_head = getattr(error, "operation_name", "") == "HeadObject"
        if code == "NoSuchKey" or (is_head and code in ("404", "NotFound")):
            return Missing(f"{uri} does not exist in {self._place}.")
        bucket, key = split(uri)
        why = explain_refusal(code, response["Error"].get("Message", ""), bucket, self._place)
        # For a DeleteObjects of many keys: the key that was refused.
        return kind(f"s3://{bucket}/{response['Error'].get('Key', key)}: {why}")


class Outage:
    """Reports once that the store does not answer, and once that it answers again. Thread-safe."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._lock = threading.Lock()
        self._since: float | None = None

    def failed(self, error: BaseException, failed_s: float) -> None:
        """Note that a call has been failing for `failed_s` seconds."""
        with self._lock:
            if self._since is not None or failed_s < SAY_AFTER_S:
                return
            self._since = time.monotonic() - failed_s
        what = " ".join(str(error).split())[:200]
        log.warning(
            f"S3 ({self._place}) does not answer: {what}. Trying for {RETRY_S / 60:.0f} minutes; "
            "results are kept in memory until then"
        )

    def over(self) -> None:
        """Note that a call succeeded."""
        if self._since is None:
            return
        with self._lock:
            since, self._since = self._since, None
        if since is not None:
            say(f"S3 ({self._place}) answers again, after {time.monotonic() - since:.0f} s")


def _cause(error: BaseException) -> BaseException:
    """Return the error inside the one that boto3's file transfers raise."""
    return getattr(error, "last_exception", error.__context__) or error


def _connect(place: StoreLocation, environ: Mapping[str, str]) -> Any:
    """Return a boto3 client, which several threads may share.

    Raises StoreError if the variables of the keys are not set.
    """
    import boto3
    import botocore.session
    from botocore.config import Config

    config = Config(
        retries={"total_max_attempts": ATTEMPTS, "mode": "standard"},
        connect_timeout=3,
        read_timeout=60,
        max_pool_connections=32,
        tcp_keepalive=True,
        # Most stores other than AWS have no virtual hosts, and some do not have the newer
        # checksums.
        s3={"addressing_style": "path" if place.endpoint_url else "auto"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        **_proxies(place),
    )
    # A session of our own: boto3's default session is not safe for creating clients in threads.
    base = botocore.session.get_session()
    base.register_component("data_loader", _descriptions())
    session = boto3.session.Session(botocore_session=base, **_keys(place, environ))
    client = session.client(
        "s3", endpoint_url=place.endpoint_url, region_name=place.region, config=config
    )
    # boto3 sends a CRC32 since 1.36. Older stores need the MD5, and AWS accepts both.
    client.meta.events.register("before-call.s3.DeleteObjects", _add_content_md5)
    if place.expected_owner:
        client.meta.events.register(
            "provide-client-params.s3", partial(_add_owner, place.expected_owner)
        )
    return client


@cache
def _descriptions() -> Any:
    """Return what boto3 knows about AWS's services: megabytes of JSON, read once in a process."""
    from botocore.loaders import create_loader

    return create_loader()


def _add_content_md5(params: dict[str, Any], **_: object) -> None:
    digest = hashlib.md5(params["body"], usedforsecurity=False).digest()
    params["headers"]["Content-MD5"] = base64.b64encode(digest).decode()


def _add_owner(owner: str, params: dict[str, Any], model: Any, **_: object) -> dict[str, Any]:
    """Name the account that must own the bucket, in every call that has such a field."""
    if "ExpectedBucketOwner" in model.input_shape.members:
        return {**params, "ExpectedBucketOwner": owner}
    return params


def _proxies(place: StoreLocation) -> dict[str, Any]:
    """Return the settings that keep calls to this machine and to services of the cluster from using
    a proxy of the environment."""
    if place.endpoint_url and needs_no_proxy(place.endpoint_url):
        return {"proxies": {"none": ""}}  # an empty mapping means the environment's
    return {}


def transfers() -> Any:
    """Return boto3's settings for files: in parts, several at a time."""
    from boto3.s3.transfer import TransferConfig

    sizes = {
        "multipart_threshold": _PART,
        "multipart_chunksize": _PART,
        "max_concurrency": _TRANSFERS,
    }
    return TransferConfig(**sizes, preferred_transfer_client="classic")


def _keys(place: StoreLocation, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the keys in the variables that the recipe names.

    Nothing for the usual names: boto3 then looks for roles and profiles too.
    """
    names = (place.keys.access, place.keys.secret)
    if names == S3_KEYS and environ is os.environ:
        return {}
    token_name = place.keys.token or (SESSION_TOKEN if names == S3_KEYS else None)
    unset = [name for name in names if not environ.get(name)]
    if unset:
        raise StoreError(
            f"The store's keys should be in {names[0]} and {names[1]}, but "
            f"{' and '.join(unset)} is not set. "
            "Set it, or correct store.access_key_env and store.secret_key_env in the recipe."
        )
    token = environ.get(token_name) if token_name else None
    return {
        "aws_access_key_id": environ[names[0]],
        "aws_secret_access_key": environ[names[1]],
        **({"aws_session_token": token} if token else {}),
    }
