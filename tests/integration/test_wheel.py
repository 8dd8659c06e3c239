"""The wheel in an environment of its own: the whole command line, without a checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.conftest import S3

ROOT = Path(__file__).parents[2]
SOURCES = ("moaa", "components", "pipelines", "pyproject.toml", "README.md", "LICENSE", "NOTICE")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the sources, links included: a build leaves folders behind."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        source, copy = ROOT / name, folder / "sources" / name
        copy.parent.mkdir(exist_ok=True)
        if source.is_dir():
            shutil.copytree(
                source, copy, symlinks=True, ignore=shutil.ignore_patterns("__pycache__")
            )
        else:
            shutil.copy(source, copy)
    build = (
        "import os, sys; from setuptools import build_meta; os.chdir(sys.argv[1]); "
        "print(build_meta.build_wheel(sys.argv[2]))"
    )
    command = [sys.executable, "-c", build, str(folder / "sources"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `moaa` of an environment that has the wheel, and sees this one's libraries."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    # Libraries only: the path file of the editable install is not read from there.
    (packages / "libraries.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    script = folder / "bin" / "moaa"
    script.write_text(
        f"#!{folder}/bin/python\nimport sys\nfrom moaa.cli import main\nsys.exit(main())\n"
    )
    script.chmod(0o755)
    return script


def run(moaa: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    packages = os.environ.get("MOAA_PACKAGES", str(ROOT / ".cache" / "pkgs"))
    return subprocess.run(
        [str(moaa), *arguments],
        cwd=folder,
        env={**os.environ, "MOAA_PACKAGES": packages, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_the_wheel_has_one_top_level_package(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"moaa"}
    assert "moaa/pipelines/align.py" in names
    assert "moaa/pipelines/recipes/demo.yaml" in names
    assert "moaa/components/sft/component.py" in names


def test_its_modules_are_loaded_from_it_and_once(installed: Path, tmp_path: Path) -> None:
    code = (
        "import sys, moaa, moaa.pipelines.compiling; "
        "files = [m.__file__ for m in list(sys.modules.values()) if getattr(m, '__file__', None)]; "
        "ours = [f for f in files if '/moaa/' in f or f.endswith('moaa/__init__.py')]; "
        "print(moaa.__file__, len(ours) - len(set(ours)), "
        "any(n.split('.')[0] in ('pipelines', 'components') for n in sys.modules))"
    )
    python = installed.with_name("python")
    done = subprocess.run(
        [str(python), "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    file, twice, generic = done.stdout.split()
    assert Path(file).is_relative_to(installed.parents[1])
    assert (twice, generic) == ("0", "False")


def test_commands_work_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    shown = run(installed, tmp_path, "--help")
    assert shown.returncode == 0, shown.stderr
    assert "submit" in shown.stdout
    listed = run(installed, tmp_path, "recipe", "list")
    assert "demo" in listed.stdout.split()
    checked = run(installed, tmp_path, "recipe", "check", "paper-gemma")
    assert checked.returncode == 0, checked.stderr
    assert "gemma" in checked.stdout
    compiled = run(installed, tmp_path, "compile", "demo", "-o", "demo-pipeline.yaml")
    assert compiled.returncode == 0, compiled.stderr
    assert "moaa-align" in (tmp_path / "demo-pipeline.yaml").read_text()


def test_a_run_works_in_an_empty_folder(installed: Path, tmp_path: Path, s3: S3) -> None:
    done = run(
        installed, tmp_path, "run", "demo", "--until", "prompts", "--set", f"store.root={s3.root}"
    )
    assert done.returncode == 0, done.stderr
    assert "report: .moaa/runs/" in done.stdout
    listed = run(installed, tmp_path, "runs")
    assert listed.returncode == 0, listed.stderr
    assert "preflight done, prompts done" in listed.stdout
    reported = run(installed, tmp_path, "report")
    assert reported.returncode == 0, reported.stderr
    assert "<html" in (tmp_path / "report.html").read_text()
