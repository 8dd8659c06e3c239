"""A pipeline run on this machine: Kubeflow's own local runner executes the same DAG, each task a
process of its own."""

from __future__ import annotations

import contextlib
import io
import os
import re
import secrets
import signal
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from moaa import records, report
from moaa.errors import MoaaError
from moaa.recipe.load import Loaded
from moaa.stages.table import STAGES_ENV, stages, up_to
from moaa.store import Store
from pipelines.align import build

HOME = Path(".moaa")
"""Logs, reports and the local store, below the working directory."""


class RunFailed(MoaaError):
    """A stage failed; the message is its own."""


def new_id(name: str) -> str:
    """Identity of a run of the recipe `name`: lower case, at most 61 characters, so that a Job can
    be called so."""
    return f"{name}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


def run(loaded: Loaded, until: str, run_id: str | None = None) -> Path:
    """Run the pipeline up to `until`; gives the report's path. Raises RunFailed with the failed
    stage's own error.

    A run that was here before goes on under its id, as the in-cluster runner's does in another pod:
    what is finished is reused, and each stage that runs again overwrites its record.
    """
    run_id = run_id or new_id(loaded.recipe.name)
    folder, own = HOME / "runs" / run_id, up_to(until)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(loaded.text)
    with (
        store_environment() as where,
        _environment([stage.name for stage in own], folder / "recipe.yaml"),
    ):
        print(
            f"run {run_id}   store {loaded.recipe.store.root} at {where}   log "
            f"{folder / 'log.txt'}",
            flush=True,
        )
        failure = _execute(loaded.text, until, run_id, folder)
        store = Store.of(loaded.recipe.store)
        found = records.read(store, run_id)
        page = folder / "report.html"
        view = report.Run.of(found, stages())
        page.write_text(report.build(view, store))
    print(f"\n{report.summary(view)}\n\nreport: {page}", flush=True)
    names = {stage.name for stage in own}  # an earlier attempt may have gone further
    if error := records.failure([record for record in found if record["stage"] in names]):
        raise RunFailed(error)
    if failure:
        raise RunFailed(
            f"{failure}\nLast lines of {folder / 'log.txt'}:\n{_tail(folder / 'log.txt')}"
        )
    return page


@contextlib.contextmanager
def store_environment() -> Iterator[str]:
    """The S3 that the environment names; a SeaweedFS below `.moaa/s3`, started for this run, where
    it names none."""
    if (
        os.environ.get("AWS_ENDPOINT_URL_S3")
        or os.environ.get("AWS_ENDPOINT_URL")
        or os.environ.get("AWS_ACCESS_KEY_ID")
    ):
        yield os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "AWS"
        return
    from moaa.store import local as local_s3

    with local_s3.serve(HOME / "s3") as environment, _set(environment):
        yield f"{environment['AWS_ENDPOINT_URL_S3']} (local SeaweedFS, {HOME / 's3'}; no S3 is named in the environment)"


def _execute(recipe: str, until: str, run_id: str, folder: Path) -> str:
    """Let Kubeflow run the DAG; its message where a task failed, else nothing. All output goes to
    the log."""
    from kfp import local

    warnings.filterwarnings("ignore", category=RuntimeWarning, module="kfp")
    local.init(
        runner=local.SubprocessRunner(use_venv=False),
        pipeline_root=str(folder / "outputs"),
        raise_on_error=True,
    )
    with (folder / "log.txt").open("a") as log, contextlib.redirect_stdout(_Log(log, sys.stdout)):
        try:
            build(recipe, up_to(until), run_id)()
        except RuntimeError as error:
            return re.sub(r"\x1b\[\d+m", "", str(error))
    return ""


class _Log(io.TextIOBase):
    """Writes all to the log; to the terminal only what the stages say (lines that begin with a
    stage's name), not Kubeflow.

    Where the terminal is one (MOAA_TTY), the stages draw on it themselves, so nothing is echoed.
    """

    SAID = re.compile(
        rf"({'|'.join(stage.name for stage in stages())})(  |: (?!\w+\( name=)| failed: | was )"
    )

    def __init__(self, log: Any, terminal: Any) -> None:
        self._log, self._terminal, self._line = log, terminal, ""

    def write(self, text: str) -> int:
        self._log.write(text)
        self._log.flush()
        *lines, self._line = (self._line + text).split("\n")
        for line in map(
            str.lstrip, lines
        ):  # Kubeflow indents what a task prints, by the depth of its DAG
            if self.SAID.match(line) and "MOAA_TTY" not in os.environ:
                print(line, file=self._terminal, flush=True)
        return len(text)


@contextlib.contextmanager
def _environment(stages: Sequence[str], recipe: Path) -> Iterator[None]:
    """What the tasks inherit: whose end is theirs, where the packages are, how far the run goes,
    which terminal to draw on."""
    path = os.pathsep.join(filter(None, [str(Path.cwd()), os.environ.get("PYTHONPATH")]))
    environment = {
        "MOAA_RUNNER": str(os.getpid()),
        "MOAA_RECIPE": str(recipe),
        "PYTHONPATH": path,
        STAGES_ENV: ",".join(stages),
    }
    if sys.stderr.isatty() and sys.stdout.isatty():
        environment["MOAA_TTY"] = os.ttyname(sys.stderr.fileno())
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        with _set(environment):
            yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _interrupt(signum: int, frame: object) -> None:
    """SIGTERM ends the run as Ctrl-C does; the tasks notice that their runner is gone, and end too."""
    raise KeyboardInterrupt


@contextlib.contextmanager
def _set(environment: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _tail(path: Path, lines: int = 20) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
