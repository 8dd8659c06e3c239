"""What the journal costs: the time of the caller who records, and the time of an attempt that
starts again.

    python -m tests.bench.journal [--replies 50000] [--rows 10000]

Replies of about 500 tokens are recorded from an asyncio loop: at a steady rate, beside a task that
wakes every millisecond (how late it wakes is what the journal does to the calls in flight; the same
loop without a journal is measured too), then all the others as fast as it can. Then a second
journal is opened on what the first left. The store is a SeaweedFS in a temporary folder.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import resource
import tempfile
import time
from pathlib import Path

from moaa.chat.message import Choice, Reply
from moaa.journal import S3Journal
from moaa.store import Store
from moaa.store import local as local_s3
from tests.support.paths import ROOT

WORDS = [
    line.strip() for line in (ROOT / "moaa" / "recipe" / "schema.py").read_text().split() if line
]
CALLS = 5
"""Calls per conversation."""


def text(rng: random.Random, words: int) -> str:
    return " ".join(rng.choices(WORDS, k=words))


async def record(
    journal: S3Journal | None, replies: list[Reply], rows: int, rate: float = 0, first: int = 0
) -> list[float]:
    """Record replies, and the rows of the conversations before `rows`; how late a task beside it
    woke, in sorted seconds."""
    late: list[float] = []

    async def watch() -> None:
        while True:
            start = time.perf_counter()
            await asyncio.sleep(0.001)
            late.append(time.perf_counter() - start - 0.001)

    watcher = asyncio.create_task(watch())
    began = time.perf_counter()
    for number, reply in enumerate(replies, first):
        conversation = number // CALLS
        if number % 10 == 0:
            await asyncio.sleep(
                max(0, began + (number - first) / rate - time.perf_counter()) if rate else 0
            )
        if journal is None:
            continue
        journal.record_reply(f"{conversation:016x}", f"{number:032x}", reply)
        if number % CALLS == CALLS - 1 and conversation < rows:
            turns = [each.text for each in replies[number - first - CALLS + 1 : number - first + 1]]
            journal.record_row(
                f"{conversation:016x}", {"row": {"id": f"{conversation:016x}", "turns": turns}}
            )
    watcher.cancel()
    return sorted(late)


def memory_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--replies", type=int, default=50_000, help="of unfinished conversations")
    parser.add_argument(
        "--rows", type=int, default=10_000, help="finished conversations, of 5 replies each"
    )
    parser.add_argument(
        "--rate", type=float, default=2_000, help="replies/s of the steady part, which lasts 5 s"
    )
    options = parser.parse_args()
    rng = random.Random(7)
    count = options.replies + options.rows * CALLS
    replies = [Reply((Choice(text(rng, 250)),), 300, 500, 1.0) for _ in range(count)]
    characters = sum(len(reply.text) for reply in replies)

    # Else the garbage collector looks at all of them again and again, which no stage waits for.
    gc.freeze()
    lines = [
        f"{count:,} replies of {characters // count:,} characters, {options.rows:,} rows of {CALLS}"
    ]
    with tempfile.TemporaryDirectory() as folder, local_s3.serve(Path(folder)) as environment:
        store = Store("s3://moaa/bench", environ=environment)
        store.check()
        journal = S3Journal(store, "s3://moaa/bench/journal")
        journal.open()
        steady = round(5 * options.rate) // CALLS * CALLS
        alone = asyncio.run(record(None, replies[:steady], options.rows, options.rate))
        beside = asyncio.run(record(journal, replies[:steady], options.rows, options.rate))
        before, cpu = time.perf_counter(), time.thread_time()
        asyncio.run(record(journal, replies[steady:], options.rows, first=steady))
        recorded, recorded_cpu = time.perf_counter() - before, time.thread_time() - cpu
        journal.close()
        closed = time.perf_counter() - before
        records = count + options.rows - steady * (CALLS + 1) // CALLS
        lines += [
            f"a task woke late at {options.rate:,.0f}/s, ms (50/99/100 %) {_ms(beside)}",
            f"  without a journal                       {_ms(alone)}",
            f"recorded, records/s                       {records / recorded:>10,.0f}",
            f"  CPU of the caller per record, us        {recorded_cpu / records * 1e6:>10.1f}",
            f"all on S3, records/s                      {records / closed:>10,.0f}",
        ]
        del replies
        found = list(store.list("s3://moaa/bench/journal"))
        size = sum(each for _, each in found)
        before, cpu, peak = time.perf_counter(), time.process_time(), memory_mib()
        again = S3Journal(store, "s3://moaa/bench/journal")
        again.open()
        opened, opened_cpu = time.perf_counter() - before, time.process_time() - cpu
        known = sum(again.reply(f"{number:032x}") is not None for number in range(count))
        before = time.perf_counter()
        read = sum(1 for each in again.finished.values() if each["row"])
        lines += [
            f"objects / MiB on S3                       {len(found):>10} / {size / 2**20:.1f}",
            f"re-entry, seconds (CPU)                   {opened:>10.2f} ({opened_cpu:.2f})",
            f"  finished rows / replies of others       {len(again.finished):>10,} / {known:,}",
            f"  reading all finished rows, seconds      {time.perf_counter() - before:>10.2f}",
            f"  memory added at most, MiB               {memory_mib() - peak:>10.0f}",
        ]
        again.close()
        if (read, known) != (options.rows, options.replies):
            raise SystemExit(
                f"expected {options.rows} rows and {options.replies} replies, found {read} and "
                f"{known}"
            )
    print("\n".join(lines))


def _ms(late: list[float]) -> str:
    return " / ".join(
        f"{late[int(share * (len(late) - 1))] * 1e3:.1f}" for share in (0.5, 0.99, 1)
    ).rjust(10)


if __name__ == "__main__":
    main()
