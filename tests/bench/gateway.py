"""The gateway beside a direct connection and two other routers: what it adds, and what it costs.

    python -m tests.bench.gateway [--rounds 2] [--seconds 10] [--only moaa vllm-router smg]

The proxy has one core to itself; the engine and the clients share the other. Both are run before
everything else on the machine (SCHED_FIFO) if that is allowed, in slices of a few seconds. Each
round measures all proxies in turn, "direct" beside them:

1 stream    short streams one after the other: time to the first chunk
1,000       streams of 5 s arrive at 200/s, so that 1,000 are in flight: time to the first chunk
10k/s       1,000 streams with 10 chunks a second each: chunks, CPU and memory of the proxy

The two routers come as wheels from PyPI, into an environment of their own (.cache/bench-gateway).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import uvloop

from tests.bench.client import _commit, _cpu
from tests.support.clients import free_port
from tests.support.paths import ROOT
from tests.support.sse_load import Seen, arriving, one_by_one
from tests.support.waiting import until

ROUTERS = ROOT / ".cache" / "bench-gateway"
WHEELS = ("vllm-router==0.1.17", "smg==1.13.0")
STREAMS = 1_000
WARM_S = 1.5


@dataclass
class Figures:
    """What was measured of one proxy, over all rounds."""

    alone: list[float] = field(default_factory=list)
    many: list[float] = field(default_factory=list)
    later: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    cores: list[float] = field(default_factory=list)
    rss_mib: float = 0.0
    streams: int = 0
    errors: int = 0

    def add(self, seen: Seen) -> None:
        self.streams += seen.streams
        self.errors += seen.errors


def commands(port: int, upstream: str, folder: Path) -> dict[str, list[str]]:
    """How each proxy is started."""
    config = {
        "port": port,
        "metrics_port": None,
        "anonymous": True,
        "models": {"m": {"endpoints": [f"{upstream}/v1"]}},
    }
    (folder / "gateway.json").write_text(json.dumps(config))
    ours = [sys.executable, "-m", "moaa.cli", "gateway", str(folder / "gateway.json")]
    where = ["--worker-urls", upstream, "--host", "127.0.0.1", "--port", str(port)]
    policy = ["--policy", "round_robin"]
    return {
        "moaa": ours,
        "vllm-router": [str(ROUTERS / "bin" / "vllm-router"), *where, *policy],
        "smg": [str(ROUTERS / "bin" / "smg"), "launch", *where, *policy],
    }


def install_routers() -> None:
    """Install the two routers, once."""
    if all((ROUTERS / "bin" / name).exists() for name in ("vllm-router", "smg")):
        return
    uv = ROOT / ".venv-boot" / "bin" / "uv"
    command = [str(uv)] if uv.exists() else [shutil.which("uv") or "uv"]
    subprocess.run([*command, "venv", "-q", "--clear", str(ROUTERS)], check=True)
    python = str(ROUTERS / "bin" / "python")
    subprocess.run([*command, "pip", "install", "-q", "--python", python, *WHEELS], check=True)


@contextmanager
def running(command: list[str], core: int, port: int, log: Path) -> Iterator[int]:
    """A process on this core, once it listens; its id."""
    with log.open("w") as out:
        process = subprocess.Popen(
            ["taskset", "-c", str(core), *command], stdout=out, stderr=out, start_new_session=True
        )
    try:
        until(lambda: _answers(port), f"{command[0]} ({log})", timeout_s=90, every_s=0.1)
        yield process.pid
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def _answers(port: int) -> bool:
    try:
        seen = uvloop.run(asyncio.wait_for(one_by_one(port, 1), 5))
    except TimeoutError:
        return False
    return not seen.errors


def first(pids: list[int], on: bool) -> bool:
    """Let these processes run before all others; return whether that is allowed."""
    policy, priority = (os.SCHED_FIFO, 1) if on else (os.SCHED_OTHER, 0)
    try:
        for pid in pids:
            for task in Path(f"/proc/{pid}/task").iterdir():
                os.sched_setscheduler(int(task.name), policy, os.sched_param(priority))
    except (PermissionError, ProcessLookupError):
        return False
    return True


def cpu_s(pid: int) -> float:
    """Seconds of CPU of a process, all its threads."""
    spent = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        spent += int((task / "schedstat").read_text().split()[0])
    return spent / 1e9


def rss_mib(pid: int) -> float:
    """The most memory that a process had."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


async def measure(port: int, pid: int | None, seconds: float, figures: Figures) -> None:
    """One round of one proxy; without `pid` it is the direct connection."""
    await one_by_one(port, 20)
    seen = await one_by_one(port, 200)
    figures.add(seen)
    figures.alone += seen.first
    seen = await arriving(port, STREAMS / 5, 5 + seconds, chunks=10, every_ms=500)
    figures.add(seen)
    figures.many += seen.first[STREAMS:]
    seen = Seen()
    streams = asyncio.create_task(
        arriving(port, STREAMS, 1, chunks=int(seconds * 10), every_ms=100, seen=seen)
    )
    await asyncio.sleep(WARM_S)  # all of them have begun
    start, spent, received = time.perf_counter(), cpu_s(pid) if pid else 0.0, seen.received
    del seen.chunks[:]
    await asyncio.sleep(seconds - 1 - WARM_S)
    took_s = time.perf_counter() - start
    figures.rates.append((seen.received - received) / took_s)
    figures.later += seen.chunks
    if pid:
        figures.cores.append((cpu_s(pid) - spent) / took_s)
    await streams
    figures.add(seen)
    if pid:
        figures.rss_mib = max(figures.rss_mib, rss_mib(pid))


def row(name: str, figures: Figures, direct: Figures) -> str:
    """One line of the table."""

    def added(own: list[float], base: list[float]) -> str:
        return f"{median(own) - median(base):>+8.2f}{at(own, 0.99) - at(base, 0.99):>+8.2f}"

    shown = added(figures.alone, direct.alone) + added(figures.many, direct.many)
    cores = f"{sum(figures.cores) / len(figures.cores):>8.0%}" if figures.cores else f"{'-':>8}"
    rate = sum(figures.rates) / len(figures.rates)
    return (
        f"{name:<12}{shown}{rate:>10,.0f}{cores}{figures.rss_mib:>8.0f}"
        f"{at(figures.later, 0.5):>9.2f}{at(figures.later, 0.99):>8.2f}"
        f"{figures.errors:>6} of {figures.streams}"
    )


def at(values: list[float], share: float) -> float:
    """The value below which this share of them is."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=2)
    options.add_argument("--seconds", type=float, default=10)
    options.add_argument("--only", nargs="*", default=["moaa", "vllm-router", "smg"])
    given = options.parse_args()
    if {"vllm-router", "smg"} & set(given.only):
        install_routers()
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[0]})
    folder = ROOT / ".cache" / "bench-gateway-run"
    folder.mkdir(parents=True, exist_ok=True)
    found = {name: Figures() for name in ("direct", *given.only)}
    with ExitStack() as stack:
        engine = subprocess.Popen(
            [sys.executable, "-m", "tests.support.sse_load"], stdout=subprocess.PIPE, text=True
        )
        stack.callback(engine.wait)
        stack.callback(engine.kill)
        assert engine.stdout is not None
        direct = int(engine.stdout.readline())
        alone = first([engine.pid, os.getpid()], on=True)
        first([engine.pid, os.getpid()], on=False)
        print(
            f"{_cpu()}, {len(cores)} cores, load {os.getloadavg()[0]:.1f}, commit {_commit()}, "
            f"{'before all other processes' if alone else 'among the other processes'}"
        )
        for _ in range(given.rounds):
            _measured(None, direct, [engine.pid], given.seconds, found["direct"])
            for name in given.only:
                port = free_port()
                command = commands(port, f"http://127.0.0.1:{direct}", folder)[name]
                with running(command, cores[-1], port, folder / f"{name}.log") as pid:
                    _measured(pid, port, [engine.pid, pid], given.seconds, found[name])
    base = found["direct"]
    print(
        f"direct: time to the first chunk {median(base.alone):.2f} ms at 1 stream, "
        f"{median(base.many):.2f} ms (p99 {at(base.many, 0.99):.2f}) at {STREAMS} in flight"
    )
    print(
        f"{'':<12}{'added ms, 1 stream':>16}{'  added ms, 1,000':>16}{'':>10}  at 10,000 chunks/s"
    )
    print(
        f"{'':<12}{'p50':>8}{'p99':>8}{'p50':>8}{'p99':>8}{'chunks/s':>10}{'core':>8}{'MiB':>8}"
        f"{'lat p50':>9}{'p99':>8}{'errors':>8}"
    )
    for name, figures in found.items():
        print(row(name, figures, base))


def _measured(
    pid: int | None, port: int, pids: list[int], seconds: float, figures: Figures
) -> None:
    first([*pids, os.getpid()], on=True)
    try:
        uvloop.run(measure(port, pid, seconds, figures))
    finally:
        first([*pids, os.getpid()], on=False)


if __name__ == "__main__":
    main()
