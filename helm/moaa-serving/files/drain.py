"""Wait until the engine's requests are done, at most `seconds`. Runs before a pod is stopped.

Arguments: port, seconds.
"""

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


# Meanwhile the pod leaves the Service's endpoints, and the last requests to it arrive.
time.sleep(min(2, seconds))
while time.monotonic() < deadline:
    try:
        if in_flight() == 0:
            break
    except Exception as error:
        sys.exit(f"the engine is gone: {error}")  # nothing to wait for
    time.sleep(1)
