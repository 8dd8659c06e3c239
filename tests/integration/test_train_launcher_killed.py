"""A launcher on this machine that is killed takes its ranks with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.jobs import ON_GPU as JOB
from tests.support.waiting import until

# As torchrun starts ranks: in a session of its own, so that no signal to a group reaches it.
RANK = (
    "import os, sys, time\n"
    "from moaa.train.__main__ import exit_with_parent\n"
    "exit_with_parent()\n"
    "open(sys.argv[1], 'a').write(f'{os.getpid()}\\n')\n"
    "time.sleep(60)\n"
)

FAMILY = (
    "import subprocess, sys, time\n"
    f"for _ in range(2): subprocess.Popen([sys.executable, '-c', {RANK!r}, sys.argv[1]], "
    "start_new_session=True)\n"
    "time.sleep(60)\n"
)

PARENT = (
    "import sys\n"
    "from moaa.progress import Progress\n"
    "from moaa.ledger import Ledger\n"
    "from moaa.recipe.schema import Launcher, Runtime\n"
    "from moaa.train import process\n"
    "from moaa.train.job import Job, Launch\n"
    "from moaa.lifeline import stoppable\n"
    f"process.torchrun = lambda *_: [sys.executable, '-c', {FAMILY!r}, sys.argv[1]]\n"
    f"job = Job.model_validate_json({JOB.model_dump_json()!r})\n"
    "launch = Launch(job, Runtime(launcher=Launcher(ranks=2)), {})\n"
    "with stoppable():\n"
    "    process.start(launch, Ledger(), Progress.silent())\n"
)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_rank_outlives_its_launcher(how, tmp_path):
    pids = tmp_path / "pids"
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(pids)],
        env={**os.environ, "TMPDIR": str(tmp_path), "CUDA_VISIBLE_DEVICES": "0,1"},
        stderr=subprocess.DEVNULL,
    )
    until(lambda: pids.exists() and len(pids.read_text().split()) == 2)
    ranks = [int(pid) for pid in pids.read_text().split()]
    assert all(map(alive, ranks))
    parent.send_signal(how)
    assert parent.wait(60) != 0
    until(lambda: not any(map(alive, ranks)))
    if how != signal.SIGKILL:
        assert list(tmp_path.iterdir()) == [pids], "a stopped training leaves nothing on the disk"


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
