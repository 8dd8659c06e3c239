"""What ngram speculation and the place of the proposals do for an online aggregator.

    python -m tests.bench.speculation [--questions 6] [--tokens 128]

On the demo's small model, on this machine's cores, one engine after the other:

plain, ngram     the aggregator's call with three proposals of the same model: tokens a second of
                 one call at a time and of eight at once, the accepted share of drafted tokens,
                 whether the text at temperature 0 is the plain engine's, and whether a seed still
                 gives the same text twice
system, last     a chat of four turns with the proposals in the system message, or after the last
                 question: the share of the aggregator's prompt tokens that the prefix cache served
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence
from typing import Final

from moaa.chat.client import Client
from moaa.chat.message import Call, Message, Reply
from moaa.chat.pool import Endpoint
from moaa.ledger import Ledger
from moaa.mixture import Proposal, ReferencePlace, with_references
from moaa.recipe import Member, Mixture, Sampling
from moaa.recipe.schema import Calls
from tests.bench.client import _commit, _cpu
from tests.support.real_engine import RealEngine, real_engine

NGRAM: Final = (
    '--speculative-config={"method":"ngram","num_speculative_tokens":4,"prompt_lookup_max":4,'
    '"prompt_lookup_min":2}'
)
QUESTIONS: Final = (
    "Why does a rainbow have colours?",
    "How do I keep bread fresh for longer?",
    "What is the difference between weather and climate?",
    "Explain how a bicycle stays upright.",
    "Give three tips for sleeping better.",
    "Why is the sea salty?",
)
TURNS: Final = ("Give an example.", "Say it in one sentence.", "What follows from that?")
MIXTURE: Final = Mixture(proposers=(Member(model="smol"),), aggregator=Member(model="smol"))


class Bench:
    """Asks one engine."""

    def __init__(self, engine: RealEngine, client: Client, tokens: int) -> None:
        self.engine, self.tokens = engine, tokens
        self._client = client
        client.pool("smol").add(Endpoint(engine.url, engine.model))

    async def ask(self, messages: Sequence[Message], **sampling: float) -> Reply:
        given = {"temperature": 0.0, "max_tokens": self.tokens, **sampling}
        return await self._client.send(Call("smol", tuple(messages), Sampling(**given)))

    async def proposals(self, history: Sequence[Message], seed: int = 1) -> list[Proposal]:
        """Three answers of the model to a conversation."""
        replies = await asyncio.gather(
            *(self.ask(history, temperature=0.7, seed=seed + at) for at in range(3))
        )
        return [Proposal(f"p{at}", "smol", 0, reply.text) for at, reply in enumerate(replies)]

    async def rate(
        self, asked: Sequence[Sequence[Message]], at_once: int
    ) -> tuple[float, list[str]]:
        """Tokens a second of these calls, so many at once, and their texts."""
        places, start = asyncio.Semaphore(at_once), time.perf_counter()

        async def one(messages: Sequence[Message]) -> Reply:
            async with places:
                return await self.ask(messages)

        replies = await asyncio.gather(*map(one, asked))
        seconds = time.perf_counter() - start
        return sum(r.completion_tokens for r in replies) / seconds, [r.text for r in replies]


def user(text: str) -> Message:
    return Message(role="user", content=text)


async def measure(
    engine: RealEngine, asked: list[list[Message]], count: int, tokens: int
) -> tuple[list[list[Message]], dict[str, float], list[str], bool]:
    async with Client(Calls(), Ledger()) as client:
        bench = Bench(engine, client, tokens)
        if not asked:
            for question in QUESTIONS[:count]:
                history = [user(question)]
                proposals = await bench.proposals(history)
                asked.append(with_references(history, proposals, MIXTURE))
        await bench.ask(asked[0])  # the first call of an engine is slow
        one, texts = await bench.rate(asked, 1)
        many, _ = await bench.rate([*asked, *asked][:8], 8)
        twice = [await bench.ask(asked[0], temperature=0.7, seed=7) for _ in range(2)]
        drafted = engine.counter("vllm:spec_decode_num_draft_tokens_total")
        accepted = engine.counter("vllm:spec_decode_num_accepted_tokens_total")
        numbers = {"one": one, "eight": many, "accepted": accepted / drafted if drafted else 0.0}
        return asked, numbers, texts, twice[0].text == twice[1].text


async def chat(engine: RealEngine, place: ReferencePlace, tokens: int) -> float:
    """The share of the aggregator's prompt tokens in a chat that the prefix cache served."""
    async with Client(Calls(), Ledger()) as client:
        bench = Bench(engine, client, tokens)
        history, hits, prompts = [user(f"Hello from {place}. {QUESTIONS[0]}")], 0.0, 0.0
        for turn in (*TURNS, ""):
            proposals = await bench.proposals(history)
            before = _cache(engine)
            reply = await bench.ask(with_references(history, proposals, MIXTURE, place=place))
            after = _cache(engine)
            prompts, hits = prompts + after[0] - before[0], hits + after[1] - before[1]
            history += [Message(role="assistant", content=reply.text), user(turn)]
        return hits / prompts


def _cache(engine: RealEngine) -> tuple[float, float]:
    return (
        engine.counter("vllm:prefix_cache_queries_total"),
        engine.counter("vllm:prefix_cache_hits_total"),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=len(QUESTIONS))
    parser.add_argument("--tokens", type=int, default=128)
    given = parser.parse_args()
    print(f"{_cpu()}, {_commit()}: {given.questions} questions, {given.tokens} tokens")
    asked: list[list[Message]] = []
    plain: list[str] = []
    for name, args in (("plain", ()), ("ngram", (NGRAM,))):
        with real_engine(*args) as engine:
            asked, numbers, texts, seeded = asyncio.run(
                measure(engine, asked, given.questions, given.tokens)
            )
            plain = plain or texts
            same = sum(a == b for a, b in zip(plain, texts, strict=True))
            print(
                f"{name}: {numbers['one']:.1f} tokens/s one at a time, {numbers['eight']:.1f} with "
                f"eight at once, accepted {numbers['accepted']:.0%}, "
                f"the plain engine's text {same} of {len(texts)}, "
                f"a seed gives the same text twice: {seeded}",
                flush=True,
            )
            if name == "plain":
                for place in ("system", "last"):
                    share = asyncio.run(chat(engine, place, given.tokens))
                    print(
                        f"references {place}: {share:.0%} of prompt tokens were cached", flush=True
                    )


if __name__ == "__main__":
    main()
