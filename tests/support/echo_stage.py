"""A stage that writes down which recipe it was given, in place of a result."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from moaa.declaration import Declaration
from moaa.task import Task

ECHO = Declaration(
    name="echo",
    purpose="Says what it was given",
    entry="tests.support.echo_stage:echo",
    outputs={"text": "Dataset"},
)


class Echo:
    def main(self, task: Task, inputs: Mapping[str, str], output: str, summary: str) -> None:
        Path(output).write_text(task.load().text)
        Path(summary).write_text("")


echo = Echo()
