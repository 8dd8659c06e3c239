"""The command line: what each command prints, and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from moaa import __version__
from moaa.commands import recipes
from moaa.recipe.load import load_file, load_text
from tests.support.cli import DEMO, called, commands, moaa

pytestmark = pytest.mark.usefixtures("in_the_repository")


def test_a_resolved_recipe_stands_alone(tmp_path: Path) -> None:
    """As a parameter of a pipeline it cannot extend a file."""
    (tmp_path / "mine.yaml").write_text(f"extends: {Path(DEMO).absolute()}\nname: mine\n")
    done = moaa("recipe", "show", str(tmp_path / "mine.yaml"), "--yaml", "--set", "dpo.beta=0.5")
    assert done.returncode == 0, done.stderr
    recipe = load_text(done.stdout).recipe
    assert (recipe.name, recipe.dpo.beta, recipe.target) == (
        "mine",
        0.5,
        load_file(DEMO).recipe.target,
    )


def test_there_are_the_commands_that_the_documentation_names() -> None:
    assert sorted(commands()) == [
        ("ask",),
        ("compile",),
        ("evaluate",),
        ("fetch",),
        ("gate",),
        ("gateway",),
        ("models",),
        ("preflight",),
        ("promote",),
        ("recipe", "check"),
        ("recipe", "helm-values"),
        ("recipe", "list"),
        ("recipe", "plan"),
        ("recipe", "show"),
        ("report",),
        ("retrain",),
        ("rollback",),
        ("run",),
        ("runs",),
        ("split-armorm",),
        ("submit",),
        ("sweep",),
    ]


def test_check_says_right_or_all_that_is_wrong(monkeypatch, capsys, tmp_path: Path) -> None:
    status, out, err = called(monkeypatch, capsys, "recipe", "check", DEMO)
    assert (status, err) == (0, "")
    assert out.startswith(f"{DEMO}: OK. demo aligns smollm2")
    status, out, err = called(
        monkeypatch, capsys, "recipe", "check", DEMO, "--set", "dpo.bta=1", "--set", "sft.epochs=-1"
    )
    assert (status, out) == (1, "")
    assert len(err.splitlines()) == 2
    assert "Did you mean 'beta'?" in err
    assert "Traceback" not in err


def test_debug_shows_the_traceback() -> None:
    plain, debug = (
        moaa("recipe", "check", "nosuch.yaml"),
        moaa("--debug", "recipe", "check", "nosuch.yaml"),
    )
    after = moaa("recipe", "check", "nosuch.yaml", "--debug")
    assert (plain.returncode, debug.returncode, after.returncode) == (1, 1, 1)
    assert (
        plain.stderr
        == "nosuch.yaml: the recipe cannot be read: No such file or directory. Check the path.\n"
    )
    assert after.stderr == debug.stderr
    assert "Traceback" in debug.stderr
    assert "moaa.errors.RecipeError" in debug.stderr


def test_show_gives_the_recipe_on_one_line_for_the_field_of_a_form(monkeypatch, capsys) -> None:
    _, out, _ = called(monkeypatch, capsys, "recipe", "show", DEMO, "--json")
    assert out.count("\n") == 1
    assert json.loads(out)["name"] == "demo"
    assert load_text(out).recipe == load_file(DEMO).recipe


def test_show_takes_one_form(monkeypatch, capsys) -> None:
    for two in (("--yaml", "--json"), ("--given", "--yaml")):
        status, out, err = called(monkeypatch, capsys, "recipe", "show", DEMO, *two)
        assert (status, out) == (2, "")
        assert "Give one of --given, --yaml and --json." in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("runs", "--last", "0"), "'--last': '0'. It must be greater than or equal to 1."),
        (("runs", "--last", "x"), "'--last': 'x'. It must be a whole number."),
        (("run", "--rounds", "11"), "'--rounds': '11'. It must be less than or equal to 10."),
        (("sweep", "x", "--at-once", "0"), "'--at-once': '0'. It must be greater than or equal"),
        (
            ("recipe", "helm-values", DEMO, "--chart", "x"),
            "'--chart': 'x' is not one of 'serving', 'platform'.",
        ),
        (("recipe", "check", ""), "the path of the recipe is empty. Give a file, or a name: demo"),
        (("sweep", ""), "the path of the sweep is empty. Give a file, or a name: paper-tables"),
    ],
)
def test_a_wrong_argument_is_answered_in_words(
    monkeypatch, capsys, arguments: tuple[str, ...], said: str
) -> None:
    status, _, err = called(monkeypatch, capsys, *arguments)
    assert status in (1, 2)
    assert said in err
    assert "Input should" not in err


def test_show_gives_each_value_with_its_place(monkeypatch, capsys) -> None:
    _, out, _ = called(
        monkeypatch,
        capsys,
        "recipe",
        "show",
        "pipelines/recipes/paper-gemma.yaml",
        "--set",
        "dpo.beta=0.1",
    )
    rows = {line.split("\t")[0]: tuple(line.split("\t")[1:]) for line in out.splitlines()}
    assert rows["dpo.beta"] == ("0.1", "--set dpo.beta")
    assert rows["dpo.learning_rate"][1].startswith("pipelines/recipes/paper-gemma.yaml:")
    assert rows["dpo.epochs"][1].startswith("pipelines/recipes/paper-llama.yaml:")
    assert rows["dpo.seed"] == ("42", "default")
    _, out, _ = called(
        monkeypatch, capsys, "recipe", "show", "pipelines/recipes/paper-gemma.yaml", "--given"
    )
    assert "\tdefault" not in out


def test_plan_prints_lines_that_a_pipe_does_not_cut(monkeypatch, capsys) -> None:
    _, out, _ = called(monkeypatch, capsys, "recipe", "plan", "pipelines/recipes/paper-llama.yaml")
    assert "540,000 calls for 6,000 prompts, 90 each" in out
    assert any(line.split()[:3] == ["label", "qwen2-72b", "300,000"] for line in out.splitlines())


def test_a_reader_that_leaves_is_no_error() -> None:
    command = f"{sys.executable} -m moaa.cli recipe show {DEMO} | head -n 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert done.stdout.startswith("name\t")
    assert done.stderr == ""


def test_ctrl_c_is_answered(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With what happened and, for a run, what to do to continue."""

    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("moaa.pipelines.local.run", interrupted)
    status, _, err = called(monkeypatch, capsys, "run", DEMO)
    assert status == 130
    assert err.splitlines() == [
        "The same command continues this run: finished stages are reused.",
        "stopped",
    ]
    monkeypatch.setattr("moaa.commands.recipes.check", interrupted)
    assert called(monkeypatch, capsys, "recipe", "check", DEMO)[::2] == (130, "stopped\n")


def test_a_plan_in_a_pipe_has_no_blanks_at_the_ends_of_lines(
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipes.plan(Path(DEMO), [])
    sentences = capsys.readouterr().out.partition("Beside the paper")[2].splitlines()
    assert len(sentences) > 5
    assert [line for line in sentences if line != line.rstrip()] == []


def test_the_version_is_told(monkeypatch, capsys) -> None:
    assert called(monkeypatch, capsys, "--version")[:2] == (0, f"moaa {__version__}\n")
