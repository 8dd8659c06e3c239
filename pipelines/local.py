"""A run on this machine: Kubeflow's own local runner executes the DAG, each task as a process."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from moaa import home, records, report
from moaa.artifacts import Manifest
from moaa.declaration import Declaration
from moaa.errors import StoreError
from moaa.lifeline import interruptible, runner
from moaa.pipelines.outcome import RunFailed
from moaa.progress.messages import relay, say, shown
from moaa.progress.terminal import out
from moaa.recipe.files import ANYWHERE_ENV
from moaa.recipe.load import Loaded, text_of
from moaa.recipe.schema import Recipe
from moaa.stages.rounds import next_of
from moaa.stages.table import GATE, PREFLIGHT, STAGES_ENV, of_recipe, stages
from moaa.store import Store


def run(loaded: Loaded, until: str | None = None, run_id: str | None = None) -> Path:
    """Run the pipeline, up to `until` if given, and return the report's path.

    A run with the id of an earlier one continues it, like the in-cluster runner in a new pod:
    finished stages are reused, and each stage that runs again overwrites its record. Raises
    RunFailed with the error of the stage that failed.
    """
    run_id = run_id or home.new_id(loaded.recipe.name)
    address = loaded.recipe.store
    run_stages = of_recipe(loaded.recipe, until)
    folder, names = home.HOME / "runs" / run_id, [stage.name for stage in run_stages]
    kubeflow_log, recipe_file = folder / "log.txt", folder / "recipe.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    recipe_file.write_text(loaded.text)
    home.remember(run_id, address.model_dump(exclude_defaults=True))
    with home.s3_environment(address.endpoint_url) as s3, _task_environment(names):
        say(f"run {run_id}   store {address.root} at {s3}   log {kubeflow_log}")
        # The stages are over when `runner` ends: the local S3 must not stop before that.
        with relay(folder / "messages.jsonl") as messages, runner(folder):
            stopped = _rounds(loaded.recipe, recipe_file, run_stages, run_id)
        store = Store.of(address)
        try:
            found = records.read(store, run_id)
        except StoreError as error:
            if not messages.error:
                raise
            raise RunFailed(
                f"{messages.error}\nThere is no report: {error}", outside=messages.outside
            ) from None
        page = folder / "report.html"
        view = report.RunView.of(found, stages())
        page.write_text(report.build(view, store))
    out(f"\n{report.summary(view)}\n\nreport: {page}")
    # An earlier attempt may have gone further: its other stages do not count.
    of_run = [record for record in found if record["stage"] in names]
    broken = records.broken(of_run)
    # If a stage could not write its record, there is only its message.
    unwritten = messages.error if broken and not broken["error"] else ""
    if failure := unwritten or records.failure(of_run):
        raise RunFailed(failure, outside=messages.outside)
    if stopped:
        last_lines = f"{stopped}\nLast lines of {kubeflow_log}:\n{_tail(kubeflow_log)}"
        raise RunFailed(messages.error or last_lines, outside=messages.outside)
    return page


def _rounds(recipe: Recipe, file: Path, stages: Sequence[Declaration], run_id: str) -> str:
    """Run one round after the other while the gate promotes; return why a task failed.

    Kubeflow's local runner does not support conditions inside an exit handler, so each round is a
    DAG.
    """
    folder = file.parent
    while not (stopped := _execute(file, stages, run_id, folder)):
        following = _next(recipe, stages, run_id)
        if following is None:
            break
        recipe, number = following, following.rounds.round
        stages = [stage for stage in stages if stage != PREFLIGHT]
        file = folder / f"recipe-{number}.yaml"
        file.write_text(text_of(recipe))
        say(f"round {number} of at most {recipe.rounds.n}: {recipe.target} takes its place")
    return stopped


def _next(recipe: Recipe, stages: Sequence[Declaration], run_id: str) -> Recipe | None:
    """Return the recipe of the next round; None after the last."""
    if GATE not in stages or recipe.rounds.round == recipe.rounds.n:
        return None
    store = Store.of(recipe.store)
    where = records.address(store, run_id, GATE.name, recipe.rounds.round)
    decided = records.from_json(store.get(where), run_id)["manifest"]
    return next_of(recipe, Manifest.model_validate(decided), store) if decided else None


def _execute(recipe: Path, stages: Sequence[Declaration], run_id: str, folder: Path) -> str:
    """Let Kubeflow run the DAG; return its message if a task failed. Its output goes to log.txt."""
    from kfp import local

    from moaa.pipelines.align import build

    warnings.filterwarnings("ignore", category=RuntimeWarning, module="kfp")
    local.init(
        runner=local.SubprocessRunner(use_venv=False),
        pipeline_root=str(folder / "outputs"),
        raise_on_error=True,
    )
    # Line by line, so that `tail -f` shows what the run does.
    output = (folder / "log.txt").open("a", buffering=1)
    with output, contextlib.redirect_stdout(output):
        try:
            # The file, not its text: Kubeflow's runner would replace `{{$…}}` in it.
            build(str(recipe.absolute()), stages, run_id)()
        except RuntimeError as error:
            return re.sub(r"\x1b\[\d+m", "", str(error))
    return ""


@contextlib.contextmanager
def _task_environment(names: Sequence[str]) -> Iterator[None]:
    """Set the variables that the tasks inherit: the run's stages, the terminal."""
    # The tasks load the same moaa as this process.
    path = [str(Path(report.__file__).parents[2]), os.environ.get("PYTHONPATH")]
    environment = {
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
        STAGES_ENV: ",".join(names),
        # The recipe was checked when it was loaded: its tasks read the files that it names.
        ANYWHERE_ENV: "1",
    }
    visible = shown(logging.INFO) and sys.stderr.isatty() and sys.stdout.isatty()
    if visible:
        environment["MOAA_TTY"] = os.ttyname(sys.stderr.fileno())
    # The tasks notice when their runner stops.
    with interruptible(), home.variables(environment):
        yield


def _tail(path: Path, lines: int = 20) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
