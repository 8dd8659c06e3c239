"""S3 for the rest of moaa: whole objects, writes that happen once, listings, file transfers.

Addresses are always full `s3://bucket/key` URIs. A `Store` is cheap to create (boto3 is loaded on
first use) and may be used from several threads at once. Only this package uses boto3.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from operator import methodcaller
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from moaa.errors import StoreError, without_stop
from moaa.store import conditional
from moaa.store.address import Missing, endpoint_of, folder, split
from moaa.store.client import Client, transfers
from moaa.store.errors import (
    CONDITIONAL,
    FILE_RETRY_WINDOWS,
    NO_BATCH_DELETE,
    KeyNames,
    StoreLocation,
    delete_error,
)

if TYPE_CHECKING:
    from moaa.recipe import schema

T = TypeVar("T")
Progress = Callable[[int], None]
"""Called with the bytes transferred since the last call; from several threads."""


class Store:
    """An S3, and the prefix below which a run keeps everything."""

    def __init__(
        self,
        root: str,
        *,
        endpoint_url: str | None = None,
        region: str | None = None,
        keys: KeyNames = KeyNames(),
        expected_owner: str | None = None,
        environ: Mapping[str, str] = os.environ,
        reached: bool = False,
    ) -> None:
        """`reached`: another process has had answers from this address, so retry from the start."""
        split(root)
        self.root = root.rstrip("/")
        self._place = StoreLocation(
            endpoint_url or endpoint_of(environ),
            region or environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or "us-east-1",
            keys,
            expected_owner,
        )
        self._client = Client(self._place, environ, reached)

    @classmethod
    def of(cls, config: schema.StoreAddress, *, reached: bool = False) -> Self:
        """Return the store of a recipe."""
        return cls(
            config.root,
            endpoint_url=config.endpoint_url,
            region=config.region,
            keys=KeyNames(config.access_key_env, config.secret_key_env, config.session_token_env),
            expected_owner=config.expected_owner,
            reached=reached,
        )

    @property
    def endpoint_url(self) -> str | None:
        """The address of the S3; None for AWS."""
        return self._place.endpoint_url

    def get(self, uri: str) -> bytes:
        """Return the object's content. Raises `Missing` if there is none."""
        bucket, key = split(uri)

        def read(s3: Any) -> bytes:
            content: bytes = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
            return content

        return self._client.do(uri, read)

    def put(self, uri: str, data: bytes) -> None:
        """Write an object, replacing an existing one."""
        bucket, key = split(uri)
        self._client.do(uri, methodcaller("put_object", Bucket=bucket, Key=key, Body=data))

    def put_new(self, uri: str, data: bytes) -> bool:
        """Write an object unless one exists. Of several writers exactly one gets True."""
        return conditional.put(self._client, uri, data, IfNoneMatch="*")

    def replace(self, uri: str, old: bytes, new: bytes) -> bool:
        """Write an object if its content is still `old`. Of several writers exactly one gets True.

        Raises `Missing` if there is no object: `put_new` writes the first.
        """
        return conditional.replace(self._client, uri, old, new)

    def exists(self, uri: str) -> bool:
        """Return whether there is an object at exactly this address."""
        bucket, key = split(uri)
        try:
            self._client.do(uri, methodcaller("head_object", Bucket=bucket, Key=key))
        except Missing:
            return False
        return True

    def list(self, prefix_uri: str) -> Iterator[tuple[str, int]]:
        """Yield (uri, bytes) of every object below this folder.

        In the order of names within one folder; SeaweedFS lists folders at other places than AWS.
        """
        for uri, item in self._items(prefix_uri):
            yield uri, item["Size"]

    def versions(self, uri: str) -> dict[str, str]:
        """Return the version of this object, or of every object below this folder: ETag and size.

        Empty if there is none. Other content at the same address has another version.
        """
        bucket, key = split(uri)
        if key and not key.endswith("/"):
            with suppress(Missing):
                head = self._client.do(uri, methodcaller("head_object", Bucket=bucket, Key=key))
                return {uri: _version(head, head["ContentLength"])}
        return {each: _version(item, item["Size"]) for each, item in self._items(uri)}

    def _items(self, prefix_uri: str) -> Iterator[tuple[str, dict[str, Any]]]:
        bucket, prefix = folder(prefix_uri)
        token: dict[str, str] = {}
        while True:
            page = self._client.do(
                prefix_uri, methodcaller("list_objects_v2", Bucket=bucket, Prefix=prefix, **token)
            )
            for item in page.get("Contents", ()):
                yield f"s3://{bucket}/{item['Key']}", item
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def upload(self, path: Path, uri: str, *, progress: Progress | None = None) -> None:
        """Upload a file, in parts if it is large. The object appears complete or not at all."""
        bucket, key = split(uri)
        try:
            send = methodcaller(
                "upload_file", str(path), bucket, key, Callback=progress, Config=transfers()
            )
            self._client.do(uri, send, FILE_RETRY_WINDOWS)
        except OSError as error:
            raise StoreError(
                f"Cannot read {path} while uploading it to {uri}: {without_stop(error)}."
            ) from error

    def download(self, uri: str, path: Path, *, progress: Progress | None = None) -> None:
        """Download an object, in parallel ranges, and create the file's folder.

        The file appears complete or not at all.
        """
        bucket, key = split(uri)
        part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            fetch = methodcaller(
                "download_file", bucket, key, str(part), Callback=progress, Config=transfers()
            )
            self._client.do(uri, fetch, FILE_RETRY_WINDOWS)
            part.replace(path)
        except OSError as error:
            raise StoreError(
                f"Cannot write {path} while downloading {uri}: {without_stop(error)}. Free some "
                "space, or choose another folder."
            ) from error
        finally:
            with suppress(OSError):
                part.unlink()

    def copy(self, source: str, target: str) -> None:
        """Copy an object inside S3, in parts if it is large. It appears complete or not at all.

        Raises `Missing` if there is none.
        """
        (bucket, key), (to_bucket, to_key) = split(source), split(target)
        given = {"Bucket": bucket, "Key": key}
        send = methodcaller("copy", given, to_bucket, to_key, Config=transfers())
        self._client.do(source, send, FILE_RETRY_WINDOWS)

    def delete(self, *uris: str) -> None:
        """Delete these objects. A missing one is not an error."""
        by_bucket: dict[str, list[str]] = {}
        for uri in uris:
            bucket, key = split(uri)
            by_bucket.setdefault(bucket, []).append(key)
        for bucket, keys in by_bucket.items():
            for start in range(0, len(keys), 1000):
                self._delete(bucket, keys[start : start + 1000])

    def delete_prefix(self, prefix_uri: str) -> None:
        """Delete every object below this folder, and the parts of unfinished uploads.

        Raises StoreError for a whole bucket.
        """
        if not split(prefix_uri)[1].strip("/"):
            raise StoreError(
                f"{prefix_uri} is a whole bucket: refusing to delete it. Name a prefix below it."
            )
        self.delete(*(uri for uri, _ in self.list(prefix_uri)))
        # Not every store has the call, and not every key has the right to it.
        with suppress(StoreError):
            self._abort_uploads(prefix_uri)

    def check(self) -> None:
        """Write, write once, read, list and delete below the root.

        Raises StoreError, which says what to do, if the store cannot be used.
        """
        folder = f"{self.root}/.check-{secrets.token_hex(4)}"
        uri = f"{folder}/object"
        self.put_new(uri, b"1")
        try:
            if self.put_new(uri, b"2"):
                raise StoreError(
                    f"{self._place} ignores If-None-Match: runs could overwrite each other's "
                    f"results. {CONDITIONAL}"
                )
            if self.get(uri) != b"1":
                raise StoreError(
                    f"{self._place} returned other bytes than it was given. Use a consistent S3."
                )
            if [found for found, _ in self.list(folder)] != [uri]:
                raise StoreError(
                    f"{self._place} does not list what was just written below {folder}. Use a "
                    "consistent S3."
                )
        finally:
            self.delete(uri)

    # The calls of boto3.

    def _delete(self, bucket: str, keys: Sequence[str]) -> None:
        from botocore.exceptions import ClientError

        left = keys

        def delete(s3: Any) -> None:
            nonlocal left
            batch = {"Objects": [{"Key": key} for key in left], "Quiet": True}
            try:
                errors = s3.delete_objects(Bucket=bucket, Delete=batch).get("Errors")
            except ClientError as error:
                status = error.response["ResponseMetadata"].get("HTTPStatusCode")
                if (error.response["Error"].get("Code") or str(status)) not in NO_BATCH_DELETE:
                    raise
                for key in left:
                    s3.delete_object(Bucket=bucket, Key=key)
                return
            if errors:
                left = [error["Key"] for error in errors]
                raise delete_error(errors)

        self._client.do(f"s3://{bucket}/{keys[0]}", delete)

    def _abort_uploads(self, prefix_uri: str) -> None:
        """Abort uploads that were never completed: no listing shows their parts,
        but they cost money."""
        bucket, prefix = folder(prefix_uri)

        def unfinished(s3: Any) -> list[dict[str, str]]:
            every = s3.get_paginator("list_multipart_uploads")
            pages = every.paginate(Bucket=bucket, Prefix=prefix)
            found = (upload for page in pages for upload in page.get("Uploads", ()))
            return [upload for upload in found if upload["Key"].startswith(prefix)]

        for upload in self._client.do(prefix_uri, unfinished):
            which = {"Key": upload["Key"], "UploadId": upload["UploadId"]}
            # It may have been completed or aborted since the listing.
            with suppress(StoreError):
                self._client.do(
                    prefix_uri, methodcaller("abort_multipart_upload", Bucket=bucket, **which)
                )


def _version(about: Mapping[str, Any], size: int) -> str:
    return f"{str(about.get('ETag') or about['LastModified']).strip(chr(34))} {size}"
