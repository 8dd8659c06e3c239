"""`moaa recipe check | show | plan | helm-values`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from moaa.progress.messages import log
from moaa.progress.terminal import console, out, out_data
from moaa.recipe.load import load_file


def check(file: Path, sets: list[str]) -> None:
    """Print that the recipe is correct. Raises RecipeError with every mistake in it."""
    recipe = load_file(file, sets).recipe
    out(
        f"{file}: OK. {recipe.name} aligns {recipe.target}; {len(recipe.models)} model(s); "
        f"results below {recipe.store.root}"
    )


def show(file: Path, sets: list[str], given: bool) -> None:
    """Print every value of the recipe and its origin."""
    rows = [row for row in load_file(file, sets).rows() if not given or row[2] != "default"]
    texts = [(path, json.dumps(value, ensure_ascii=False), where) for path, value, where in rows]
    if not sys.stdout.isatty():
        for row in texts:
            out_data("\t".join(row) + "\n")
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("field", overflow="fold", ratio=5)
    table.add_column("value", overflow="fold", ratio=4)
    table.add_column("from", overflow="fold", ratio=3)
    for path, value, where in texts:
        style = "dim" if where == "default" else ""
        table.add_row(
            Text(path, style=style), Text(_one_line(value), style=style), Text(where, style=style)
        )
    console().print(table)


def show_yaml(file: Path, sets: list[str]) -> None:
    """Print the resolved recipe as YAML."""
    out_data(load_file(file, sets).text)


def show_json(file: Path, sets: list[str]) -> None:
    """Print the resolved recipe as JSON on one line."""
    from moaa.recipe import read

    out_data(read.one_line(read.plain(read.read(load_file(file, sets).text, str(file), []))) + "\n")


def plan(file: Path, sets: list[str]) -> None:
    """Print the calls, tokens, hours and dollars of a run."""
    from moaa.benchmarks import power
    from moaa.plan import of_rounds, table
    from moaa.stages.table import of_recipe

    recipe = load_file(file, sets).recipe
    # A pipe has no width: give the table enough room, and keep each sentence on one line.
    lines = of_rounds(recipe, of_recipe(recipe))
    console().print(table(recipe, lines, power.shown(recipe)))


def helm_values(file: Path, sets: list[str], chart: str) -> None:
    """Print the values of a Helm chart for the recipe."""
    from moaa.placement.helm_values import platform, serving
    from moaa.recipe.read import dump

    recipe = load_file(file, sets).recipe
    if chart == "serving" and recipe.runtime.engines.kind != "kubernetes":
        log.warning(
            f"{file}: runtime.engines.kind is {recipe.runtime.engines.kind}, so its runs start "
            "engines of their own and never use these Deployments. To use them: "
            "--set runtime.engines.kind=kubernetes"
        )
    made = {"serving": serving, "platform": platform}[chart](recipe)
    out(
        f"# Values of moaa-{chart} for {file}, by `moaa recipe helm-values`. What they do not "
        "name has the chart's default."
    )
    if chart == "serving" and any("sizeGib" in model for model in made["models"]):
        out(
            "# sizeGib, from which the time for a start follows, is guessed from each model's name."
        )
    out_data(dump(made))


def _one_line(value: str) -> str:
    return value if len(value) <= 200 else f"{value[:200]}… ({len(value)} characters)"
