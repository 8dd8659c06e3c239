"""Exit status 1 if the engine is dead, or stands still: /health alone does not see the latter.

It stands still if nothing in its metrics has moved for `seconds` while requests run or wait; or,
while it has nothing to do, if a request of one token (or for a score) is not answered. What
prefills a long prompt moves with each step; what is paused or asleep is asked, and left alone.

Arguments: port, model name, seconds, a file that keeps what was seen last, task (chat, reward or
embed).
"""

import json
import os
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

port, model, seconds, memory = sys.argv[1], sys.argv[2], float(sys.argv[3]), Path(sys.argv[4])
MOVING = (
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:kv_cache_usage_perc",
    "vllm:prompt_tokens_total",
    "vllm:generation_tokens_total",
    "vllm:iteration_tokens_total_count",
    "vllm:request_success_total",
    "vllm:num_preemptions_total",
    "vllm:prefix_cache_queries_total",
)
BUSY = MOVING[:2]


def get(path: str, body: object = None, timeout: float = 8) -> bytes:
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get("VLLM_API_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    data = json.dumps(body).encode() if body else None
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, headers)
    with urllib.request.urlopen(request, timeout=timeout) as reply:
        return reply.read()


def metrics() -> dict[str, float]:
    found: dict[str, float] = {}
    for line in get("/metrics").decode().splitlines():
        name = line.split("{")[0].split(" ")[0]
        asleep = name == "vllm:engine_sleep_state" and 'sleep_state="awake"' in line
        if name in MOVING or asleep:
            found[name] = found.get(name, 0) + float(line.rsplit(" ", 1)[1])
    return found


def rests() -> bool:
    """Whether somebody has paused it or put it to sleep. Only an engine in development mode knows
    these paths; one that hangs does not answer."""
    for path, field in (("/is_sleeping", "is_sleeping"), ("/is_paused", "is_paused")):
        try:
            if json.loads(get(path, timeout=3)).get(field):
                return True
        except (OSError, ValueError):
            continue
    return False


try:
    get("/health")
    now = metrics()
except Exception as error:  # the kubelet counts how often
    sys.exit(f"no health or metrics: {error}")
try:
    last = json.loads(memory.read_text())
    seen, since = last["seen"], float(last["since"])
except (OSError, ValueError, KeyError, TypeError):
    seen, since = {}, 0.0
# The machine's own clock: it goes on when the container is started again, and is never set.
if seen != now or since > time.monotonic():
    new = memory.with_suffix(".new")
    new.write_text(json.dumps({"seen": now, "since": time.monotonic()}))
    new.replace(memory)
    sys.exit(0)
still = time.monotonic() - since
if still < seconds or now.get("vllm:engine_sleep_state") == 0 or rests():
    sys.exit(0)
if any(now.get(name) for name in BUSY):
    sys.exit(f"{now} for {still:.0f} s: requests are there, and nothing moves")
task = sys.argv[5]
asked = {"reward": "/classify", "embed": "/pooling"}.get(task, "/v1/chat/completions")
question = {"model": model, "messages": [{"role": "user", "content": "Hi"}]}
question |= {"max_tokens": 1, "temperature": 0} if task == "chat" else {}
try:
    get(asked, question, timeout=20)
except urllib.error.HTTPError:  # refused, but answered
    pass
except Exception as error:
    sys.exit(f"idle for {still:.0f} s, and it does not answer: {error}")
memory.unlink()
