"""The demo's judge on SmolLM2-135M, exhaustive and adaptive: calls, agreement, prefix cache.

    python -m tests.bench.judge_engine [--prompts 3]

On MT-Bench's first prompts, five answers each. Each way has an engine of its own, so that none
profits from the other's prefix cache. The adaptive judge is also played from the exhaustive one's
replies, with several budgets.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections.abc import Sequence
from typing import Final

from moaa.chat.client import Client
from moaa.chat.message import Ask, Call, Message, Reply
from moaa.chat.pool import Endpoint
from moaa.labellers import JudgeMixture, Labels
from moaa.ledger import Ledger
from moaa.recipe import Judge
from moaa.recipe.load import load_file
from moaa.recipe.schema import Calls, Sampling
from tests.bench.client import _commit, _cpu
from tests.bench.generation import questions
from tests.bench.injection import Asking
from tests.support.paths import DEMO
from tests.support.real_engine import RealEngine, real_engine

ANSWERS: Final = 5


class Remembering:
    """An `ask` that keeps every reply, and gives it again."""

    def __init__(self, ask: Ask, known: dict[str, Reply]) -> None:
        self._ask, self.known = ask, known
        self.calls = 0

    async def __call__(
        self,
        model: str,
        messages: Sequence[Message],
        sampling: Sampling,
        *,
        choices: Sequence[str] | None = None,
        logprobs: bool = False,
    ) -> Reply:
        self.calls += 1
        chosen = tuple(choices) if choices else None
        key = Call(model, tuple(messages), sampling, chosen, logprobs).key
        if key not in self.known:
            self.known[key] = await self._ask(
                model, messages, sampling, choices=choices, logprobs=logprobs
            )
        return self.known[key]


async def _labelled(engine: RealEngine, judge: Judge, prompts: int) -> tuple[list[Labels], Ledger]:
    """The labels of so many prompts: five answers each, sampled with a seed, then judged. After an
    exhaustive judge, the adaptive one is played from its replies too, and printed."""
    ledger = Ledger()
    sampling = Sampling(temperature=0.8, top_p=0.95, max_tokens=96, n=ANSWERS, seed=5, stop=("\n",))
    async with Client(Calls(), ledger) as client:
        client.pool("smollm2").add(Endpoint(engine.url, engine.model))
        ask = Remembering(Asking(client), {})
        queries = [[Message(role="user", content=text)] for text in questions(prompts)]
        replies = [await ask("smollm2", query, sampling) for query in queries]
        ledger.models.clear()

        async def ranked(by: Judge, ask: Ask) -> list[Labels]:
            return await asyncio.gather(
                *(
                    JudgeMixture(by)(str(k), query, [c.text.strip() for c in reply.choices], ask)
                    for k, (query, reply) in enumerate(zip(queries, replies, strict=True))
                )
            )

        labels = await ranked(judge, ask)
        if judge.mode == "exhaustive":
            for share in (1.0, judge.max_calls_share, 0.45):
                again = Remembering(ask, ask.known)
                thrifty = {"mode": "adaptive", "max_calls_share": share}
                found = await ranked(judge.model_copy(update=thrifty), again)
                said = _agreement(labels, found)
                print(f"replayed, at most {share:.0%} of calls: {again.calls}, {said}", flush=True)
    return labels, ledger


def _agreement(one: Sequence[Labels], other: Sequence[Labels]) -> str:
    both = [(a.ranking.order, b.ranking.order) for a, b in zip(one, other, strict=True)]
    chosen, rejected = sum(a[0] == b[0] for a, b in both), sum(a[-1] == b[-1] for a, b in both)
    return f"chosen {chosen} and rejected {rejected} of {len(both)} agree"


def on_engine(prompts: int) -> None:
    """Print calls, seconds and cache hits of both ways, and how often they agree."""
    judge = load_file(DEMO, []).recipe.label.judge
    found: dict[str, list[Labels]] = {}
    print(
        "| judge | calls | prompt tokens | from the prefix cache | seconds |\n|---|---|---|---|---|"
    )
    for mode in ("exhaustive", "adaptive"):
        with real_engine() as engine:
            start = time.perf_counter()
            labels, ledger = asyncio.run(
                _labelled(engine, judge.model_copy(update={"mode": mode}), prompts)
            )
            seconds = time.perf_counter() - start
            hits, queries = (
                engine.counter(f"vllm:prefix_cache_{what}_total") for what in ("hits", "queries")
            )
        use = ledger.model("smollm2")
        print(
            f"| {mode} | {use.calls} | {use.prompt_tokens:,} | {hits / queries:.1%} | "
            f"{seconds:.0f} |",
            flush=True,
        )
        found[mode] = labels
    print(_agreement(*found.values()))


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=3)
    options = parser.parse_args()
    print(f"{_cpu()}, load {os.getloadavg()[0]:.1f}, commit {_commit()}\n")
    on_engine(options.prompts)


if __name__ == "__main__":
    main()
