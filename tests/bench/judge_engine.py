"""The demo's judge on SmolLM2-135M, exhaustive and adaptive: calls, agreement, prefix cache.

    python -m tests.bench.judge_engine [--prompts 3] [--judge FOLDER [--one]]

On MT-Bench's first prompts, five answers each. Each way has engines of its own, so that none
profits from the other's prefix cache. The adaptive judge is also played from the exhaustive one's
replies, with several budgets. `--judge`: the model that `tests.bench.trained_judge` made decides
(SmolLM2 assesses), and the five answers are one, with more and more of its words replaced. `--one`:
on one engine, where it assesses too; the attacks of `tests.bench.injection` come first, and the
adaptive judge is only played.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

from moaa.chat.client import Client
from moaa.chat.message import Ask, Call, Message, Reply
from moaa.chat.pool import Endpoint
from moaa.labellers import JudgeMixture, Labels
from moaa.ledger import Ledger
from moaa.recipe import Judge
from moaa.recipe.load import load_file
from moaa.recipe.schema import Calls, Sampling
from tests.bench import injection, trained_judge
from tests.bench.client import _commit, _cpu
from tests.bench.generation import questions
from tests.bench.trained_judge import LEVELS, worsened
from tests.support.client_ask import ClientAsk
from tests.support.paths import DEMO
from tests.support.real_engine import SMOL, RealEngine, real_engine

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


@dataclass(frozen=True, slots=True)
class Set:
    """Whose judge is measured, on how many prompts, and how the five answers come about."""

    judge: Judge
    prompts: int
    folder: str | None
    """The trained judge's weights."""


async def _answers(queries: Sequence[Sequence[Message]], graded: bool, ask: Ask) -> list[list[str]]:
    """Five answers to each query: sampled with a seed; or one of them, made worse in five steps."""
    sampling = Sampling(temperature=0.8, top_p=0.95, max_tokens=96, n=ANSWERS, seed=5, stop=("\n",))
    replies = await asyncio.gather(*(ask("smol", query, sampling) for query in queries))
    found = [[choice.text.strip() for choice in reply.choices] for reply in replies]
    if not graded:
        return found
    first = [max(texts, key=len) for texts in found]
    draw, made = random.Random(3), []
    for k, text in enumerate(first):
        steps = [worsened(text, share, first[:k] + first[k + 1 :], draw) for share in LEVELS]
        draw.shuffle(steps)
        made.append(steps)
    return made


async def _labelled(engines: Mapping[str, RealEngine], given: Set) -> tuple[list[Labels], Ledger]:
    """The labels of all prompts. After an exhaustive judge, the adaptive one is played from its
    replies too, and printed."""
    ledger, judge = Ledger(), given.judge
    async with Client(Calls(), ledger) as client:
        for name, engine in engines.items():
            client.pool(name).add(Endpoint(engine.url, engine.model))
        ask = Remembering(ClientAsk(client), {})
        queries = [[Message(role="user", content=text)] for text in questions(given.prompts)]
        answers = await _answers(queries, given.folder is not None, ask)
        ledger.models.clear()

        async def ranked(by: Judge, ask: Ask) -> list[Labels]:
            return await asyncio.gather(
                *(
                    JudgeMixture(by)(str(k), query, texts, ask)
                    for k, (query, texts) in enumerate(zip(queries, answers, strict=True))
                )
            )

        labels = await ranked(judge, ask)
        if judge.mode == "exhaustive":
            print(_kept(labels), flush=True)
            for share in (1.0, judge.max_calls_share, 0.45):
                again = Remembering(ask, ask.known)
                thrifty = {"mode": "adaptive", "max_calls_share": share}
                found = await ranked(judge.model_copy(update=thrifty), again)
                said = _agreement(labels, found)
                print(f"replayed, at most {share:.0%} of calls: {again.calls}, {said}", flush=True)
    return labels, ledger


def _kept(labels: Sequence[Labels]) -> str:
    """What kind of judge it is: how often its two orders disagree, and who wins."""
    pairs = [each for of_prompt in labels for each in of_prompt.judgements]
    both = [(each.p_ab, each.p_ba) for each in pairs if each.p_ab is not None]
    apart = sum((p_ab > 0.5) != (p_ba > 0.5) for p_ab, p_ba in both if p_ba is not None)
    orders = [order for each in pairs for order in each.orders]
    first = sum(order.p > 0.5 for order in orders)
    return (
        f"{len(pairs)} pairs; orders disagree in {apart / len(pairs):.1%}; "
        f"{first / len(orders):.1%} of verdicts for the answer shown first"
    )


def _agreement(one: Sequence[Labels], other: Sequence[Labels]) -> str:
    both = [(a.ranking.order, b.ranking.order) for a, b in zip(one, other, strict=True)]
    chosen, rejected = sum(a[0] == b[0] for a, b in both), sum(a[-1] == b[-1] for a, b in both)
    return f"chosen {chosen} and rejected {rejected} of {len(both)} agree"


@contextmanager
def _engines(folder: str | None) -> Iterator[dict[str, RealEngine]]:
    with real_engine() as smol:
        if folder is None:
            yield {"smol": smol}
            return
        with real_engine(source=folder) as decides:
            yield {"smol": smol, "judge": decides}


def on_engine(given: Set) -> None:
    """Print calls, seconds and cache hits of both ways, and how often they agree."""
    found: dict[str, list[Labels]] = {}
    rows = [
        "| judge | calls | prompt tokens | from the prefix cache | seconds |\n|---|---|---|---|---|"
    ]
    for mode in ("exhaustive", "adaptive"):
        with _engines(given.folder) as engines:
            start = time.perf_counter()
            judge = given.judge.model_copy(update={"mode": mode})
            labels, ledger = asyncio.run(_labelled(engines, replace(given, judge=judge)))
            seconds = time.perf_counter() - start
            hits, asked = (
                sum(each.counter(f"vllm:prefix_cache_{what}_total") for each in engines.values())
                for what in ("hits", "queries")
            )
        uses = [ledger.model(name) for name in engines]
        calls, tokens = sum(use.calls for use in uses), sum(use.prompt_tokens for use in uses)
        rows.append(f"| {mode} | {calls} | {tokens:,} | {hits / asked:.1%} | {seconds:.0f} |")
        print(rows[-1], flush=True)
        found[mode] = labels
    print("\n".join(["", *rows, "", _agreement(*found.values())]))


def on_one(given: Set) -> None:
    """Print the attacks on the trained judge, then what its adaptive mode saves."""
    with real_engine(source=given.folder or SMOL) as engine:
        lines = asyncio.run(injection.on_engine(engine, given.judge, len(injection.QUESTIONS)))
        print("\n".join(lines), flush=True)
        start = time.perf_counter()
        _, ledger = asyncio.run(_labelled({"smol": engine, "judge": engine}, given))
        calls = sum(use.calls for use in ledger.in_all().values())
        print(f"exhaustive: {calls} calls in {time.perf_counter() - start:.0f} s")


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=3)
    parser.add_argument("--judge", metavar="FOLDER")
    parser.add_argument("--one", action="store_true")
    options = parser.parse_args()
    print(f"{_cpu()}, load {os.getloadavg()[0]:.1f}, commit {_commit()}\n")
    if options.judge and options.one:
        on_one(Set(trained_judge.judge(), options.prompts, options.judge))
    elif options.judge:
        on_engine(Set(trained_judge.judge(), options.prompts, options.judge))
    else:
        on_engine(Set(_of_demo(), options.prompts, None))


def _of_demo() -> Judge:
    """The demo's judge, asked under the name that the engine has here."""
    given = load_file(DEMO, []).recipe.label.judge
    proposers = tuple(each.model_copy(update={"model": "smol"}) for each in given.proposers)
    aggregator = given.aggregator.model_copy(update={"model": "smol"})
    return given.model_copy(update={"proposers": proposers, "aggregator": aggregator})


if __name__ == "__main__":
    main()
