"""Messages for people, and how a stage's messages reach the run's terminal.

    say("prompts: reused s3://moaa/demo/prompts/1f0c")

All messages go to the logger "moaa": a program that embeds moaa can route them as it likes. The
command line and the process of each stage call `show`, which writes them to stderr. A stage that
the local runner started also writes them to the file in MOAA_MESSAGES, one JSON object a line. The
runner follows that file (`relay`) and logs them again as its own.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from moaa.progress.terminal import printable

CHANNEL_ENV = "MOAA_MESSAGES"
LEVEL_ENV = "MOAA_LOG_LEVEL"
"""The variable with the level for `show` in processes that a command starts:
DEBUG after `moaa -v`."""
POLL_S = 0.1

log = logging.getLogger("moaa")

above_view: Callable[[str], None] | None = None
"""Prints a line above the live view that this process draws on another process's terminal."""


def say(text: str) -> None:
    """Log a message for people."""
    log.info(text)


def final_error(text: str, *, outside: bool = False) -> None:
    """Log the error that stops this process. The local runner shows it at the end of the run.

    `outside`: the cause is outside of the run, and another attempt may succeed.
    """
    log.error(text, extra={"final": True, "outside": outside})


def show(level: int | str | None = None) -> None:
    """Write messages of this level and above to stderr, and all of them to the runner's file."""
    level = level or os.environ.get(LEVEL_ENV) or logging.INFO
    for handler in log.handlers[:]:
        if isinstance(handler, Stderr | Channel):
            log.removeHandler(handler)
    stderr = Stderr()
    stderr.setLevel(level)
    log.addHandler(stderr)
    log.setLevel(min(stderr.level, logging.INFO))
    log.propagate = False
    if channel := os.environ.get(CHANNEL_ENV):
        log.addHandler(Channel(Path(channel)))


def shown(level: int) -> bool:
    """Return whether `show` writes messages of this level to stderr."""
    return any(isinstance(each, Stderr) and each.level <= level for each in log.handlers)


class Stderr(logging.Handler):
    """Writes messages to the current stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one message."""
        try:
            # Not `print`: Kubeflow's local runner replaces it by one that indents.
            sys.stderr.write(f"{printable(self.format(record))}\n")
            sys.stderr.flush()
        except (OSError, ValueError):
            pass  # a closed pipe must not change what a stage does
        except Exception:
            self.handleError(record)


class Channel(logging.Handler):
    """Appends messages to the runner's file, except those that come from it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def emit(self, record: logging.LogRecord) -> None:
        """Append one message as a JSON line."""
        if getattr(record, "relayed", False):
            return
        try:
            text, final = self.format(record), getattr(record, "final", False)
            shown = above_view is not None and not final
            if above_view is not None and shown:
                above_view(text)
            outside = getattr(record, "outside", False)
            line = {
                "level": record.levelno,
                "text": text,
                "final": final,
                "outside": outside,
                "shown": shown,
            }
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except Exception:
            self.handleError(record)


class Relay:
    """Logs what is written to a channel's file from now on. Use it through `relay`."""

    def __init__(self, path: Path) -> None:
        self.error = ""
        """The first error that ended a stage. It is not logged: the end of the run shows it."""
        self.outside = False
        """Whether that error has a cause outside of the run: another attempt may succeed."""
        self._stop = threading.Event()
        self._file = path.open(encoding="utf-8")
        self._file.seek(0, os.SEEK_END)
        self._thread = threading.Thread(target=self._follow, name="messages", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Log what remains, then stop."""
        self._stop.set()
        self._thread.join()
        self._file.close()

    def _follow(self) -> None:
        part = ""
        while True:
            last = self._stop.wait(POLL_S)
            part = self._log_lines(part, self._file)
            if last:
                return

    def _log_lines(self, part: str, file: IO[str]) -> str:
        """Log the complete lines; return the start of the next one."""
        *lines, part = (part + file.read()).split("\n")
        for line in lines:
            if (message := _message(line)) is None:
                continue
            if message["final"]:
                if not self.error:
                    self.outside = message["outside"]
                self.error = self.error or message["text"]
            elif not message["shown"]:
                log.log(message["level"], message["text"], extra={"relayed": True})
        return part


def _message(line: str) -> dict[str, Any] | None:
    """Return the message in a line; None if it is not whole. Before a whole one may stand the start
    of one that was cut: its process was killed, or the disk was full."""
    start = line.rfind('{"level": ')  # inside a text its quotes would be escaped
    try:
        found: dict[str, Any] = json.loads(line[max(start, 0) :])
    except ValueError:
        return None
    return found


@contextmanager
def relay(path: Path) -> Iterator[Relay]:
    """Log the messages of the stages that run in this context:
    they write to `path` by MOAA_MESSAGES."""
    path.touch()
    before = os.environ.get(CHANNEL_ENV)
    os.environ[CHANNEL_ENV] = str(path.absolute())
    relay = Relay(path)
    try:
        yield relay
    finally:
        relay.close()
        if before is None:
            del os.environ[CHANNEL_ENV]
        else:
            os.environ[CHANNEL_ENV] = before
