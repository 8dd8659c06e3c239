"""Where a command is to write is checked before it does anything else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.cli import DEMO, called

pytestmark = pytest.mark.usefixtures("in_the_repository")
TO_FILES = {"compile": ("compile", DEMO, "-o"), "report": ("report", "-o")}
TO_FOLDERS = {
    "retrain": ("retrain", DEMO, "--plan", "-o"),
    "fetch": ("fetch", "owner/model"),
    "split-armorm": ("split-armorm", "published"),
}


def refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> str:
    status, out, err = called(monkeypatch, capsys, *arguments)
    assert (status, out) == (2, "")
    return " ".join(err.split())


@pytest.mark.parametrize("command", [*TO_FILES, *TO_FOLDERS])
def test_below_a_file_nothing_can_be_written(
    command: str, tmp_path: Path, monkeypatch, capsys
) -> None:
    (tmp_path / "file").touch()
    arguments = {**TO_FILES, **TO_FOLDERS}[command]
    err = refused(monkeypatch, capsys, *arguments, str(tmp_path / "file" / "deep" / "x.yaml"))
    assert f"{tmp_path}/file is a file, and a folder is needed. Give another path." in err


@pytest.mark.parametrize("command", TO_FILES)
def test_a_folder_is_no_file(command: str, tmp_path: Path, monkeypatch, capsys) -> None:
    (tmp_path / "x.yaml").mkdir()
    err = refused(monkeypatch, capsys, *TO_FILES[command], str(tmp_path / "x.yaml"))
    assert f"{tmp_path}/x.yaml is a folder. Name a file in it." in err


@pytest.mark.parametrize("command", TO_FOLDERS)
def test_a_file_is_no_folder(command: str, tmp_path: Path, monkeypatch, capsys) -> None:
    (tmp_path / "x").touch()
    err = refused(monkeypatch, capsys, *TO_FOLDERS[command], str(tmp_path / "x"))
    assert f"{tmp_path}/x is a file, and a folder is needed." in err


@pytest.mark.parametrize("name", ["my.txt", "my", "my.json", "."])
def test_a_compiled_pipeline_has_the_name_of_yaml(
    name: str, tmp_path: Path, monkeypatch, capsys
) -> None:
    err = refused(monkeypatch, capsys, "compile", DEMO, "-o", str(tmp_path / name))
    assert "Kubeflow takes YAML. Write a name that ends in .yaml." in err
