"""A training on this machine: torchrun as a child process that stops when we stop."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Final, Literal

from moaa.engines import cores, devices, guard
from moaa.errors import TrainError
from moaa.ledger import Ledger
from moaa.packages import install_command
from moaa.progress import Progress
from moaa.recipe.schema import Launcher
from moaa.train import disk, ranks
from moaa.train.job import Job, Launch
from moaa.train.log_reader import LogReader

PACKAGES: Final = ("torch", "trl", "deepspeed")
GRACE_S: Final = 8
_FOLDER: Final = "moaa-train-"


def start(launch: Launch, ledger: Ledger, progress: Progress) -> None:
    """Train with `launcher.ranks` ranks here. Raises the reason if the training failed."""
    job, launcher = launch.job, launch.launcher
    check_packages(PACKAGES)
    check_nodes(launcher)
    check_ranks(launcher.ranks, job.device)
    _delete_leftovers()
    with _reserved_cores(job, launcher.ranks, progress) as mine:
        folder = Path(tempfile.mkdtemp(prefix=f"{_FOLDER}{os.getpid()}-"))
        log, scratch, job_file = folder / "log.txt", folder / "tmp", folder / "job.json"
        status = 0
        try:
            with disk.named(folder):
                scratch.mkdir()
                job_file.write_text(job.model_dump_json())
            reader = LogReader(progress)
            command = torchrun(launcher.ranks, job.kind, str(job_file))
            status = _run(command, _environment(launch, scratch, mine, launcher.ranks), reader, log)
            if status:
                raise reader.explain(status, str(log))
        finally:
            # The log of a failed training stays: the error names it.
            shutil.rmtree(scratch if status else folder, ignore_errors=True)


def check_packages(packages: Sequence[str]) -> None:
    """Check that the packages are installed. Raises TrainError if one is not."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise TrainError(
            f"Training needs {' and '.join(missing)}, not installed here: "
            f"{install_command('moaa[train]')}"
        )


def check_nodes(launcher: Launcher) -> None:
    """Check the recipe. Raises TrainError if it wants more than one node."""
    if launcher.nodes != 1:
        raise TrainError(
            f"runtime.launcher.nodes is {launcher.nodes}, but kind 'process' trains on this "
            "machine only. Set nodes to 1, or runtime.launcher.kind to 'trainer' or 'job'."
        )


def check_ranks(count: int, device: str) -> None:
    """Check that this machine has a GPU or a core for each rank. Raises TrainError if not."""
    unit, there = room_for_ranks(device)
    if count <= there:
        return
    if not there:
        remedy = "Set runtime.launcher.device to cpu, or run on a machine with GPUs."
    elif unit == "cores":
        remedy = f"Ranks on the same core would slow each other down. Set it to {there} or less."
    else:
        remedy = f"Set it to {there} or less."
    raise TrainError(
        f"runtime.launcher.ranks is {count}, but this machine has {there} {unit}. {remedy}"
    )


def room_for_ranks(device: str) -> tuple[Literal["GPUs", "cores"], int]:
    """Return what each rank needs (a GPU or a core), and how many of these the machine has."""
    gpus = len(devices.visible_gpus())
    if device == "cuda" or (device == "auto" and gpus):
        return "GPUs", gpus
    return "cores", len(cores.available())


def torchrun(ranks: int, kind: str, job: str) -> list[str]:
    """Return the command that trains on this machine."""
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return [*run, "--nproc-per-node", str(ranks), "-m", "moaa.train", kind, "--job", job]


_SECRET: Final = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|API_?KEY|ACCESS_KEY|_KEY$|_PAT$")
_OF_STORE_AND_HUB: Final = re.compile(r"AWS_.*|HF_.*|HUGGING_?FACE.*")


def own_environment(given: Mapping[str, str], launch: Launch) -> dict[str, str]:
    """Return the variables of `given` that a training may see: without the keys of others.

    Of the variables whose names look like secrets, it gets those of the store and the hub, and
    those in `runtime.secret_envs`. It never sees the endpoints' API keys.
    """
    store = launch.job.store
    named = {store.access_key_env, store.secret_key_env, *launch.runtime.secret_envs}
    return {
        name: value
        for name, value in given.items()
        if name in named or _OF_STORE_AND_HUB.fullmatch(name) or not _SECRET.search(name.upper())
    }


def _environment(launch: Launch, scratch: Path, mine: Sequence[int], count: int) -> dict[str, str]:
    return {
        **own_environment(os.environ, launch),
        **ranks.ENVIRONMENT,
        "TMPDIR": str(scratch),
        ranks.CORES: ",".join(map(str, mine)),
        "OMP_NUM_THREADS": str(max(1, len(mine or cores.available()) // count)),
    }


def _reserved_cores(
    job: Job, count: int, progress: Progress
) -> AbstractContextManager[Sequence[int]]:
    """Reserve as many cores as the ranks can share evenly; none if GPUs do the work."""
    unit, there = room_for_ranks(job.device)
    if unit == "GPUs":
        return nullcontext(())
    return cores.reserve(there // count * count, f"training {job.kind}", progress.note)


def _delete_leftovers() -> None:
    """Delete the scratch folders of killed launchers: they may contain checkpoints of gigabytes.
    Their logs stay."""
    for scratch in Path(tempfile.gettempdir()).glob(f"{_FOLDER}*-*/tmp"):
        pid = scratch.parent.name.removeprefix(_FOLDER).split("-")[0]
        if pid.isdecimal() and not Path("/proc", pid).exists():
            shutil.rmtree(scratch, ignore_errors=True)


def _run(command: list[str], environment: dict[str, str], reader: LogReader, log: Path) -> int:
    """Run the command to its end and return its exit status. A guard stops it, with all its
    children, when this process stops."""
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
                # A full disk loses the log, not the training.
                with suppress(OSError):
                    kept.write(line)
                    kept.flush()
                reader.read(line)
        return child.wait()
    finally:
        if child.poll() is None:
            child.terminate()
            child.wait()
        child.stdout.close()
