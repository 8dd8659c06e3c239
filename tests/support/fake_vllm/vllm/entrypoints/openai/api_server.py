"""Starts like vLLM's server, in a tenth of a second: put `tests/support/fake_vllm` on PYTHONPATH.

Like vLLM it has a process of its own below it, and ends at SIGTERM. `--pretend` (from a model's
engine_args):
    die-at-start      prints an error, then more lines than an error message shows, and exits with 1
    never-ready       never listens
    stubborn          neither it nor its child ends at SIGTERM
    die-after=S       dies (SIGKILL) S seconds after its first request, its child does not
    die-later=FILE    serves, and leaves FILE; where FILE is, as die-at-start
    hang-once=FILE    answers one request, leaves FILE, and answers no more; where FILE is, serves
    hang              answers one request and no more
    taught            a trained model, which has a + in its name, begins each answer with `Taught`
"""

import argparse
import os
import signal
import subprocess
import sys
import threading
import time

parser = argparse.ArgumentParser()
parser.add_argument("--served-model-name")
parser.add_argument("--port", type=int)
parser.add_argument("--pretend", default="")
options, _ = parser.parse_known_args()
print(
    "cores:",
    os.environ.get("VLLM_CPU_OMP_THREADS_BIND"),
    "GPUs:",
    os.environ.get("CUDA_VISIBLE_DEVICES"),
    flush=True,
)


def die() -> None:
    print("\x1b[31mRuntimeError: the weights are made of cheese\x1b[0m")
    for line in range(40):
        print(f"  frame {line}")
    sys.exit(1)


if options.pretend == "die-at-start":
    die()
if options.pretend.startswith("die-later="):
    mark = options.pretend.removeprefix("die-later=")
    if os.path.exists(mark):  # noqa: PTH110
        die()
    open(mark, "w").close()  # noqa: PTH123
from tests.support.engine_server import EngineServer, slow  # noqa: E402  # its imports take a while, and who dies at once needs none

stubborn = options.pretend == "stubborn"
if stubborn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen(["sh", "-c", f"{'trap : TERM;' if stubborn else ''} while :; do sleep 600; done"])
if options.pretend == "never-ready":
    time.sleep(600)
with EngineServer(options.served_model_name, port=options.port) as server:
    if options.pretend.startswith("die-after="):
        while not server.requests:
            time.sleep(0.01)
        time.sleep(float(options.pretend.removeprefix("die-after=")))
        os.kill(os.getpid(), signal.SIGKILL)
    if options.pretend == "taught" and "+" in options.served_model_name:
        server.begins = "Taught "
    hang = options.pretend == "hang"
    if options.pretend.startswith("hang-once="):
        mark = options.pretend.removeprefix("hang-once=")
        hang = not os.path.exists(mark)  # noqa: PTH110
        open(mark, "w").close()  # noqa: PTH123
    if hang:
        while not server.requests:
            time.sleep(0.001)
        server.fail(slow(1e6), times=10_000)
    threading.Event().wait()
