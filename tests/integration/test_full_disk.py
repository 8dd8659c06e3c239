"""A disk that is really full: under the local S3, and under what a stage downloads."""

from __future__ import annotations

import gc
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from moaa.errors import StoreError
from moaa.store import Store, local
from moaa.weights.local import resolve

MIB = 1 << 20


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of 80 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    options = ["-t", "tmpfs", "-o", "size=80m,mode=700", "tmpfs", str(disk)]
    if os.getuid() or subprocess.run(["mount", *options], capture_output=True).returncode:
        pytest.skip("mounting a small disk needs rights that this user does not have")
    try:
        yield disk
    finally:
        deadline = time.monotonic() + 30
        while subprocess.run(["umount", str(disk)], capture_output=True).returncode:
            assert time.monotonic() < deadline, f"{disk} is still in use"
            time.sleep(0.5)


def fill(disk: Path) -> Path:
    """Leave one MiB free; deleting the file frees the rest."""
    about = os.statvfs(disk)
    filler = disk / "filler"
    filler.write_bytes(bytes(about.f_bavail * about.f_frsize - MIB))
    return filler


def test_a_full_disk_under_the_local_s3_costs_time_and_nothing_else(
    small: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Before, all that a stage had computed was gone a minute after the disk was full."""
    with local.serve(small) as address:
        store = Store("s3://moaa/x", environ={**os.environ, **address}, reached=True)
        store.put("s3://moaa/x/before", b"1")
        filler = fill(small)
        # More than boto3's own attempts take: those of moaa.store go on.
        freed = threading.Timer(8, filler.unlink)
        freed.start()
        data = os.urandom(8 * MIB)
        store.put("s3://moaa/x/large", data)
        freed.join()
        assert store.get("s3://moaa/x/large") == data
        assert store.get("s3://moaa/x/before") == b"1"


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_a_full_disk_under_a_download_is_an_error_that_says_where(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOAA_CACHE", str(small / "cache"))
    with local.serve(tmp_path / "s3") as address:
        store = Store("s3://moaa/x", environ={**os.environ, **address}, reached=True)
        store.put("s3://moaa/x/model/config.json", b"{}")
        store.put("s3://moaa/x/model/model.safetensors", os.urandom(8 * MIB))
        filler = fill(small)
        with pytest.raises(StoreError, match=r"Cannot write .*/cache/.* Free some space"):
            resolve("s3://moaa/x/model", store)
        assert not list(small.rglob("*.part")), "what was half written stayed, and filled the disk"
        filler.unlink()
        found = Path(resolve("s3://moaa/x/model", store))
        assert (found / "model.safetensors").stat().st_size == 8 * MIB
    gc.collect()  # boto3 leaves the connection of a file that it could not write to the collector
