"""A training on this machine: torchrun as a child process, on cores of its own, gone when we are
gone."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from moaa.engines import cores, guard
from moaa.errors import TrainError
from moaa.ledger import Ledger
from moaa.progress import Progress
from moaa.recipe.schema import Pool, Runtime
from moaa.train.job import Job
from moaa.train.log_reader import Listener
from moaa.train.ranks import CORES

GRACE_S = 8
_FOLDER = "moaa-train-"


def start(
    job: Job, runtime: Runtime, pools: Mapping[str, Pool], ledger: Ledger, progress: Progress
) -> None:
    """Train with `launcher.ranks` ranks here. Raises what the training failed of."""
    launcher = runtime.launcher
    if launcher.nodes != 1:
        raise TrainError(
            f"runtime.launcher.nodes is {launcher.nodes}, but kind 'process' trains on this "
            "machine alone. Set nodes to 1."
        )
    missing = [
        name for name in ("torch", "trl", "deepspeed") if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise TrainError(
            f"Training needs {' and '.join(missing)}, not installed here: pip install "
            "'moaa[train]'."
        )
    _sweep()
    with _cores(job, launcher.ranks, progress) as mine:
        folder = Path(tempfile.mkdtemp(prefix=f"{_FOLDER}{os.getpid()}-"))
        log, scratch, job_file = folder / "log.txt", folder / "tmp", folder / "job.json"
        status = 0
        try:
            scratch.mkdir()
            job_file.write_text(job.model_dump_json())
            environment = {
                **os.environ,
                "TMPDIR": str(scratch),
                "PYTHONUNBUFFERED": "1",
                "TOKENIZERS_PARALLELISM": "false",
                "HF_HUB_DISABLE_PROGRESS_BARS": "1",
                "TQDM_DISABLE": "1",
                CORES: ",".join(map(str, mine)),
                "OMP_NUM_THREADS": str(max(1, len(mine or cores.available()) // launcher.ranks)),
            }
            listener = Listener(progress)
            status = _follow(
                torchrun(launcher.ranks, job.kind, str(job_file)), environment, listener, log
            )
            if status:
                raise listener.failure(status, str(log))
        finally:
            shutil.rmtree(
                scratch if status else folder, ignore_errors=True
            )  # the log of a failure stays: the error names it


def _sweep() -> None:
    """Remove what launchers that were killed have left: their scratch may hold checkpoints of
    gigabytes. Logs stay."""
    for scratch in Path(tempfile.gettempdir()).glob(f"{_FOLDER}*-*/tmp"):
        pid = scratch.parent.name.removeprefix(_FOLDER).split("-")[0]
        if pid.isdecimal() and not Path("/proc", pid).exists():
            shutil.rmtree(scratch, ignore_errors=True)


def torchrun(ranks: int, kind: str, job: str) -> list[str]:
    """The command that trains on this machine."""
    run = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(ranks),
    ]
    return [*run, "-m", "moaa.train", kind, "--job", job]


def _follow(command: list[str], environment: dict[str, str], listener: Listener, log: Path) -> int:
    """Run to the end, under a guard that takes the whole family down with it. Returns the exit
    status."""
    guarded = [sys.executable, "-S", guard.__file__, str(os.getpid()), str(GRACE_S), *command]
    child = subprocess.Popen(
        guarded,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    assert child.stdout is not None
    try:
        with log.open("w") as kept:
            for line in child.stdout:
                kept.write(line)
                kept.flush()
                listener.line(line)
        return child.wait()
    finally:
        if child.poll() is None:
            child.terminate()
            child.wait()
        child.stdout.close()


def _cores(job: Job, ranks: int, progress: Progress) -> AbstractContextManager[list[int]]:
    """As many cores as the ranks can share evenly; none are held where a GPU does the work."""
    if job.device == "cuda" or (job.device == "auto" and any(Path("/dev").glob("nvidia[0-9]*"))):
        return nullcontext([])
    there = len(cores.available())
    if ranks > there:
        raise TrainError(
            f"runtime.launcher.ranks is {ranks}, but this machine has {there} cores: ranks on the "
            "same core would wait for each "
            f"other all the time. Set it to {there} or less."
        )
    return cores.reserve(there // ranks * ranks, f"training {job.kind}", progress.note)
