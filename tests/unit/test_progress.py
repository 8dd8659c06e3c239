"""Progress: rates from a sliding window, plain lines that do not flood, a live view on a real
terminal."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import re
import subprocess
import sys
import threading
import time

import pytest

from moaa.progress import Progress, messages, screen
from moaa.progress import progress as module
from moaa.progress.screen import View


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def work(progress: Progress, clock: Clock, *, seconds: int, per_s: int) -> None:
    for _ in range(seconds):
        clock.now += 1
        progress.advance(per_s)
        progress.view()


def test_calls_are_counted_before_a_long_conversation_is_done() -> None:
    """Before, a slow engine showed `0/8 conversations` for ten minutes, as one that hangs does."""
    progress = Progress.silent("generate", "conversations")
    progress.total(8)
    progress.flight("smol", 8)
    progress.answered("smol", 37)
    assert screen.line(progress.view()) == (
        "generate  0/8 conversations  37 calls answered  in flight: smol 8  rejected 0"
    )


def test_the_line_says_what_the_contract_shows() -> None:
    view = View(
        "generate", "conversations", done=12, total=24, rate=1.4, flight={"smol": 18, "idle": 0}
    )
    assert (
        screen.line(view)
        == "generate  12/24 conversations  1.4/s  ETA 9 s  in flight: smol 18  rejected 0"
    )


@pytest.mark.parametrize(
    ("flight", "shown"), [({}, True), ({"a": 0, "b": 3}, True), ({"a": 0, "b": 0}, False)]
)
def test_while_the_engines_of_the_next_calls_start_there_is_no_eta(
    flight: dict[str, int], shown: bool
) -> None:
    """It grew from 6 s to 50 s, as the rate fell with nothing in flight."""
    view = View("evaluate", "answers", done=21, total=50, rate=4.8, flight=flight)
    assert ("ETA 6 s" in screen.line(view)) is shown
    assert (view.eta is not None) is shown


def test_journaled_rows_count_as_done_but_not_in_the_rate(clock: Clock) -> None:
    progress = Progress.silent("generate")
    progress.total(1200)
    progress.advance(1000, journaled=True)
    progress.flight("smol", 4)
    work(progress, clock, seconds=10, per_s=2)
    view = progress.view()
    assert view.done == 1020
    assert view.rate == pytest.approx(2.0)
    assert view.eta == pytest.approx(90.0)


def test_starting_engines_is_no_part_of_the_rate(clock: Clock) -> None:
    progress = Progress.silent("generate")
    progress.flight("smol", 4)
    clock.now += 100
    assert progress.view().rate is None
    progress.tokens("smol", 90)
    work(progress, clock, seconds=5, per_s=3)
    assert progress.view().rate == pytest.approx(3.0)


def test_the_rate_follows_the_last_window(clock: Clock) -> None:
    progress = Progress.silent("generate")
    progress.flight("smol", 4)
    work(progress, clock, seconds=100, per_s=50)
    work(progress, clock, seconds=35, per_s=1)
    assert progress.view().rate == pytest.approx(1.0, rel=0.1)


def test_a_slow_stage_gets_a_longer_window(clock: Clock) -> None:
    progress = Progress.silent("sft", "steps")
    progress.flight("target", 1)
    for _ in range(30):
        for _ in range(20):
            clock.now += 1
            progress.view()
        progress.advance()
    assert progress.view().rate == pytest.approx(1 / 20, rel=0.15)


def test_a_stalled_run_of_many_hours_keeps_few_samples(clock: Clock) -> None:
    progress = Progress.silent("generate")
    progress.total(5)
    progress.advance()
    for _ in range(5000):
        clock.now += 1
        progress.view()
    assert len(progress._samples) <= 601
    assert progress.view().rate == 0
    assert progress.view().eta is None


def test_a_log_gets_notes_at_once_but_not_for_every_second_that_ticks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    messages.show()
    monkeypatch.delenv("MOAA_TTY", raising=False)
    monkeypatch.setenv("MOAA_PROGRESS_S", "60")
    with Progress("generate", "conversations") as progress:
        for second in range(1, 13):
            progress.note(f"starting engines: smol ({second} s)")
        progress.note("asking")
        progress.total(2)
        progress.advance(2)
        progress.tokens("smol", 1500)
        progress.rejected()
    assert stream.getvalue().splitlines() == [
        "generate  starting engines: smol (1 s)",
        "generate  asking",
        "generate  done: 2/2 conversations in 0 s  smol 1,500 tokens  rejected 1",
    ]


def test_plain_lines_come_while_work_goes_on_and_a_failure_says_where_it_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    messages.show()
    monkeypatch.setenv("MOAA_PROGRESS_S", "0.05")

    def stage() -> None:
        with Progress("label", "prompts") as progress:
            progress.total(3)
            progress.advance()
            deadline = time.monotonic() + 5
            while "1/3 prompts" not in stream.getvalue() and time.monotonic() < deadline:
                time.sleep(0.01)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        stage()
    first, *_, last = stream.getvalue().splitlines()
    assert first == "label  1/3 prompts  rejected 0"
    assert last.startswith("label  stopped at 1/3 prompts in ")


def test_counters_are_exact_under_threads_and_cheap() -> None:
    progress = Progress.silent("generate")

    def one() -> None:
        for _ in range(5000):
            progress.advance()
            progress.tokens("smol", 3)

    threads = [threading.Thread(target=one) for _ in range(4)]
    began = time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert progress.view().done == 20_000
    assert progress.view().tokens == {"smol": 60_000}
    assert (time.process_time() - began) / 40_000 < 20e-6


SCRIPT = """
import time
from moaa.progress import messages
from moaa.progress import Progress
messages.show()
with Progress("generate", "conversations") as progress:
    progress.total(3)
    progress.note("asking [bold]x[/bold]")
    for _ in range(3):
        progress.flight("smol", 2); progress.tokens("smol", 64); progress.advance(); time.sleep(0.3)
"""


def read_all(terminal: int) -> str:
    """All that was written to a terminal that nobody has open any more; it is closed then."""
    os.set_blocking(terminal, False)
    shown = b""
    with contextlib.suppress(OSError):
        while part := os.read(terminal, 1 << 20):
            shown += part
    os.close(terminal)
    return shown.decode()


@pytest.mark.parametrize("way", ["stderr", "MOAA_TTY", "nowhere"])
def test_live_on_a_terminal_plain_elsewhere(way: str) -> None:
    controller, device = pty.openpty()
    env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "MOAA_PROGRESS_S": "60"}
    env |= {"MOAA_TTY": os.ttyname(device)} if way == "MOAA_TTY" else {}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=env,
        stderr=device if way == "stderr" else subprocess.PIPE,
        timeout=60,
        check=True,
    )
    os.close(device)
    shown = read_all(controller)
    if way == "nowhere":
        assert shown == ""
        assert b"\x1b" not in done.stderr
        assert done.stderr.decode().splitlines()[-1].startswith("generate  done: 3/3 conversations")
    else:
        assert "2 in flight" in shown
        assert "asking [bold]x[/bold]" in shown
        assert re.search(r"generate  done: 3/3 conversations in \d+ s  smol 192 tokens", shown)
        assert not done.stderr


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.6, "1 min 00 s"),
        (125, "2 min 05 s"),
        (12_000, "3 h 20 min"),
        (187_200, "2 d 4 h"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert screen.duration(seconds) == text


@pytest.mark.parametrize(
    ("rate", "text"),
    [(2000, "2,000/s"), (1.4, "1.4/s"), (0.2, "12/min"), (0.0009, "3.2/h"), (0, "0.0/h")],
)
def test_per_time(rate: float, text: str) -> None:
    assert screen.per_time(rate) == text
