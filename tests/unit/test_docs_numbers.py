"""Numbers in the documentation are those that the code computes, or that benchmarks/ holds."""

from __future__ import annotations

import json
import re

import pytest

from moaa.benchmarks.power import CHANGED
from moaa.gate.decision import VERDICT_SD
from moaa.plan import lines
from moaa.plan.sizing import sizing
from moaa.recipe.load import load_file
from moaa.stages.table import stages
from moaa.statistics import WIN_SD, detectable_difference, paired_sd, required_n
from tests.support.paths import PAPER, ROOT


def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def table(page: str, head: str) -> list[list[str]]:
    """The cells of the rows of the page's table whose first line begins with `head`."""
    rows = re.split(r"\n\n", text(page).partition(f"\n{head}")[2])[0].splitlines()[2:]
    assert rows, f"{page} has no table that begins with {head}"
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_the_gpus_of_the_papers_recipe_are_those_of_its_plan() -> None:
    recipe = load_file(PAPER).recipe
    computed = {each.stage: each for each in sizing(recipe, lines(recipe, stages()))}
    shown = table("docs/cluster.md", "| stage | together: GPUs, hours")
    assert [row[0].split(" (")[0] for row in shown] == list(computed)
    for name, together, by_turns in shown:
        stage = computed[name.split(" (")[0]]
        for cell, gpus, hours in (
            (together, stage.gpus, stage.hours),
            (by_turns, stage.gpus_by_turns, stage.hours_by_turns),
        ):
            expected = together if cell == "the same" else cell
            digits = len(expected.partition(".")[2])
            assert expected == f"{gpus}, {hours:.{digits}f}", name


def test_what_an_evaluation_can_show_is_what_the_statistics_say() -> None:
    for items, *shown in table("docs/results.md", "| items (as many as"):
        n = int(items.split(" (")[0].replace(",", ""))
        wins, soft = (50 + 100 * detectable_difference(n, sd) for sd in (WIN_SD, VERDICT_SD))
        margin = 100 * detectable_difference(n, paired_sd(CHANGED), one_sided=True)
        assert shown == [f"{wins:.1f} %", f"{soft:.1f} %", f"{margin:.1f} points"], items
    needed, soft_needed = required_n(0.05, WIN_SD), required_n(0.05, VERDICT_SD)
    assert f"would show it: {needed} for a win rate of 55 %" in text("docs/results.md")
    assert f"{soft_needed} instead of {needed} for 55 %" in text("docs/results.md")


def test_the_win_rates_of_the_benchmarks_page_are_those_of_the_table() -> None:
    rates = {row[0].split(" (")[0]: row[1] for row in table("docs/results.md", "| items (as many")}
    page = " ".join(text("docs/benchmarks.md").split())
    assert f"shown from {rates['80']} on, with 805 prompts from {rates['805']} on" in page


@pytest.mark.parametrize("field", ["tokens/s", "MFU"])
def test_the_speeds_of_the_gpu_page_were_measured(field: str) -> None:
    parts = json.loads(text("benchmarks/gpu-nvidia-h200.json"))["parts"].values()
    keys = ("tokens_per_s", "default_tokens_per_s") if field == "tokens/s" else ("mfu",)
    measured = [part[key] for part in parts for key in keys if part.get(key)]
    column = {"tokens/s": 1, "MFU": 2}[field]
    cells = [row[column] for row in table("docs/gpu.md", "| what | tokens/s | MFU |")]
    for cell in filter(None, cells):
        if field == "tokens/s":
            expected = {f"{round(each, -2):,.0f}" for each in measured}
        else:
            expected = {f"{each:.0%}".replace("%", " %") for each in measured}
        assert cell in expected, cell


def test_the_gateways_size_was_measured() -> None:
    rows = text("benchmarks/epyc-2-cores-bf16.md")
    (gateway,) = re.findall(r"^\| moaa gateway \|.*$", rows, re.MULTILINE)
    (size,) = re.findall(r"^\| gateway \| (.*) \|$", text("docs/serving.md"), re.MULTILINE)
    assert re.findall(r"\d+ % of a core|\d+ MiB", size)[:2] == re.findall(
        r"\d+ % of a core|\d+ MiB", gateway
    )
    new = re.search(r"(\d+) new streams a second take (\d+ % of a core)", size)
    assert new
    assert f"{new[1]} a second with two chunks each take {new[2]}" in " ".join(rows.split())
