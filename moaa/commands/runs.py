"""`moaa preflight`, `moaa runs` and `moaa report`: before a run and after it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from moaa import home, records
from moaa.errors import StoreError
from moaa.progress.terminal import console, out
from moaa.recipe.load import load_file
from moaa.recipe.schema import StoreAddress
from moaa.records import Record
from moaa.store import Store
from moaa.store.address import split


def preflight(file: Path, sets: Sequence[str]) -> None:
    """Print each check of what would make a run fail. Raises PreflightFailed if one failed."""
    from moaa.stages import preflight as stage
    from moaa.stages.table import of_run

    recipe = load_file(file, sets).recipe
    found = stage.findings(
        recipe,
        Store.of(recipe.store),
        of_run(recipe),
        elsewhere="KUBERNETES_SERVICE_HOST" not in os.environ,
    )
    stage.show(found)
    if bad := sum(not finding.ok for finding in found):
        raise stage.PreflightFailed(f"{bad} of {len(found)} checks failed")


def report(run_id: str | None, recipe: Path | None, root: str | None, output: Path) -> None:
    """Write the report of the given run, else of the last one."""
    from moaa.report import RunView, build
    from moaa.stages.table import stages

    with chosen_run(run_id, recipe, root) as (store, _, found):
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(build(RunView.of(found, stages()), store), encoding="utf-8")
    out(str(output))


@contextmanager
def chosen_run(
    run_id: str | None, recipe: Path | None, root: str | None
) -> Iterator[tuple[Store, str, list[Record]]]:
    """Yield the store, the id and the records of the given run, else of the last one.

    Raises StoreError if it has no records.
    """
    last = _last_run(recipe, root)
    with _store(recipe, root, last) as store:
        chosen = run_id or (last.run_id if last else _newest(store))
        if not (found := records.read(store, chosen)):
            raise StoreError(
                f"{store.root}/runs/{chosen} has no records. "
                f"`moaa runs --root {store.root}` lists all runs."
            )
        yield store, chosen, found


@contextmanager
def chosen_store(recipe: Path | None, root: str | None) -> Iterator[Store]:
    """Yield the store of this address, of this recipe, or of the last run.

    Raises StoreError if none of them is known.
    """
    with _store(recipe, root, _last_run(recipe, root)) as store:
        yield store


def list_runs(recipe: Path | None, root: str | None, last: int) -> None:
    """Print the newest runs of a store, and how each ended."""
    from rich.table import Table
    from rich.text import Text

    with _store(recipe, root, _last_run(recipe, root)) as store:
        found = _all_runs(store)
    if not found:
        out(f"no runs below {store.root}/runs/")
        return
    now = datetime.now(UTC)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("run", "started (UTC)", "state", "minutes", "stages"):
        table.add_column(title, no_wrap=title != "stages", overflow="fold")
    for run_id, stages in found[:last]:
        minutes = sum(record["seconds"] for record in stages) / 60
        words = ", ".join(f"{record['stage']} {record['status']}" for record in stages)
        started = _started(stages)[:19].replace("T", " ")
        table.add_row(
            Text(run_id),
            started,
            records.run_status(stages, now=now),
            f"{minutes:.1f}",
            Text(words),
        )
    console().print(table)


def _last_run(recipe: Path | None, root: str | None) -> home.LastRun | None:
    """Return the last run from this folder, unless a recipe or an address says where to look.

    Raises StoreError if there was none.
    """
    if recipe is not None or root is not None:
        return None
    if last := home.last_run():
        return last
    raise StoreError(
        f"No run was started from this folder ({home.HOME / 'last.json'} does not exist). Give "
        "--recipe RECIPE, or --root s3://BUCKET/PREFIX."
    )


@contextmanager
def _store(recipe: Path | None, root: str | None, last: home.LastRun | None) -> Iterator[Store]:
    """Yield the store of this address, of this recipe, or of the last run;
    start the local one if needed."""
    address = _address(recipe, root, last)
    named = home.named_s3(address.get("endpoint_url"))
    if last and not named and last.s3 != home.LOCAL:
        raise StoreError(
            f"The results of the last run ({last.run_id}) are in the S3 at {last.s3}, but the "
            "environment does not name it. Set AWS_ENDPOINT_URL_S3, AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY as for the run."
        )
    if not named and not (home.HOME / "s3").exists():
        if root is None:
            raise StoreError(
                f"The environment names no S3, and there is no local one ({home.HOME / 's3'}) in "
                "this folder. Set AWS_ENDPOINT_URL_S3, AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, or change to the folder of the run."
            )
        yield Store.of(
            StoreAddress.model_validate(address)
        )  # boto3 may have keys: a profile, a role
        return
    with home.s3_environment(address.get("endpoint_url")):
        yield Store.of(StoreAddress.model_validate(address))


def _address(recipe: Path | None, root: str | None, last: home.LastRun | None) -> dict[str, Any]:
    """Return the arguments of the `Store` to look in. An address goes before a recipe.

    Raises StoreError for an address that is not one.
    """
    if root is not None:
        split(root)  # before a local S3 is started for it
        return {"root": root}
    if recipe is not None:
        return load_file(recipe).recipe.store.model_dump(exclude_defaults=True)
    assert last is not None
    return {**last.store, "root": last.root}


def _all_runs(store: Store) -> list[tuple[str, list[Record]]]:
    """Each run's id and records, the newest first."""
    below = f"{store.root}/runs/"
    ids = {uri.removeprefix(below).split("/")[0] for uri, _ in store.list(below)}
    found = [(run_id, records.read(store, run_id)) for run_id in ids]
    return sorted(found, key=lambda run: _started(run[1]), reverse=True)


def _newest(store: Store) -> str:
    found = _all_runs(store)
    if not found:
        raise StoreError(f"There are no runs below {store.root}/runs/.")
    return found[0][0]


def _started(found: Sequence[Record]) -> str:
    return min((record["started"] for record in found), default="")
