"""A store in memory that behaves as `moaa.store.Store` (tests/integration/test_store_contract.py).

For unit tests; it can be told to fail.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from moaa.errors import StoreError
from moaa.store import Missing, split

if TYPE_CHECKING:
    from moaa.store import Store as _Store
else:
    _Store = object


class MemoryStore(_Store):
    """Objects in a dict. `fail_puts` counts down: so many of the next writes raise StoreError, and
    `fail_deletes` deletions. `log` names every request."""

    def __init__(self, root: str = "s3://memory/root") -> None:
        self.root = root.rstrip("/")
        self.endpoint_url: str | None = None
        self.objects: dict[str, bytes] = {}
        self.fail_puts = self.fail_deletes = 0
        self.log: list[tuple[str, str]] = []
        self._lock = threading.RLock()

    def get(self, uri: str) -> bytes:
        with self._lock:
            self._note("get", uri)
            if uri not in self.objects:
                raise Missing(f"{uri} does not exist in memory.")
            return self.objects[uri]

    def put(self, uri: str, data: bytes) -> None:
        with self._lock:
            self._note("put", uri)
            if self.fail_puts > 0:
                self.fail_puts -= 1
                raise StoreError(f"{uri}: memory was told to fail.")
            self.objects[uri] = bytes(data)

    def put_new(self, uri: str, data: bytes) -> bool:
        with self._lock:
            if uri in self.objects:
                return False
            self.put(uri, data)
            return True

    def replace(self, uri: str, old: bytes, new: bytes) -> bool:
        with self._lock:
            if self.get(uri) != old:
                return False
            self.put(uri, new)
            return True

    def exists(self, uri: str) -> bool:
        split(uri)
        with self._lock:
            return uri in self.objects

    def list(self, prefix_uri: str) -> Iterator[tuple[str, int]]:
        split(prefix_uri)
        prefix = prefix_uri.rstrip("/") + "/"
        with self._lock:
            self._note("list", prefix)
            return iter(
                [
                    (uri, len(data))
                    for uri, data in sorted(self.objects.items())
                    if uri.startswith(prefix)
                ]
            )

    def versions(self, uri: str) -> dict[str, str]:
        with self._lock:
            self._note("versions", uri)
            return {
                each: f"{hashlib.md5(data).hexdigest()} {len(data)}"
                for each, data in self.objects.items()
                if each == uri or each.startswith(uri.rstrip("/") + "/")
            }

    def upload(
        self, path: Path, uri: str, *, progress: Callable[[int], None] | None = None
    ) -> None:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise StoreError(f"Cannot read {path} while uploading it to {uri}: {error}.") from error
        self.put(uri, data)
        if progress:
            progress(len(data))

    def download(
        self, uri: str, path: Path, *, progress: Callable[[int], None] | None = None
    ) -> None:
        data = self.get(uri)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        except OSError as error:
            raise StoreError(f"Cannot write {path} while downloading {uri}: {error}.") from error
        if progress:
            progress(len(data))

    def copy(self, source: str, target: str) -> None:
        self.put(target, self.get(source))

    def delete(self, *uris: str) -> None:
        with self._lock:
            if uris and self.fail_deletes > 0:
                self.fail_deletes -= 1
                raise StoreError(f"{uris[0]}: memory was told to fail.")
            for uri in uris:
                self._note("delete", uri)
                self.objects.pop(uri, None)

    def delete_prefix(self, prefix_uri: str) -> None:
        if not split(prefix_uri)[1].strip("/"):
            raise StoreError(f"{prefix_uri} is a whole bucket: refusing to delete it.")
        self.delete(*(uri for uri, _ in self.list(prefix_uri)))

    def check(self) -> None:
        pass

    def _note(self, request: str, uri: str) -> None:
        split(uri)
        self.log.append((request, uri))
