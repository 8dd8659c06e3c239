"""How many requests a server gets at the same time, and how many conversations keep it busy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from moaa.recipe.engine_args import named
from moaa.recipe.serving import Runtime

CPU_SEQS: Final = 64
"""Requests that an engine on a CPU works on at the same time: half as many keep two cores busy."""
GPU_SEQS: Final = 256
"""vLLM's own limit on most GPUs. On GPUs of 70 GiB and more, except the A100, it is `MOST`."""
MOST: Final = 1024
ENDPOINT: Final = 64
"""For a server that moaa did not start: others may use it too."""
CONVERSATIONS: Final = 4
"""Conversations in progress for each request that a model's servers accept: each conversation asks
several models, and rarely two at the same time."""


@dataclass(frozen=True, slots=True)
class Places:
    """A server's places for requests: `first`, and later up to `most`.

    `follows`: their number follows the engine's load (see `moaa.chat.pacing`).
    """

    first: int
    most: int
    follows: bool


def max_num_seqs(args: Sequence[str]) -> int | None:
    """Return vLLM's `--max-num-seqs` if these arguments have it; the last one counts."""
    found = None
    for name, values in named(args):
        if name == "--max-num-seqs" and values and values[0].isdecimal():
            found = int(values[0])
    return found


def places(
    runtime: Runtime, device: Literal["cuda", "cpu", "endpoint"], seqs: int | None = None
) -> Places:
    """Return the places of a server on such a device. `seqs`: its own `--max-num-seqs`, if known.

    `runtime.calls.in_flight` is used unchanged. Without it, our own engine gets as many requests as
    it works on, and on GPUs the number follows its load.
    """
    if given := runtime.calls.in_flight:
        return Places(given, given, follows=False)
    if device == "endpoint":
        return Places(ENDPOINT, ENDPOINT, follows=True)
    if device == "cpu":
        limit = seqs or CPU_SEQS
        return Places(limit, limit, follows=False)
    return Places(seqs or GPU_SEQS, seqs or MOST, follows=True)


def window(runtime: Runtime, servers: int) -> int:
    """Return how many conversations run at the same time. `servers`: the places of all servers of
    the model with the most."""
    return runtime.calls.window or CONVERSATIONS * max(CPU_SEQS, servers)
