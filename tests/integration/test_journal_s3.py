"""A journal on a real S3 whose process is killed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

from moaa.chat.message import Choice, Reply
from moaa.journal import S3Journal
from tests.conftest import S3

WRITER = """
import sys, time
from moaa.chat.message import Choice, Reply
from moaa.journal import S3Journal
from moaa.store import Store

root = sys.argv[1]
journal = S3Journal(Store(root), f"{root}/journal")
journal.open()
print("opened", len(journal.finished), flush=True)
for n in range(int(sys.argv[2]), 1_000_000):
    for call in range(4):
        journal.record_reply(f"c{n}", f"k{n}-{call}", Reply((Choice(f"answer {n} {call}"),)))
    if n % 2:
        journal.record_row(f"c{n}", {"row": n})
    print(n, time.time(), flush=True)
    time.sleep(0.002)
"""


def answer(n: int, call: int) -> Reply:
    return Reply((Choice(f"answer {n} {call}"),))


def killed_after(s3: S3, log: Path, seconds: float, first: int) -> tuple[dict[int, float], float]:
    """When the writer had recorded each conversation, and when it was killed."""
    with log.open("w") as output:
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, s3.root, str(first)], stdout=output
        )
    while not log.read_text():
        assert writer.poll() is None
        time.sleep(0.1)
    time.sleep(seconds)
    killed = time.time()
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    lines = [line.split() for line in log.read_text().splitlines()[1:-1]]
    return {int(n): float(when) for n, when in lines}, killed


def test_a_killed_process_loses_no_more_than_two_seconds_and_doubles_nothing(
    s3: S3, tmp_path: Path
) -> None:
    recorded: dict[int, float] = {}
    lost: set[int] = set()
    for attempt in range(2):
        times, killed = killed_after(s3, tmp_path / f"log{attempt}", 9.0, first=100_000 * attempt)
        assert len(times) > 100
        # 2 s until a segment is begun, and a while (machines are busy) until it is on S3.
        recorded |= {n: when for n, when in times.items() if when < killed - 6}
        lost |= {n for n, when in times.items() if when >= killed - 6}
    journal = S3Journal(s3.store, f"{s3.root}/journal")
    journal.open()
    assert min(recorded) < 100_000 < max(recorded)
    for n in recorded:
        if n % 2:
            assert journal.finished[f"c{n}"] == {"row": n}
        else:
            assert f"c{n}" not in journal.finished
            assert [journal.reply(f"k{n}-{call}") for call in range(4)] == [
                answer(n, call) for call in range(4)
            ]
    assert {int(name[1:]) for name in journal.finished} <= recorded.keys() | lost
    assert len(set(journal.finished)) == len(journal.finished)
    journal.close()


def test_the_segments_are_readable_by_common_tools(s3: S3) -> None:
    import zstandard

    journal = S3Journal(s3.store, f"{s3.root}/journal")
    journal.open()
    journal.record_reply("c1", "k1", Reply((Choice("x"),)))
    journal.record_row("c2", {"row": 2})
    journal.close()
    lines = []
    for uri, _ in s3.store.list(f"{s3.root}/journal"):
        assert uri.endswith(".jsonl.zst")
        lines += (
            zstandard.ZstdDecompressor()
            .stream_reader(s3.store.get(uri), read_across_frames=True)
            .read()
            .decode()
            .split("\n")
        )
    assert [json.loads(line)[:2] for line in lines if line] == [["c1", "k1"], ["c2", "row"]]
