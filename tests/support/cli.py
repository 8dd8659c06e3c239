"""The command line in a process of its own, and in this one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from moaa import cli

# As a reader of the documentation types it.
DEMO = "pipelines/recipes/demo.yaml"


def moaa(*arguments: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "moaa.cli", *arguments],
        capture_output=True,
        text=True,
        input=given,
        timeout=60,
    )


def called(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, str, str]:
    """The same without a process of its own."""
    monkeypatch.setattr(sys, "argv", ["moaa", *arguments])
    monkeypatch.delenv("MOAA_DEBUG", raising=False)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    out = capsys.readouterr()
    return int(caught.value.code or 0), out.out, out.err


def commands(
    app: Any = cli.app, prefix: tuple[str, ...] = ()
) -> dict[tuple[str, ...], Callable[..., Any]]:
    """Return the function of each command by its words: `("recipe", "check")`."""
    found = {(*prefix, c.name or c.callback.__name__): c.callback for c in app.registered_commands}
    for group in app.registered_groups:
        found |= commands(group.typer_instance, (*prefix, group.name))
    return found
