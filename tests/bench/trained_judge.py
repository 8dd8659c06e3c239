"""A small judge that reads what it judges: SmolLM2-135M, trained on verdicts for some minutes.

    python -m tests.bench.trained_judge FOLDER [--pairs 240]

As it is, SmolLM2 prefers one position whatever the answers are, so nothing can be measured with it
that depends on them. Here it learns which of two answers is the better one. The answers are its
own, to IFBench's prompts; the worse one has more of its words replaced by words of other answers,
or answers another question, or none. The prompts are the judge's own, with assessments by the
untrained model (of 40 pairs, for all). `tests.bench.judge_engine` and `tests.bench.injection` take
the folder; their questions are none of these.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from moaa.chat.client import Client
from moaa.chat.controls import KNOWN
from moaa.chat.message import Ask, Choice, Message, Reply
from moaa.chat.pool import Endpoint
from moaa.concurrency import together
from moaa.judge import criteria, verdict
from moaa.judge.comparison import Panel, ReplyRetries
from moaa.ledger import Ledger
from moaa.mixture import Proposal
from moaa.recipe import Judge
from moaa.recipe.load import load_file
from moaa.recipe.schema import Calls, Sampling
from moaa.store import Store
from moaa.weights import local
from moaa.weights.local import package_file
from tests.support.paths import DEMO
from tests.support.real_engine import SMOL, real_engine

NONE: Final = ("I have no idea.", "I do not know.", "I cannot say.", "That is a good question.")
LEVELS: Final = (0.0, 0.15, 0.3, 0.5, 0.8)
"""Shares of an answer's words that are replaced."""
RATE: Final = 3e-5
ROWS_A_STEP: Final = 4
ASSESSED: Final = 40
Assessments: TypeAlias = tuple[Proposal, ...]


@dataclass(frozen=True, slots=True)
class Example:
    """A verdict's prompt, and the letter of the better answer."""

    prompt: str
    letter: str


def judge() -> Judge:
    """The demo's judge with shorter assessments; the trained model decides."""
    given = load_file(DEMO, []).recipe.label.judge
    short = Sampling(temperature=0.3, top_p=0.95, max_tokens=24, seed=1, stop=("\n",))
    proposers = tuple(
        each.model_copy(update={"model": "smol", "sampling": short}) for each in given.proposers
    )
    aggregator = given.aggregator.model_copy(update={"model": "judge", "system": None})
    return given.model_copy(update={"proposers": proposers, "aggregator": aggregator})


def worsened(text: str, share: float, others: Sequence[str], draw: random.Random) -> str:
    """The text with this share of its words replaced by words of other texts."""
    words = text.split()
    foreign = [word for other in others for word in other.split()]
    for place in draw.sample(range(len(words)), round(share * len(words))):
        words[place] = draw.choice(foreign)
    return " ".join(words)


def pairs(answers: Sequence[str], count: int, draw: random.Random) -> list[tuple[int, str, str]]:
    """So many triples: the index of a question, a better answer, and a worse one."""
    found = []
    for number in range(count):
        k = number % len(answers)
        others = draw.sample([text for text in answers if text != answers[k]], 8)
        low, high = sorted(draw.sample(LEVELS, 2))
        good = worsened(answers[k], low, others, draw)
        kind = draw.random()
        if kind < 0.2:
            good, bad = worsened(answers[k], min(low, 0.3), others, draw), draw.choice(NONE)
        elif kind < 0.4:
            bad = draw.choice(others)
        else:
            bad = worsened(answers[k], high, others, draw)
        found.append((k, good, bad))
    return found


async def _examples(ask: Ask, questions: Sequence[str], count: int) -> list[Example]:
    """Verdict prompts as the judge writes them, with the untrained model's assessments."""
    draw, panel_of = random.Random(0), judge()
    sampling = Sampling(temperature=0.7, top_p=0.95, max_tokens=48, seed=7, stop=("\n\n",))
    replies = await together(
        ask("smol", [Message(role="user", content=text)], sampling) for text in questions
    )
    asked = [(q, r.choices[0].text.strip()) for q, r in zip(questions, replies, strict=True)]
    asked = [(question, text) for question, text in asked if len(text.split()) > 7]

    async def example(
        k: int, good: str, bad: str, first: bool, known: Sequence[Assessments] = ()
    ) -> tuple[Example, Assessments]:
        query = [Message(role="user", content=asked[k][0])]
        shown = (good, bad) if first else (bad, good)
        seen: list[str] = []

        async def noting(model: str, messages: Any, sampling: Sampling, **more: Any) -> Any:
            if model == "judge":
                seen.append(messages[-1]["content"])
                return Reply((Choice("A", tokens=({"A": -0.1, "B": -2.4},)),))
            return await ask(model, messages, sampling, **more)

        panel = Panel.over(panel_of, query, shown, noting, KNOWN)
        comparison = panel.shown(*shown)
        names = tuple(draw.sample(tuple(criteria.CRITERIA), 3))
        if known:
            assessments = draw.choice(known)
        else:
            assessments, _ = await panel.assess(comparison, names)
        await panel.decide(comparison, names, assessments, ReplyRetries())
        return Example(seen[0], verdict.CHOICES[0 if first else 1]), assessments

    triples = [
        (*triple, number % 2 == 0)
        for number, triple in enumerate(pairs([text for _, text in asked], count, draw))
    ]
    found = await together(example(*each) for each in triples[:ASSESSED])
    known = [assessments for _, assessments in found]
    rest = await together(example(*each, known) for each in triples[ASSESSED:])
    return [made for made, _ in (*found, *rest)]


def examples(count: int, prompts: int = 140) -> list[Example]:
    """Examples from a running engine."""
    path = package_file("ifbench/data/IFBench_test.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    questions = [row["prompt"][:400] for row in rows[:prompts]]

    async def ask_all(url: str, model: str) -> list[Example]:
        from tests.support.client_ask import ClientAsk

        async with Client(Calls(), Ledger()) as client:
            client.pool("smol").add(Endpoint(url, model))
            return await _examples(ClientAsk(client), questions, count)

    with real_engine() as engine:
        return asyncio.run(ask_all(engine.url, engine.model))


def train(given: Sequence[Example], folder: Path) -> None:
    """Train a copy of SmolLM2 on the letters, and write it to `folder`; a tenth is held out."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = local.resolve(SMOL, Store("s3://unused"))
    tokenizer: Any = AutoTokenizer.from_pretrained(source)
    model: Any = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    held, rows = given[: len(given) // 10], list(given[len(given) // 10 :])
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0)
    letters = [tokenizer.encode(each, add_special_tokens=False)[0] for each in verdict.CHOICES]

    def loss_of(example: Example) -> Any:
        message = {"role": "user", "content": example.prompt}
        text = tokenizer.apply_chat_template([message], tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(**ids, logits_to_keep=1).logits[0, -1].float()
        right = torch.tensor(verdict.CHOICES.index(example.letter))
        return torch.nn.functional.cross_entropy(logits[letters], right)

    def accuracy() -> float:
        with torch.inference_mode():
            return sum(float(loss_of(each)) < 0.6931 for each in held) / len(held)

    random.Random(1).shuffle(rows)
    start, losses = time.perf_counter(), []
    steps = len(rows) // ROWS_A_STEP
    for step in range(steps):
        for group in optimizer.param_groups:  # up for a tenth, then down to nothing
            group["lr"] = RATE * min((step + 1) / (steps / 10), (steps - step) / steps)
        for example in rows[step * ROWS_A_STEP : (step + 1) * ROWS_A_STEP]:
            loss = loss_of(example)
            (loss / ROWS_A_STEP).backward()
            losses.append(float(loss.detach()))
        optimizer.step()
        optimizer.zero_grad()
        if step % 10 == 9:
            mean = sum(losses[-10 * ROWS_A_STEP :]) / (10 * ROWS_A_STEP)
            print(f"step {step + 1} of {steps}: loss {mean:.3f}", flush=True)
    seconds = time.perf_counter() - start
    print(
        f"{len(rows)} examples in {seconds:.0f} s; right on {accuracy():.0%} of {len(held)} others"
    )
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main() -> None:
    """Make the judge, and print how often it is right."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pairs", type=int, default=240)
    options = parser.parse_args()
    train(examples(options.pairs), options.folder)


if __name__ == "__main__":
    main()
