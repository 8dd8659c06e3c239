"""The store in memory, which unit tests use, behaves as the real one does."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from moaa.errors import StoreError
from moaa.store import Missing, Store
from tests.support.memory_store import MemoryStore


@pytest.fixture(params=["memory", "s3"])
def store(request: pytest.FixtureRequest) -> Store:
    """Both, below a prefix of the test's own."""
    if request.param == "memory":
        return MemoryStore("s3://memory/root")
    found: Store = request.getfixturevalue("s3").store
    return found


def test_objects_come_back_and_go(store: Store) -> None:
    uri = f"{store.root}/a folder/ü+&%=?.json"
    assert not store.exists(uri)
    store.put(uri, b"\x00\xff" * 1000)
    assert store.exists(uri)
    assert store.get(uri) == b"\x00\xff" * 1000
    assert list(store.list(store.root)) == [(uri, 2000)]
    store.delete(uri, f"{store.root}/never there")
    assert not store.exists(uri)
    assert list(store.list(store.root)) == []


def test_a_write_replaces(store: Store) -> None:
    uri = f"{store.root}/a"
    store.put(uri, b"long content")
    store.put(uri, b"")
    assert store.get(uri) == b""
    assert list(store.list(store.root)) == [(uri, 0)]


def test_an_absent_object_is_missing(store: Store, tmp_path: Path) -> None:
    store.put(f"{store.root}/folder/a", b"a")
    for uri in (f"{store.root}/none", f"{store.root}/folder"):
        assert not store.exists(uri)
        with pytest.raises(Missing, match=f"{uri} does not exist"):
            store.get(uri)
        with pytest.raises(Missing):
            store.download(uri, tmp_path / "file")


def test_a_copy_stays_inside(store: Store) -> None:
    store.put(f"{store.root}/from/a", b"content" * 1000)
    store.copy(f"{store.root}/from/a", f"{store.root}/to/b")
    assert store.get(f"{store.root}/to/b") == b"content" * 1000
    with pytest.raises(Missing, match=f"{store.root}/none does not exist"):
        store.copy(f"{store.root}/none", f"{store.root}/to/c")


def test_a_first_write_is_not_replaced(store: Store) -> None:
    uri = f"{store.root}/commit"
    assert store.put_new(uri, b"first")
    assert not store.put_new(uri, b"second")
    assert not store.put_new(uri, b"first")
    assert store.get(uri) == b"first"
    store.delete(uri)
    assert store.put_new(uri, b"third")


def test_one_of_many_first_writers_wins(store: Store) -> None:
    uri = f"{store.root}/commit"
    start = threading.Barrier(8)

    def attempt(n: int) -> bool:
        start.wait(60)
        return store.put_new(uri, str(n).encode())

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(attempt, range(8)))
    assert sum(won) == 1
    assert store.get(uri) == str(won.index(True)).encode()


def test_only_the_known_content_is_replaced(store: Store) -> None:
    uri = f"{store.root}/pointer"
    with pytest.raises(Missing, match=f"{uri} does not exist"):
        store.replace(uri, b"", b"first")
    store.put(uri, b"first")
    assert not store.replace(uri, b"other", b"second")
    assert store.get(uri) == b"first"
    assert store.replace(uri, b"first", b"second")
    assert not store.replace(uri, b"first", b"third")
    assert store.get(uri) == b"second"


def test_one_of_many_that_replace_wins(store: Store) -> None:
    uri = f"{store.root}/pointer"
    store.put(uri, b"known")
    start = threading.Barrier(8)

    def attempt(n: int) -> bool:
        start.wait(60)
        return store.replace(uri, b"known", str(n).encode())

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(attempt, range(8)))
    assert sum(won) == 1
    assert store.get(uri) == str(won.index(True)).encode()


def test_a_listing_is_of_the_folder_alone_and_complete(store: Store) -> None:
    names = [f"{store.root}/run/{n:04}" for n in range(1005)]  # a page holds 1000
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda uri: store.put(uri, b"x"), [*names, f"{store.root}/run2/a"]))
    assert [uri for uri, _ in store.list(f"{store.root}/run")] == names
    assert [uri for uri, _ in store.list(f"{store.root}/run/")] == names
    store.delete_prefix(f"{store.root}/run")
    assert [uri for uri, _ in store.list(store.root)] == [f"{store.root}/run2/a"]


def test_a_folder_is_listed_in_the_order_of_its_names_bytes(store: Store) -> None:
    names = ["B", "a", "a b", "a.b", "a0", "ä"]
    for name in reversed(names):
        store.put(f"{store.root}/{name}", b"")
    assert [uri.removeprefix(f"{store.root}/") for uri, _ in store.list(store.root)] == names


def test_nothing_is_listed_or_deleted_below_an_empty_prefix(store: Store) -> None:
    assert list(store.list(f"{store.root}/none")) == []
    store.delete_prefix(f"{store.root}/none")
    store.delete()


@pytest.mark.parametrize("uri", ["s3://memory", "s3://moaa/", "s3://moaa//"])
def test_a_whole_bucket_is_not_deleted(store: Store, uri: str) -> None:
    with pytest.raises(StoreError, match="whole bucket"):
        store.delete_prefix(uri)


def test_files_go_up_and_down_and_their_bytes_are_counted(store: Store, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "new" / "folder" / "target"
    source.write_bytes(b"w" * 70_000)
    up: list[int] = []
    down: list[int] = []
    store.upload(source, f"{store.root}/file", progress=up.append)
    store.download(f"{store.root}/file", target, progress=down.append)
    assert target.read_bytes() == source.read_bytes()
    assert sum(up) == sum(down) == 70_000
    assert [path.name for path in target.parent.iterdir()] == ["target"]


def test_a_download_that_fails_leaves_the_old_file_and_no_other(
    store: Store, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text("old")
    with pytest.raises(Missing):
        store.download(f"{store.root}/none", tmp_path / "config.json")
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    assert (tmp_path / "config.json").read_text() == "old"


def test_a_file_that_cannot_be_read_or_written_is_named(store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file where a folder is needed")
    store.put(f"{store.root}/some", b"x")
    with pytest.raises(StoreError, match=r"Cannot write .*config\.json"):
        store.download(f"{store.root}/some", tmp_path / "file" / "config.json")
    with pytest.raises(StoreError, match=r"Cannot read .*absent"):
        store.upload(tmp_path / "absent", f"{store.root}/some")


@pytest.mark.parametrize("uri", ["bucket/key", "s3://", "/tmp/x"])
def test_what_is_no_address_is_refused_by_each_call(store: Store, uri: str) -> None:
    calls: list[Callable[[], object]] = [
        lambda: store.get(uri),
        lambda: store.put(uri, b""),
        lambda: store.put_new(uri, b""),
        lambda: store.replace(uri, b"", b""),
        lambda: store.exists(uri),
        lambda: list(store.list(uri)),
        lambda: store.delete(uri),
        lambda: store.delete_prefix(uri),
    ]
    for call in calls:
        with pytest.raises(StoreError, match="s3://BUCKET/PREFIX"):
            call()


def test_check_leaves_nothing(store: Store) -> None:
    store.check()
    assert list(store.list(store.root)) == []
