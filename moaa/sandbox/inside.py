"""What runs in the sandbox's pod: `python3 -B -m moaa.sandbox.inside`.

It reads programs from its environment, and first checks that the pod is isolated: no network, no
token, nothing writable. If it is not, no program is run. Each program is a process of its own with
limits; its output is discarded. For each program it prints one line of JSON:

    {"id": "base/HumanEval/0", "outcome": "passed"}
    {"refused": "the network is open: …"}

It uses only the standard library.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

PROGRAMS = "MOAA_PROGRAMS_"
"""Variables with the programs: packed JSON {id: program}, in pieces."""
PIECE = 96_000
"""Characters of a piece: the kernel accepts variables of 128 KiB."""
TIMEOUT_S = 10.0
MEMORY_BYTES = 1 << 30
SHUT_WAIT_S = 60.0
"""How long to wait until the network is closed: some clusters enforce a policy late."""
WAIT_ENV = "MOAA_SHUT_WAIT_S"
"""The variable with another such time."""
CONNECT_S = 3.0
TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
PLACES = ("/", "/tmp", "/var/tmp", "/dev/shm", "/run", "/home", ".")
"""Places where a program might be able to write."""

# It runs the program, then writes a word that only it knows. So a program that ends early, also by
# `exit(0)`, has not passed.
_LOADER = """
import json, os, resource, sys
program, word, out, seconds, memory = json.loads(sys.stdin.read())
for limit, value in (
    (resource.RLIMIT_AS, memory),
    (resource.RLIMIT_CPU, seconds),
    (resource.RLIMIT_FSIZE, 0),
    (resource.RLIMIT_CORE, 0),
):
    resource.setrlimit(limit, (value, value))
try:
    exec(compile(program, "program", "exec"), {"__name__": "program"})
    end = word
except BaseException as error:
    end = type(error).__name__
os.write(out, end.encode()[:200])
os._exit(0)
"""


def pack(programs: Mapping[str, str]) -> dict[str, str]:
    """Return programs as variables of an environment."""
    packed = base64.b64encode(zlib.compress(json.dumps(dict(programs)).encode(), 9)).decode()
    pieces = [packed[start : start + PIECE] for start in range(0, len(packed), PIECE)]
    return {f"{PROGRAMS}{number}": piece for number, piece in enumerate(pieces)}


def unpack(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the programs that `pack` packed."""
    names = sorted(
        (name for name in environment if name.startswith(PROGRAMS)),
        key=lambda name: int(name.removeprefix(PROGRAMS)),
    )
    found: dict[str, str] = json.loads(
        zlib.decompress(base64.b64decode("".join(environment[name] for name in names)))
    )
    return found


def opening(environment: Mapping[str, str], places: Iterable[str] = PLACES) -> str:
    """Return in words what the pod can still reach or write; empty if nothing."""
    if TOKEN.exists():
        return f"there is a token: {TOKEN}"
    for place in places:
        try:
            with tempfile.TemporaryFile(dir=place):
                return f"{place} can be written"
        except OSError:
            continue
    host, port = (environment.get(f"KUBERNETES_SERVICE_{name}", "") for name in ("HOST", "PORT"))
    if not host:
        return "the API server's address, which shows whether the network is shut, is not known"
    try:
        with socket.create_connection((host, int(port or 443)), CONNECT_S):
            return f"the network is open: {host}:{port or 443} can be reached"
    except OSError:
        return ""


def wait_until_shut(look: Callable[[], str], wait_s: float, *, every_s: float = 1.0) -> str:
    """Wait up to `wait_s` for the pod to be isolated. Return what is still open, or nothing."""
    end = time.monotonic() + wait_s
    while found := look():
        if time.monotonic() > end:
            return found
        time.sleep(every_s)
    return ""


def outcome(program: str, timeout_s: float = TIMEOUT_S) -> str:
    """Return `passed`, `timeout`, or the name of the error with which the program ended."""
    word = secrets.token_hex(8)
    reading, writing = os.pipe()
    os.set_blocking(reading, False)  # a child of the program may hold the other end
    try:
        child = subprocess.Popen(
            [sys.executable, "-I", "-B", "-c", _LOADER],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(writing,),
            env={},
            start_new_session=True,
        )
        given = [program, word, writing, int(timeout_s) + 1, MEMORY_BYTES]
        try:
            child.communicate(json.dumps(given).encode(), timeout_s)
        except subprocess.TimeoutExpired:
            return "timeout"
        finally:
            _end(child)
        try:
            said = os.read(reading, 200).decode(errors="replace")
        except BlockingIOError:
            said = ""
    finally:
        os.close(reading)
        os.close(writing)
    if said == word:
        return "passed"
    return said or f"ended with status {child.returncode}"


def _end(child: subprocess.Popen[bytes]) -> None:
    """End the program and everything that it started in its session."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _say(line: Mapping[str, str]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def main() -> int:
    """Run all programs. The exit status is 3 if the pod is not isolated."""
    ctypes.CDLL(None).prctl(4, 0)  # PR_SET_DUMPABLE: no program reads this process, or its output
    programs = unpack(os.environ)
    wait_s = float(os.environ.get(WAIT_ENV, SHUT_WAIT_S))
    if found := wait_until_shut(lambda: opening(os.environ), wait_s):
        _say({"refused": found})
        return 3
    with ThreadPoolExecutor(2) as workers:
        for name, end in zip(programs, workers.map(outcome, programs.values()), strict=True):
            _say({"id": name, "outcome": end})
    return 0


if __name__ == "__main__":
    sys.exit(main())
