"""What moaa.store needs of boto3's client, in memory: an S3 that goes away and comes back.

The pauses of moaa.store move its clock and take no time, so an outage of a quarter of an hour
passes in a moment, through the same retries as a real one.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, TypeVar

import pytest

from moaa.store import Store

T = TypeVar("T")
Trouble = Literal["refused", "500", "lost answer"]
"""refused: no connection. 500: InternalError. lost answer: the first request is carried out, and
nobody hears of it; then no connection."""


class MemoryS3:
    """Objects by bucket and key. After `away_after` requests it is away for `away_s`."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], bytes] = {}
        self.now = 0.0
        self.requests = self.failed = 0
        self.trouble: Trouble = "refused"
        self.away_after: int | None = None
        self.away_s = 0.0
        self._back_at: float | None = None
        self._lock = threading.RLock()

    def put_object(
        self, Bucket: str, Key: str, Body: bytes, IfNoneMatch: str = "", IfMatch: str = ""
    ) -> Any:
        def put() -> None:
            there = self.objects.get((Bucket, Key))
            if IfMatch and there is None:
                raise _refusal(404, "NoSuchKey", "PutObject")
            if (IfNoneMatch and there is not None) or (
                IfMatch and there is not None and _etag(there) != IfMatch
            ):
                raise _refusal(412, "PreconditionFailed", "PutObject")
            self.objects[Bucket, Key] = bytes(Body)

        return self._answer(put)

    def get_object(self, Bucket: str, Key: str) -> Any:
        data = self._answer(lambda: self._content(Bucket, Key, "GetObject"))
        return {"Body": SimpleNamespace(read=lambda: data), "ETag": _etag(data)}

    def head_object(self, Bucket: str, Key: str) -> Any:
        data = self._answer(lambda: self._content(Bucket, Key, "HeadObject"))
        return {"ContentLength": len(data), "ETag": _etag(data)}

    def list_objects_v2(self, Bucket: str, Prefix: str) -> Any:
        def found() -> list[Any]:
            return [
                {"Key": key, "Size": len(data), "ETag": _etag(data)}
                for (bucket, key), data in sorted(self.objects.items())
                if bucket == Bucket and key.startswith(Prefix)
            ]

        return {"Contents": self._answer(found)}

    def delete_objects(self, Bucket: str, Delete: Mapping[str, Any]) -> Any:
        def delete() -> dict[str, Any]:
            for each in Delete["Objects"]:
                self.objects.pop((Bucket, each["Key"]), None)
            return {}

        return self._answer(delete)

    def upload_file(self, path: str, bucket: str, key: str, **_: Any) -> None:
        self.put_object(Bucket=bucket, Key=key, Body=Path(path).read_bytes())

    def download_file(self, bucket: str, key: str, path: str, **_: Any) -> None:
        data = self._answer(lambda: self._content(bucket, key, "GetObject"))
        Path(path).write_bytes(data)

    def get_paginator(self, name: str) -> Any:
        def paginate(**_: Any) -> Iterable[Any]:
            return self._answer(list)

        return SimpleNamespace(paginate=paginate)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, s: float) -> None:
        with self._lock:
            self.now += 10 * s  # fewer pauses

    def _content(self, bucket: str, key: str, operation: str) -> bytes:
        if (bucket, key) not in self.objects:
            raise _refusal(404, "NoSuchKey", operation)
        return self.objects[bucket, key]

    def _answer(self, carry_out: Callable[[], T]) -> T:
        from botocore.exceptions import EndpointConnectionError, ReadTimeoutError

        with self._lock:
            self.requests += 1
            if self._is_away():
                self.failed += 1
                if self.trouble == "500":
                    raise _refusal(500, "InternalError", "any")
                if self.trouble == "lost answer" and self.failed == 1:
                    carry_out()
                    raise ReadTimeoutError(endpoint_url="http://s3")
                raise EndpointConnectionError(endpoint_url="http://s3")
            return carry_out()

    def _is_away(self) -> bool:
        if self.away_after is None or self.requests <= self.away_after:
            return False
        if self._back_at is None:
            self._back_at = self.now + self.away_s
        return self.now < self._back_at


def _etag(data: bytes) -> str:
    return f'"{hashlib.md5(data).hexdigest()}"'


def _refusal(status: int, code: str, operation: str) -> Exception:
    from botocore.exceptions import ClientError

    about: Any = {
        "Error": {"Code": code, "Message": "as told"},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return ClientError(about, operation)


def install(monkeypatch: pytest.MonkeyPatch) -> MemoryS3:
    """Let every Store of this process be in memory, and its pauses take no time."""
    s3 = MemoryS3()
    clock = SimpleNamespace(monotonic=s3.monotonic, sleep=s3.sleep)
    monkeypatch.setattr("moaa.store.client._connect", lambda place, environ: s3)
    monkeypatch.setattr("moaa.store.retry.time", clock)
    monkeypatch.setattr("moaa.store.client.time", clock)
    return s3


def store(root: str = "s3://moaa/demo") -> Store:
    """A store as a stage has it: it waits from its first request on."""
    return Store(root, environ={}, reached=True)
