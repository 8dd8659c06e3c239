"""`moaa preflight`, `moaa report`, `moaa runs`: before a run and after it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from moaa.errors import StoreError
from moaa.recipe.load import load_file
from moaa.store import Store

if TYPE_CHECKING:
    from moaa.records import Record


def preflight(file: Path, sets: list[str]) -> None:
    from moaa.stages import preflight as stage
    from moaa.stages.table import of_run

    recipe = load_file(file, sets).recipe
    found = stage.findings(
        recipe,
        Store.of(recipe.store),
        of_run(),
        elsewhere="KUBERNETES_SERVICE_HOST" not in os.environ,
    )
    stage.show(found)
    if bad := sum(not finding.ok for finding in found):
        raise stage.PreflightFailed(f"{bad} of {len(found)} checks failed")


def report(run_id: str, root: str, output: Path) -> None:
    from moaa import records
    from moaa import report as view
    from moaa.stages.table import stages

    store = Store(root)
    found = records.read(store, run_id)
    if not found:
        raise StoreError(
            f"{root}/runs/{run_id} has no records. `moaa runs --root {root}` lists the runs that "
            "there are."
        )
    output.write_text(view.build(view.Run.of(found, stages()), store), encoding="utf-8")
    print(output)


def list_runs(root: str, last: int) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from moaa import records

    store = Store(root)
    runs = f"{store.root}/runs/"
    ids = {uri.removeprefix(runs).split("/")[0] for uri, _ in store.list(runs)}
    found = sorted(
        ((records.read(store, run_id), run_id) for run_id in ids),
        key=lambda run: _started(run[0]),
        reverse=True,
    )
    if not found:
        print(f"no runs below {runs}")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("run", "started (UTC)", "state", "minutes", "stages"):
        table.add_column(title, no_wrap=title != "stages", overflow="fold")
    for stages, run_id in found[:last]:
        minutes = sum(record["seconds"] for record in stages) / 60
        words = ", ".join(f"{record['stage']} {record['status']}" for record in stages)
        table.add_row(
            Text(run_id),
            _started(stages)[:19].replace("T", " "),
            records.run_status(stages),
            f"{minutes:.1f}",
            Text(words),
        )
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def _started(found: Sequence[Record]) -> str:
    return min((record["started"] for record in found), default="")
