"""A stage stops on SIGTERM, and when the process that runs the pipeline is gone."""

from __future__ import annotations

import os
import signal
import threading
import time


class Terminated(BaseException):
    """SIGTERM arrived. What is open is released; nothing is committed."""


def _terminate(signum: int, frame: object) -> None:
    raise Terminated


def end_with_runner() -> None:
    """Raise Terminated on SIGTERM, so that engines stop and leases are released.

    Also watch the process that MOAA_RUNNER names. The local runner starts a stage through a shell:
    without this, a stage would work on after its runner was killed.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    signal.signal(signal.SIGTERM, _terminate)
    runner = os.environ.get("MOAA_RUNNER")
    if runner and int(runner) != os.getpid():
        threading.Thread(target=_watch, args=(int(runner),), daemon=True, name="lifeline").start()


def _watch(runner: int) -> None:
    while True:
        time.sleep(1)
        try:
            os.kill(runner, 0)
        except ProcessLookupError:
            os.kill(os.getpid(), signal.SIGTERM)
            return
