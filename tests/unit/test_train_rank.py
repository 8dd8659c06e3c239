"""One rank of a training as a process: how it exits."""

from __future__ import annotations

import subprocess
import sys

import pytest

RANK = """
import atexit, os, sys
from moaa.train import __main__ as rank

atexit.register(os.abort)  # as torch's process group did, after the result was uploaded
sys.argv = ["moaa.train", "sft", "--job", sys.argv[1]]
print("working")
if sys.argv[-1] == "done":
    rank.leave(0)
rank.leave(rank.main())
"""


@pytest.mark.parametrize(
    ("job", "status", "says"), [("done", 0, ""), ("/no/such/job.json", 1, "No such file")]
)
def test_a_rank_exits_without_what_libraries_do_at_exit(job: str, status: int, says: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", RANK, job], capture_output=True, text=True, check=False
    )
    assert ended.returncode == status
    assert ended.stdout.startswith("working\n")
    assert says in ended.stdout + ended.stderr
