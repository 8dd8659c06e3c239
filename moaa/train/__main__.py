"""`torchrun -m moaa.train sft|dpo --job URI_OR_FILE`: one rank of a training."""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
import traceback
from typing import NoReturn

from moaa.errors import MoaaError
from moaa.progress.messages import show
from moaa.train.job import Job
from moaa.train.protocol import send_error
from moaa.train.ranks import CORES, FailedOnAnotherRank, Ranks


def main() -> int:
    """Run one rank of a training; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="torchrun -m moaa.train", description="Train a model by SFT or DPO."
    )
    parser.add_argument("kind", choices=("sft", "dpo"))
    parser.add_argument(
        "--job", required=True, metavar="URI_OR_FILE", help="the training job, as JSON"
    )
    given = parser.parse_args()
    show()
    ranks = Ranks.of_environment()
    exit_with_parent()
    bind(ranks)
    try:
        job = Job.read(given.job)
        if job.kind != given.kind:
            parser.error(f"{given.job} is a {job.kind} job")
        from moaa.train.run import train

        train(job, ranks)
    except FailedOnAnotherRank:
        # torchrun stops all ranks when the first one exits: give the failed one time to report.
        time.sleep(5)
        return 1
    except MoaaError as error:
        send_error(ranks.rank, error)
        return 1
    except Exception as error:
        send_error(ranks.rank, error)
        traceback.print_exc()
        return 1
    return 0


def exit_with_parent() -> None:
    """Exit when torchrun is gone: if it was killed, it cannot stop its ranks."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="parent").start()


def bind(ranks: Ranks) -> None:
    """Keep this rank on its own share of the node's cores:
    ranks on the same core slow each other down."""
    cores = [int(core) for core in os.environ.get(CORES, "").split(",") if core]
    share = len(cores) // ranks.local_world
    if share:
        mine = cores[ranks.local_rank * share : (ranks.local_rank + 1) * share]
        os.sched_setaffinity(0, mine)
        os.environ["OMP_NUM_THREADS"] = str(share)


def leave(exit_status: int) -> NoReturn:
    """End this process without what libraries do at exit.

    Threads of torch's process group that still run then end the process with SIGABRT ("terminate
    called without an active exception"): the training would fail after its result is there.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_status)


if __name__ == "__main__":
    leave(main())
