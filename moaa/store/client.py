"""How boto3 is called: its settings, the keys, retries, and errors that say what to do."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from moaa.errors import StoreError
from moaa.recipe.secrets import S3_KEYS
from moaa.store.address import Missing, split
from moaa.store.errors import Place, explain_no_answer, explain_refusal, is_temporary
from moaa.store.retry import RetryWindow

T = TypeVar("T")
RETRY_S = 60.0
"""How long to retry if the store has answered before: it restarts, or the network is down.

If it never has, its address is probably wrong: an error after boto3's own retries, within seconds.
"""
S3_SETTINGS = ("AWS_ENDPOINT_URL_S3", "AWS_REGION")
"""The usual names of the store's address and region: of environment variables, and in a cluster's
Secret."""
_PART = 16 << 20
_TRANSFERS = 8


class Client:
    """boto3's client for one store, made on first use. Several threads may share it."""

    def __init__(self, place: Place, environ: Mapping[str, str], reached: bool) -> None:
        self._place = place
        self._environ = environ
        self._reached = reached
        self._lock = threading.Lock()
        self._client: Any = None

    def do(self, uri: str, action: Callable[[Any], T], renewals: int = 0) -> T:
        """Return what `action` returns for the boto3 client; retry temporary failures.

        Raises StoreError, which says what to do.
        """
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError

        window = RetryWindow(RETRY_S, renewals)
        while True:
            try:
                result = action(self._s3())
            # botocore refuses a malformed endpoint with a ValueError.
            except (ClientError, BotoCoreError, Boto3Error, ValueError) as error:
                cause = _cause(error) if isinstance(error, Boto3Error) else error
                if not (is_temporary(cause, self._reached) and window.pause()):
                    self._reached |= hasattr(cause, "response")
                    raise self._explain(uri, cause) from error
            else:
                self._reached = True
                return result

    def _s3(self) -> Any:
        with self._lock:
            if self._client is None:
                self._client = _connect(self._place, self._environ)
            return self._client

    def _explain(self, uri: str, error: BaseException) -> StoreError:
        response = getattr(error, "response", None)
        if response is None:
            return StoreError(f"{uri}: {explain_no_answer(error, self._place)}")
        code = str(response["Error"].get("Code") or response["ResponseMetadata"]["HTTPStatusCode"])
        # The answer to HEAD has no body that names the code. Any other 404 without a code comes
        # from something that is not an S3.
        is_head = getattr(error, "operation_name", "") == "HeadObject"
        if code == "NoSuchKey" or (is_head and code in ("404", "NotFound")):
            return Missing(f"{uri} does not exist in {self._place}.")
        bucket, key = split(uri)
        why = explain_refusal(code, response["Error"].get("Message", ""), bucket, self._place)
        # Of a DeleteObjects of many keys, the one that was refused.
        return StoreError(f"s3://{bucket}/{response['Error'].get('Key', key)}: {why}")


def _cause(error: BaseException) -> BaseException:
    """Return the error inside the one that boto3's file transfers raise."""
    return getattr(error, "last_exception", error.__context__) or error


def _connect(place: Place, environ: Mapping[str, str]) -> Any:
    """Return a boto3 client, which several threads may share.

    Raises StoreError if the variables of the keys are not set.
    """
    import boto3
    from botocore.config import Config

    config = Config(
        retries={"total_max_attempts": 3, "mode": "standard"},
        connect_timeout=3,
        read_timeout=60,
        max_pool_connections=32,
        tcp_keepalive=True,
        # Most stores other than AWS have no virtual hosts, and some not the newer checksums.
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
    """Return boto3's settings for files: in parts, several at a time."""
    from boto3.s3.transfer import TransferConfig

    sizes = {
        "multipart_threshold": _PART,
        "multipart_chunksize": _PART,
        "max_concurrency": _TRANSFERS,
    }
    return TransferConfig(**sizes, preferred_transfer_client="classic")


def _keys(place: Place, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the keys in the variables that the recipe names.

    Nothing for the usual names: boto3 then looks for roles and profiles too.
    """
    names = (place.access_key_env, place.secret_key_env)
    if names == S3_KEYS and environ is os.environ:
        return {}
    unset = [name for name in names if not environ.get(name)]
    if unset:
        raise StoreError(
            f"The store's keys should be in {names[0]} and {names[1]}, but "
            f"{' and '.join(unset)} is not set. "
            "Set it, or correct store.access_key_env and store.secret_key_env in the recipe."
        )
    return {"aws_access_key_id": environ[names[0]], "aws_secret_access_key": environ[names[1]]}
