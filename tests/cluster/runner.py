"""A stand-in for `moaa run …` inside a runner's pod: no engine, no store, only what a run shows.

What it does is in the recipe's name: `fails` ends with a stage's error, `endless` works until it is
told to end. It prints what it was given.
"""

import hashlib
import os
import signal
import sys
import time
from pathlib import Path

recipe = Path(sys.argv[2]).read_text()
name = next(line.split(":")[1].strip() for line in recipe.splitlines() if line.startswith("name:"))


def told(signum: int, frame: object) -> None:
    print("told to end", flush=True)
    sys.exit(130)


signal.signal(signal.SIGTERM, told)
print("recipe", hashlib.sha256(recipe.encode()).hexdigest(), flush=True)
print("run", os.environ["MOAA_RUN_ID"], flush=True)
print("arguments", *sys.argv[3:], flush=True)
print(
    "user",
    os.getuid(),
    "secret",
    "set" if os.environ.get("AWS_SECRET_ACCESS_KEY") else "unset",
    flush=True,
)
Path(".moaa").mkdir()
try:
    Path("/usr/written").touch()
except OSError:
    print("read-only", flush=True)
if name == "fails":
    print(
        *(f"generate  {number}/2000" for number in range(2000)), sep="\n", flush=True
    )  # much, just before the other stream
    print("generate failed: 3 of 24 rows were rejected", file=sys.stderr, flush=True)
    sys.exit(1)
if name == "endless":
    print("working", flush=True)
    time.sleep(600)
for number in range(3):
    print(f"generate  {number}/3", flush=True)
    time.sleep(0.5)
print("done", flush=True)
