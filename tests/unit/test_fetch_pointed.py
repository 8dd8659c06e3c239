"""`moaa fetch --pointer`: what a slot's pods do when they start."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from moaa.commands.download import fetch_pointed
from moaa.errors import MoaaError, StoreError
from moaa.gateway.slots import pointer_text, revision_of
from tests.support.memory_s3 import MemoryS3

POINTER = "s3://memory/pointers/aligned/b.json"


def put(s3: MemoryS3, uri: str, data: bytes) -> None:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    s3.put_object(bucket, key, data)


def test_each_version_has_a_folder_and_the_shell_is_told(s3: MemoryS3, tmp_path: Path) -> None:
    for version in ("s3://memory/models/v 1", "s3://memory/models/v2"):
        put(s3, f"{version}/config.json", version.encode())
        put(s3, f"{version}/model.safetensors", b"0")
        put(s3, POINTER, pointer_text(version).encode())
        fetch_pointed(POINTER, tmp_path / "aligned-b", tmp_path / "slot")
        told = subprocess.run(
            ["sh", "-c", f". {tmp_path}/slot && cat $MOAA_MODEL/config.json && echo; "
             "echo $MOAA_REVISION"],
            capture_output=True,
            text=True,
            check=True,
        )  # fmt: skip
        assert told.stdout.splitlines() == [version, revision_of(version)]
    assert len(list((tmp_path / "aligned-b").iterdir())) == 2


def test_a_slot_without_a_version_says_so(s3: MemoryS3, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"b\.json"):
        fetch_pointed(POINTER, tmp_path, tmp_path / "slot")
    put(s3, POINTER, b"[]")
    with pytest.raises(MoaaError, match="does not point"):
        fetch_pointed(POINTER, tmp_path, tmp_path / "slot")
    assert not (tmp_path / "slot").exists()
