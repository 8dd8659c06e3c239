"""S3 as the rest of moaa sees it: whole objects, conditional writes, listings, file transfers.

Addresses are always full `s3://bucket/key` URIs. A `Store` is cheap to make (boto3 is loaded on
first use) and may be used from several threads at once. Nothing but this and store_*.py knows
boto3.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from operator import methodcaller
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from moaa.errors import StoreError
from moaa.store.client import connect, transfers
from moaa.store.errors import (
    CONDITIONAL,
    OF_FILES,
    Patience,
    Place,
    can_heal,
    refused,
    unanswered,
    undeleted,
)

if TYPE_CHECKING:
    from moaa.recipe import schema

T = TypeVar("T")
Progress = Callable[[int], None]
"""Called with the bytes transferred since the last call; from several threads."""

PATIENCE_S = 60.0
"""A store that has answered before gets so long to come back (restart, network). One that never has
is more likely a wrong address: that is said after boto3's own retries, within seconds."""


class Missing(StoreError):
    """There is no object at this address."""


def split(uri: str) -> tuple[str, str]:
    """Bucket and key of an s3:// address; the key of a bucket alone is empty."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not uri.startswith("s3://") or not bucket:
        raise StoreError(f"{uri!r} is not an S3 address. Write s3://BUCKET/PREFIX.")
    return bucket, key


class Store:
    """One S3 and the prefix below which a run keeps everything."""

    def __init__(
        self,
        root: str,
        *,
        endpoint_url: str | None = None,
        region: str | None = None,
        access_key_env: str = "AWS_ACCESS_KEY_ID",
        secret_key_env: str = "AWS_SECRET_ACCESS_KEY",
        environ: Mapping[str, str] = os.environ,
        reached: bool = False,
    ) -> None:
        """`reached`: this address is known to be right (a process beside this one has had answers):
        be patient at once."""
        split(root)
        self.root = root.rstrip("/")
        self._environ = env = environ
        self._place = Place(
            endpoint_url or env.get("AWS_ENDPOINT_URL_S3") or env.get("AWS_ENDPOINT_URL") or None,
            region or env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION") or "us-east-1",
            access_key_env,
            secret_key_env,
        )
        self._lock = threading.Lock()
        self._client: Any = None
        self._reached = reached

    @classmethod
    def of(cls, config: schema.Store, *, reached: bool = False) -> Self:
        """The store of a recipe."""
        return cls(
            config.root,
            endpoint_url=config.endpoint_url,
            region=config.region,
            access_key_env=config.access_key_env,
            secret_key_env=config.secret_key_env,
            reached=reached,
        )

    @property
    def endpoint_url(self) -> str | None:
        return self._place.endpoint_url

    def get(self, uri: str) -> bytes:
        """The object's content. Raises `Missing` where there is none."""
        return self.get_with_etag(uri)[0]

    def get_with_etag(self, uri: str) -> tuple[bytes, str]:
        """The object's content, and the tag by which `put_if` recognises that it is unchanged."""
        bucket, key = split(uri)

        def read(s3: Any) -> tuple[bytes, str]:
            answer = s3.get_object(Bucket=bucket, Key=key)
            return answer["Body"].read(), answer["ETag"]

        return self._do(uri, read)

    def put(self, uri: str, data: bytes) -> None:
        """Write an object, replacing what is there."""
        bucket, key = split(uri)
        self._do(uri, methodcaller("put_object", Bucket=bucket, Key=key, Body=data))

    def put_new(self, uri: str, data: bytes) -> bool:
        """Write an object unless one exists: True for exactly one of all who try."""
        return self._put_conditionally(uri, data, IfNoneMatch="*")

    def put_if(self, uri: str, data: bytes, etag: str) -> bool:
        """Replace an object that still has this etag; False when it has changed or is gone. (Same
        content, same etag.)"""
        return self._put_conditionally(uri, data, IfMatch=etag)

    def exists(self, uri: str) -> bool:
        """Whether there is an object at exactly this address."""
        bucket, key = split(uri)
        try:
            self._do(uri, methodcaller("head_object", Bucket=bucket, Key=key))
        except Missing:
            return False
        return True

    def list(self, prefix_uri: str) -> Iterator[tuple[str, int]]:
        """(uri, bytes) of every object below this folder, in the order of their names."""
        bucket, prefix = _folder(prefix_uri)
        token: dict[str, str] = {}
        while True:
            page = self._do(
                prefix_uri, methodcaller("list_objects_v2", Bucket=bucket, Prefix=prefix, **token)
            )
            for item in page.get("Contents", ()):
                yield f"s3://{bucket}/{item['Key']}", item["Size"]
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def upload(self, path: Path, uri: str, *, progress: Progress | None = None) -> None:
        """Write a file, in parallel parts when it is large. The object appears whole or not at all."""
        bucket, key = split(uri)
        try:
            self._do(
                uri,
                methodcaller(
                    "upload_file", str(path), bucket, key, Callback=progress, Config=transfers()
                ),
                OF_FILES,
            )
        except OSError as error:
            raise StoreError(f"Cannot read {path} while uploading it to {uri}: {error}.") from error

    def download(self, uri: str, path: Path, *, progress: Progress | None = None) -> None:
        """Read an object into a file, in parallel ranges. The file appears whole or not at all; its
        folder is made."""
        bucket, key = split(uri)
        part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            fetch = methodcaller(
                "download_file", bucket, key, str(part), Callback=progress, Config=transfers()
            )
            self._do(uri, fetch, OF_FILES)
            part.replace(path)
        except OSError as error:
            raise StoreError(
                f"Cannot write {path} while downloading {uri}: {error}. Free space or choose "
                "another."
            ) from error
        finally:
            with suppress(OSError):
                part.unlink()

    def delete(self, *uris: str) -> None:
        """Delete these objects; what is not there is no error."""
        by_bucket: dict[str, list[str]] = {}
        for uri in uris:
            bucket, key = split(uri)
            by_bucket.setdefault(bucket, []).append(key)
        for bucket, keys in by_bucket.items():
            for start in range(0, len(keys), 1000):
                self._delete(bucket, keys[start : start + 1000])

    def delete_prefix(self, prefix_uri: str) -> None:
        """Delete every object below this folder, and the parts of uploads that were killed. A whole
        bucket is refused."""
        if not split(prefix_uri)[1].strip("/"):
            raise StoreError(
                f"{prefix_uri} is a whole bucket: refusing to delete it. Name a prefix below it."
            )
        self.delete(*(uri for uri, _ in self.list(prefix_uri)))
        with suppress(StoreError):  # not every store knows the call, nor do all keys have the right
            self._abort_uploads(prefix_uri)

    def check(self) -> None:
        """Write, write conditionally, read, list and delete below the root. Raises StoreError that
        says what to do."""
        folder = f"{self.root}/.check-{secrets.token_hex(4)}"
        uri = f"{folder}/object"
        self.put_new(uri, b"1")
        try:
            if self.put_new(uri, b"2"):
                raise StoreError(
                    f"{self._place} ignores If-None-Match: runs could overwrite each other's "
                    f"results. {CONDITIONAL}"
                )
            _, etag = self.get_with_etag(uri)
            if not self.put_if(uri, b"3", etag) or self.put_if(uri, b"4", etag):
                raise StoreError(
                    f"{self._place} ignores If-Match: runs could overwrite each other's pointers. "
                    f"{CONDITIONAL}"
                )
            if [found for found, _ in self.list(folder)] != [uri]:
                raise StoreError(
                    f"{self._place} does not list what was just written below {folder}. Use a "
                    "consistent S3."
                )
        finally:
            self.delete(uri)

    # -- below: how boto3 is called

    def _delete(self, bucket: str, keys: Sequence[str]) -> None:
        left = keys

        def delete(s3: Any) -> None:
            nonlocal left
            batch = {"Objects": [{"Key": key} for key in left], "Quiet": True}
            if errors := s3.delete_objects(Bucket=bucket, Delete=batch).get("Errors"):
                left = [error["Key"] for error in errors]
                raise undeleted(errors)

        self._do(f"s3://{bucket}/{keys[0]}", delete)

    def _abort_uploads(self, prefix_uri: str) -> None:
        """No listing shows the parts of an upload that was neither completed nor aborted, but they
        are kept, and billed."""
        bucket, prefix = _folder(prefix_uri)

        def unfinished(s3: Any) -> list[dict[str, str]]:
            pages = s3.get_paginator("list_multipart_uploads").paginate(
                Bucket=bucket, Prefix=prefix
            )
            return [
                upload
                for page in pages
                for upload in page.get("Uploads", ())
                if upload["Key"].startswith(prefix)
            ]

        for upload in self._do(prefix_uri, unfinished):
            which = {"Key": upload["Key"], "UploadId": upload["UploadId"]}
            with suppress(StoreError):  # it was completed or aborted meanwhile
                self._do(prefix_uri, methodcaller("abort_multipart_upload", Bucket=bucket, **which))

    def _put_conditionally(self, uri: str, data: bytes, **condition: str) -> bool:
        from botocore.exceptions import ClientError

        bucket, key = split(uri)

        sent = 0

        def put(s3: Any) -> bool:
            nonlocal sent
            sent += 1
            try:
                s3.put_object(Bucket=bucket, Key=key, Body=data, **condition)
                return True
            except ClientError as error:
                code = error.response["Error"].get("Code")
                if code in ("PreconditionFailed", "412"):
                    # What is sent again because an answer got lost may find our own object in its
                    # way.
                    resent = sent > 1 or error.response["ResponseMetadata"].get("RetryAttempts")
                    return (
                        bool(resent)
                        and s3.get_object(Bucket=bucket, Key=key)["Body"].read() == data
                    )
                if "IfMatch" in condition and code == "NoSuchKey":
                    return False
                raise

        return self._do(uri, put)

    def _do(self, uri: str, action: Callable[[Any], T], renewals: int = 0) -> T:
        """Run one action on the boto3 client; what goes wrong for longer becomes a StoreError that
        says what to do."""
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError

        patience = Patience(PATIENCE_S, renewals)
        while True:
            try:
                result = action(self._s3())
            except (ClientError, BotoCoreError, Boto3Error, ValueError) as error:
                # boto3's file transfers wrap what went wrong; botocore refuses a malformed endpoint
                # with a ValueError.
                cause = (
                    getattr(error, "last_exception", error.__context__)
                    if isinstance(error, Boto3Error)
                    else error
                )
                cause = cause or error
                if not (can_heal(cause, self._reached) and patience.pause()):
                    self._reached |= hasattr(cause, "response")
                    raise self._explained(uri, cause) from error
            else:
                self._reached = True
                return result

    def _s3(self) -> Any:
        with self._lock:
            if self._client is None:
                self._client = connect(self._place, self._environ)
            return self._client

    def _explained(self, uri: str, error: BaseException) -> StoreError:
        response = getattr(error, "response", None)
        if response is None:
            return StoreError(f"{uri}: {unanswered(error, self._place)}")
        code = str(response["Error"].get("Code") or response["ResponseMetadata"]["HTTPStatusCode"])
        # A HEAD has no body to name the code in; any other bare 404 comes from something that is no
        # S3.
        if code == "NoSuchKey" or (
            code in ("404", "NotFound") and getattr(error, "operation_name", "") == "HeadObject"
        ):
            return Missing(f"{uri} does not exist in {self._place}.")
        bucket, key = split(uri)
        why = refused(code, response["Error"].get("Message", ""), bucket, self._place)
        return StoreError(
            f"s3://{bucket}/{response['Error'].get('Key', key)}: {why}"
        )  # the one of many that was refused


def _folder(uri: str) -> tuple[str, str]:
    bucket, key = split(uri)
    return bucket, f"{key.rstrip('/')}/" if key.strip("/") else ""
