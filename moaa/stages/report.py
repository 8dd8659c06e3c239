"""One HTML file about a run, whole or broken, made from the run's records alone."""

from __future__ import annotations

from pathlib import Path

from moaa import report as view
from moaa.errors import MoaaError
from moaa.recipe.load import load
from moaa.stage import read_recipe, records, say
from moaa.store import Store


def main(recipe: str, run_id: str, output: str = "") -> None:
    """Write `<root>/runs/<run id>/report.html` on S3, and at `output`."""
    try:
        store = Store.of(load(read_recipe(recipe)).recipe.store)
        html = view.build(records(store, run_id), store)
        store.put(f"{store.root}/runs/{run_id}/report.html", html.encode())
    except MoaaError as error:
        say(f"report failed: {error}")
        raise SystemExit(1) from None
    if output:
        Path(output).write_text(html)
