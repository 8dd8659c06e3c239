"""Packages that are not on Python's own path, and how a missing one is installed."""

from __future__ import annotations

import os
import shlex
import sys
from importlib.machinery import PathFinder
from pathlib import Path

ENV = "MOAA_PACKAGES"


def package_folders() -> list[Path]:
    """Return the folders of MOAA_PACKAGES (separated like PATH), absolute.

    Default: `.cache/pkgs` below the working directory, where `make setup` puts packages.
    """
    given = os.environ.get(ENV, str(Path(".cache", "pkgs"))).split(os.pathsep)
    return [Path(folder).absolute() for folder in given if folder]


def install_command(*given: str) -> str:
    """Return the command that installs these packages into the environment of this Python.

    `given`: the arguments of `pip install`. An environment that uv has made (`make setup` does)
    has no pip: a bare `pip` would be another Python's.
    """
    return _command("install", *given)


def uninstall_command(*given: str) -> str:
    """Return the command that removes these packages from the environment of this Python."""
    return _command("uninstall", *given)


def _command(action: str, *given: str) -> str:
    python = sys.executable
    # Not importlib.util.find_spec: setuptools' hook would take distutils out of sys.modules for it.
    if PathFinder.find_spec("pip"):
        words = [python, "-m", "pip", action, *(["--yes"] if action == "uninstall" else [])]
    else:
        of_checkout = Path(sys.prefix).with_name(".venv-boot") / "bin" / "uv"
        uv = str(of_checkout) if of_checkout.is_file() else "uv"
        words = [uv, "pip", action, "--python", python]
    # An extra (moaa[hub]) is quoted: a shell may take the brackets for a pattern.
    return shlex.join([*words, *given])
