"""What `--help` prints at 80 columns: examples that can be copied, one style, nothing cut."""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from moaa import cli
from tests.support.cli import called, commands

EVERY = {(): cli.moaa, **commands()}


@pytest.fixture(autouse=True)
def columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def examples(command: Callable[..., Any]) -> list[str]:
    """Return the lines below `Examples:`, as the source has them."""
    _, _, after = inspect.cleandoc(command.__doc__ or "").partition("\nExamples:\n")
    return after.partition("\n\n")[0].splitlines()


def typed(lines: list[str]) -> Iterator[list[str]]:
    """Yield the words of each command, as a shell reads them."""
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        yield shlex.split(line, comments=True)


@pytest.mark.parametrize("command", EVERY, ids=" ".join)
def test_every_example_can_be_copied(
    command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = called(monkeypatch, capsys, *command, "--help")
    assert status == 0
    lines = examples(EVERY[command])
    assert [line for line in out.splitlines() if line.startswith("    ") and line[2:] in lines] == [
        f"  {line}" for line in lines
    ], "an example is not printed as it is written"
    assert max(map(len, out.splitlines())) <= 80
    of_moaa = [words for words in typed(lines) if words[0] == "moaa"]
    assert of_moaa, "there is no example"
    assert all(tuple(words[1 : 1 + len(command)]) == command for words in of_moaa)


@pytest.mark.parametrize("command", EVERY, ids=" ".join)
def test_values_are_nouns_in_capitals(
    command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, _ = called(monkeypatch, capsys, *command, "--help")
    usage = out.splitlines()[0].removeprefix(f"Usage: {' '.join(['moaa', *command])} ")
    assert re.fullmatch(r"[A-Z .\[\]]+", usage)
    _, _, described = out.partition("Arguments:")
    described = described or out.partition("Options:")[2]
    names = re.findall(r"^  (\S.*?)(?:  |$)", described.partition("Commands:")[0], re.MULTILINE)
    for name in names:
        value = re.sub(r"(?:-\w, )?--[a-z-]+(?: |$)", "", name)
        assert re.fullmatch(r"(?:[A-Z0-9_=\[\]:]+)?", value), f"{name} is not a noun in capitals"


def test_no_description_in_the_list_of_commands_is_cut(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for group in ((), ("recipe",)):
        _, out, _ = called(monkeypatch, capsys, *group, "--help")
        listed = out.partition("Commands:")[2].splitlines()[1:]
        assert listed
        assert all(line.endswith(".") and not line.endswith("...") for line in listed)
