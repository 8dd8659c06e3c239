"""The store and its artifacts against a real S3."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from moaa.artifacts import Artifact, Draft, Output
from moaa.errors import ArtifactError, StoreError
from moaa.store import Missing, Store
from tests.conftest import S3
from tests.support.artifacts import add_file

DRAFT = Draft(stage="generate", name="test", fingerprint="f00d")


def test_a_large_file_goes_up_and_down_unchanged(s3: S3, tmp_path: Path) -> None:
    source, target = tmp_path / "weights", tmp_path / "new folder" / "weights"
    source.write_bytes(os.urandom(1 << 20) * 50 + b"odd end")
    up, down = [0], [0]
    lock = threading.Lock()

    def count(total: list[int]) -> Callable[[int], None]:
        def add(n: int) -> None:
            with lock:
                total[0] += n

        return add

    s3.store.upload(source, f"{s3.root}/weights", progress=count(up))
    s3.store.download(f"{s3.root}/weights", target, progress=count(down))
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (source, target)]
    assert digests[0] == digests[1]
    assert up == down == [source.stat().st_size]
    assert [path.name for path in target.parent.iterdir()] == ["weights"]


def _wrong(s3: S3, **changed: str) -> Store:
    return Store("s3://moaa/wrong", environ={**s3.environment, **changed})


def _nobody_listens(s3: S3) -> Store:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return _wrong(s3, AWS_ENDPOINT_URL_S3=f"http://127.0.0.1:{port}")


@pytest.mark.parametrize(
    ("store", "says"),
    [
        (_nobody_listens, "cannot connect to http://127.0.0.1:"),
        (
            lambda s3: _wrong(
                s3,
                AWS_ENDPOINT_URL_S3=s3.environment["AWS_ENDPOINT_URL_S3"].replace("http", "https"),
            ),
            "certificate",
        ),
        (lambda s3: _wrong(s3, AWS_ACCESS_KEY_ID="unknown"), "The keys in $AWS_ACCESS_KEY_ID"),
        (lambda s3: _wrong(s3, AWS_SECRET_ACCESS_KEY="wrong"), "The keys in $AWS_ACCESS_KEY_ID"),
        (
            lambda s3: Store("s3://nosuchbucket/x", environ=s3.environment),
            "Make the bucket 'nosuchbucket'",
        ),
    ],
)
def test_a_wrong_address_key_or_bucket_is_said_readably_within_seconds(
    s3: S3, store: Callable[[S3], Store], says: str
) -> None:
    wrong = store(s3)
    for action in (
        wrong.check,
        lambda: wrong.get(f"{wrong.root}/a"),
        lambda: list(wrong.list(wrong.root)),
    ):
        before = time.monotonic()
        with pytest.raises(StoreError) as caught:
            action()
        assert says in str(caught.value)
        assert not isinstance(caught.value, Missing)
        assert s3.environment["AWS_SECRET_ACCESS_KEY"] not in str(caught.value)
        assert time.monotonic() - before < 15


def test_two_writers_of_an_artifact_have_one_winner_whole(s3: S3, tmp_path: Path) -> None:
    uri = f"{s3.root}/generate/f00d"
    start = threading.Barrier(4)

    def attempt(n: int) -> Any:
        weights = tmp_path / f"weights{n}"
        weights.write_bytes(bytes([n]) * 100_000)
        with Output(Store(s3.root), uri, "sft-data") as out:
            for row in range(100):
                out.write({"id": str(row), "writer": n})
            add_file(out, weights, "model.safetensors")
            start.wait(60)
            return out.commit(DRAFT)

    with ThreadPoolExecutor(4) as pool:
        manifests = list(pool.map(attempt, range(4)))
    assert all(manifest == manifests[0] for manifest in manifests)
    artifact = Artifact.open(s3.store, uri)
    [writer] = {row["writer"] for row in artifact.rows()}
    folder = artifact.download(tmp_path / "down")
    assert (folder / "model.safetensors").read_bytes() == bytes([writer]) * 100_000
    left = {key for key, _ in s3.store.list(uri)}
    assert left == {f"{uri}/{file.path}" for file in artifact.manifest.files} | {
        f"{uri}/manifest.json"
    }


def test_a_shard_changed_or_lost_on_s3_is_named(s3: S3) -> None:
    uri = f"{s3.root}/generate/f00d"
    with Output(s3.store, uri, "sft-data") as out:
        out.write({"id": "a"})
        manifest = out.commit(DRAFT)
    shard = f"{uri}/{manifest.files[0].path}"
    whole = s3.store.get(shard)
    for damaged in (whole[:-1], whole[:-1] + b"\x00", b""):
        s3.store.put(shard, damaged)
        with pytest.raises(ArtifactError, match=shard):
            list(Artifact.open(s3.store, uri).rows())
    s3.store.delete(shard)
    with pytest.raises(ArtifactError, match=f"{shard} is missing"):
        list(Artifact.open(s3.store, uri).rows())
