"""What the launcher makes of the ranks' output: progress, and one error that says what happened."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moaa.errors import (
    DiskFull,
    HubAway,
    MoaaError,
    StoreAway,
    StoreError,
    TooManyRejected,
    TrainError,
)
from moaa.progress import Progress
from moaa.store import Missing
from moaa.train.log_reader import LogReader
from moaa.train.protocol import ERROR, PROGRESS, parse, send_error


def progress_line(**fields):
    return PROGRESS + json.dumps(fields)


def error_line(rank, time, type_, message):
    return ERROR + json.dumps({"rank": rank, "time": time, "type": type_, "message": message})


def reading(*lines) -> tuple[LogReader, Progress]:
    progress = Progress.silent("sft", "steps")
    reader = LogReader(progress)
    for line in lines:
        reader.read(line + "\n")
    return reader, progress


SUMMARY = """
Root Cause (first observed failure):
[0]:
  time      : 2026-11-24_22:54:39
  host      : localhost
  rank      : 1 (local_rank: 1)
  exitcode  : {code} (pid: 4711)
  error_file: <N/A>
  traceback : …
""".splitlines()


def test_steps_become_progress_with_loss():
    _, progress = reading(
        progress_line(note="loading the model"),
        progress_line(step=0, steps=8, begin=True),
        progress_line(step=1, steps=8, loss=1.5, num_tokens=100),
        "some library says something",
        progress_line(step=2, steps=8, loss=1.25, learning_rate=1e-5, num_tokens=250),
    )
    view = progress.view()
    assert (view.done, view.total, view.gauges["loss"]) == (2, 8, 1.25)
    assert view.tokens == {"training": 250}


def test_a_resumed_training_starts_where_it_was():
    _, progress = reading(
        progress_line(step=5, steps=8, begin=True), progress_line(step=6, steps=8, loss=1.0)
    )
    assert progress.view().done == 6


def test_a_known_error_is_passed_on_in_its_own_words():
    reader, _ = reading("noise", error_line(0, 1.0, "StoreError", "no such bucket: make it"))
    error = reader.explain(1, "/log")
    assert type(error) is StoreError
    assert str(error) == "no such bucket: make it"


def test_the_first_rank_to_fail_speaks_before_those_that_lost_it():
    reader, _ = reading(
        error_line(0, 20.0, "RuntimeError", "Connection closed by peer"),
        error_line(1, 10.0, "IndexError", "index out of range"),
        *(f"line {n}" for n in range(40)),
    )
    error = reader.explain(1, "/tmp/log.txt")
    assert type(error) is TrainError
    first, *tail, log = str(error).splitlines()
    assert first == "Rank 1 failed: IndexError: index out of range"
    assert tail == [f"    line {n}" for n in range(25, 40)]
    assert log.endswith("/tmp/log.txt")


def test_a_bug_shows_the_end_of_its_traceback_and_not_torchruns_report():
    said = json.loads(error_line(0, 1.0, "KeyError", "'x'").removeprefix(ERROR)) | {
        "traceback": ["  File a.py, line 3", "KeyError: 'x'"]
    }
    reader, _ = reading("before", ERROR + json.dumps(said), *(f"torchrun {n}" for n in range(40)))
    assert str(reader.explain(1, "/log")).splitlines()[1:3] == [
        "      File a.py, line 3",
        "    KeyError: 'x'",
    ]


def test_torchruns_own_report_is_no_part_of_the_tail():
    reader, _ = reading(
        "Segmentation fault",
        "E1124 10:00:00 2 torch/distributed/elastic/multiprocessing/api.py:987] failed (exitcode: "
        "-11) local_rank: 1",
        "Traceback (most recent call last):",
        *(line.format(code="-11") for line in SUMMARY),
    )
    first, *tail, _ = str(reader.explain(1, "/log")).splitlines()
    assert first == "Rank 1 was stopped by SIGSEGV."
    assert tail == ["    Segmentation fault"]


def test_what_a_rank_says_of_its_error_is_what_the_user_reads(capfd):
    for error in (Missing("s3://b/x does not exist in memory."), TrainError("The loss is nan")):
        try:
            raise error
        except MoaaError as raised:
            send_error(2, raised)
        reader, _ = reading(*capfd.readouterr().out.splitlines())
        assert str(reader.explain(1, "/log")) == str(error)
        assert isinstance(
            reader.explain(1, "/log"), StoreError if isinstance(error, StoreError) else TrainError
        )


def test_a_killed_rank_is_named_though_only_the_others_could_speak():
    lost = error_line(0, 1.0, "RuntimeError", "Connection closed by peer")
    reader, _ = reading(lost, *(line.format(code="-9") for line in SUMMARY))
    assert str(reader.explain(1, "/log")).startswith(
        "Rank 1 was stopped by SIGKILL, most likely because it ran out of memory"
    )


@pytest.mark.parametrize(
    ("kind", "message", "status"),
    [("StoreAway", "it is away", 75), ("OutOfMemoryError", "CUDA out of memory. Tried", 1)],
)
def test_a_rank_that_is_aborted_by_the_end_of_another_is_not_the_reason(kind, message, status):
    """The reason was lost, and with it the exit status that says whether to try again."""
    reader, _ = reading(
        error_line(0, 1.0, kind, message), *(line.format(code="-6") for line in SUMMARY)
    )
    error = reader.explain(1, "/log")
    assert message in str(error)
    assert error.exit_status == status


def test_memory_that_ran_out_is_an_error_with_its_remedies():
    reader, _ = reading(
        error_line(3, 1.0, "OutOfMemoryError", "CUDA out of memory. Tried to allocate 2.00 GiB")
    )
    assert "Lower micro_batch" in str(reader.explain(1, "/log"))


def test_ranks_that_torchrun_ended_are_no_cause():
    reader, _ = reading(
        error_line(0, 1.0, "ValueError", "the cause"),
        *(line.format(code="-15") for line in SUMMARY),
    )
    assert "ValueError: the cause" in str(reader.explain(1, "/log"))


def test_an_end_without_words_shows_the_log():
    reader, _ = reading("ImportError: no module named torch")
    message = str(reader.explain(1, "/log"))
    assert "before any rank reported" in message
    assert "no module named torch" in message


@pytest.mark.parametrize(
    "line", ["moaa-progress {torn", "moaa-progress 3", "text", "moaa-progress"]
)
def test_torn_lines_are_log(line):
    assert parse(line) is None


def test_a_line_is_found_behind_a_half_written_one():
    assert parse('Loading: 40%moaa-progress {"note": "x"}') == (PROGRESS, {"note": "x"})


FIELDS = st.dictionaries(
    st.text(max_size=8), st.text(max_size=20) | st.integers() | st.none(), max_size=4
)
BEGINNINGS = st.text(max_size=30).filter(lambda text: "moaa-" not in text)


@given(st.sampled_from([PROGRESS, ERROR]), FIELDS, BEGINNINGS)
def test_a_message_is_read_as_it_was_sent_whatever_comes_before_it(prefix, fields, beginning):
    assert parse(beginning + prefix + json.dumps(fields, ensure_ascii=False)) == (prefix, fields)


@given(st.lists(st.text("ab ", max_size=60), max_size=30))
def test_the_end_of_the_log_is_its_last_lines_that_are_not_empty(lines):
    reader, _ = reading(*lines)
    last = [f"    {line.rstrip()}" for line in lines if line.strip()][-15:]
    assert reader.tail.splitlines() == last
    assert reader.tail in str(reader.explain(1, "/log"))


@pytest.mark.parametrize("kind", [StoreAway, HubAway, DiskFull, TooManyRejected, TrainError])
def test_an_outside_fault_of_a_rank_is_one_of_the_stage(kind):
    """Its exit status says that another attempt may succeed."""
    reader, _ = reading(error_line(0, 1.0, kind.__name__, "it is away"))
    error = reader.explain(1, "/log")
    assert type(error) is kind
    assert error.exit_status == (75 if kind in (StoreAway, HubAway) else 1)


def test_a_measurement_of_held_out_rows_is_shown_and_no_step() -> None:
    reader, progress = reading(
        progress_line(step=0, steps=8, begin=True),
        progress_line(step=1, steps=8, loss=1.5, num_tokens=100),
        progress_line(held_out={"loss": 1.25, "rewards/margins": 0.5}),
        progress_line(step=2, steps=8, loss=1.25, num_tokens=250),
    )
    assert reader.errors == []
    assert progress.view().gauges["held-out loss"] == 1.25
    assert (progress.view().done, progress.view().tokens) == (2, {"training": 250})
