"""The commands that install a missing package: they work in the environment that runs moaa."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from types import ModuleType

import pytest

from moaa import packages
from tests.support.paths import ROOT


def test_an_environment_without_pip_is_changed_by_uv(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`make setup` makes .venv without pip, and puts uv beside it."""
    monkeypatch.setattr("importlib.machinery.PathFinder.find_spec", lambda name: None)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    monkeypatch.setattr(sys, "executable", "/x/.venv/bin/python")
    python = "--python /x/.venv/bin/python"
    assert packages.install_command("wandb") == f"uv pip install {python} wandb"
    uv = tmp_path / ".venv-boot" / "bin" / "uv"
    uv.parent.mkdir(parents=True)
    uv.touch()
    assert packages.install_command("moaa[hub]") == f"{uv} pip install {python} 'moaa[hub]'"
    assert packages.uninstall_command("vllm") == f"{uv} pip uninstall {python} vllm"


def test_an_environment_with_pip_is_changed_by_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.machinery.PathFinder.find_spec", lambda name: object())
    monkeypatch.setattr(sys, "executable", "/usr/bin/python3")
    assert shlex.split(packages.install_command("--no-deps", "moaa[hub]")) == [
        "/usr/bin/python3", "-m", "pip", "install", "--no-deps", "moaa[hub]",
    ]  # fmt: skip
    assert packages.uninstall_command("vllm").startswith("/usr/bin/python3 -m pip uninstall --yes")


def test_asking_for_the_command_changes_no_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hook of setuptools takes distutils away, with a warning, when pip is looked for."""
    module = ModuleType("distutils")
    monkeypatch.setitem(sys.modules, "distutils", module)
    assert packages.install_command("wandb")
    assert sys.modules["distutils"] is module


def test_no_text_names_a_bare_pip() -> None:
    """It would be another Python's. docs/gpu.md is about machines that have pip; so has a build of
    an image (RUN)."""
    bare = re.compile(r"(?<!uv )(?<!-m )(?<!RUN )pip install")
    texts = [*ROOT.glob("moaa/**/*.py"), *ROOT.glob("docs/*.md"), ROOT / "README.md"]
    found = [
        path.name
        for path in texts
        if path not in (ROOT / "moaa" / "packages.py", ROOT / "docs" / "gpu.md")
        and bare.search(path.read_text())
    ]
    assert found == []
