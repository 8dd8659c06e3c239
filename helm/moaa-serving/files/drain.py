"""Before a pod is stopped: wait until its requests are done, `seconds` at the most. Arguments:
port, seconds."""

import sys
import time
import urllib.request

port, seconds = sys.argv[1], float(sys.argv[2])
deadline = time.monotonic() + seconds


def in_flight() -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as reply:
        lines = reply.read().decode().splitlines()
    counted = ("vllm:num_requests_running", "vllm:num_requests_waiting")
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in lines
        if line.split("{")[0].split(" ")[0] in counted
    )


time.sleep(
    min(2, seconds)
)  # endpoints are withdrawn while this runs: what was on its way has come by then
while time.monotonic() < deadline:
    try:
        if in_flight() == 0:
            break
    except Exception as error:
        sys.exit(f"the engine is gone: {error}")  # nothing to wait for
    time.sleep(1)
