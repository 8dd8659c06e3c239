"""How soon the gateway's guard blames a bad version, and how often a good one: simulated canaries.

    python -m tests.bench.guard [--canaries 200] [--requests 10000]

Production fails in 1 % of its requests, unless the row says otherwise; the new version has 5 % of
all requests. A count is of the new version's own requests before the guard blames it.
"""

from __future__ import annotations

import argparse
from statistics import median

from tests.bench.client import _commit, _cpu
from tests.support.canaries import OLD, Draw, outcomes, requests_until_blamed

BAD = {
    "always fails": outcomes("new", error=1.0),
    "fails in half of the requests": outcomes("new", error=0.5),
    "fails in one of five": outcomes("new", error=0.2, empty=0.01, cut=0.1),
    "answers nothing": outcomes("new", empty=1.0),
    "first token ten times as late": outcomes("new", cut=0.1, first_s=3.0),
}
EQUAL = (0.0, 0.02, 0.2)
"""Both versions fail in this share of their requests, and give as many empty answers."""


def row(name: str, old: Draw, new: Draw, canaries: int, requests: int) -> str:
    """Return a row of the table: how many canaries were blamed, and after how many requests."""
    found = [requests_until_blamed(old, new, seed=n, most=requests) for n in range(canaries)]
    counts = [count for count, reason in found if reason]
    after = f"{min(counts)} | {median(counts):.0f} | {max(counts)}" if counts else "| |"
    return f"| {name} | {canaries} | {len(counts)} | {after} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--canaries", type=int, default=200)
    parser.add_argument("--requests", type=int, default=10_000)
    asked = parser.parse_args()
    print(f"{_cpu()}, commit {_commit()}; at most {asked.requests:,} requests to both\n")
    print("| the new version | canaries | blamed | after requests: least | median | most |")
    print("|---|---|---|---|---|---|")
    for name, bad in BAD.items():
        print(row(name, OLD, bad, asked.canaries, asked.requests), flush=True)
    for rate in EQUAL:
        old, new = (outcomes(each, error=rate, empty=rate, cut=0.3) for each in ("old", "new"))
        name = f"is equal: both fail in {rate:.0%}"
        print(row(name, old, new, asked.canaries, asked.requests), flush=True)


if __name__ == "__main__":
    main()
