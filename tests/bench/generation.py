"""Output tokens/s of a mixture beside vLLM's own bench: the same engine, the same requests, as many
in flight, in turns.

    python -m tests.bench.generation [--conversations 64] [--rounds 2] [--in-flight 32]

The mixture is the demo's (three personas and an aggregator on SmolLM2-135M), through everything of
ours: schedule, client, journal on a local S3. What it asked is written down and asked again by
`vllm.benchmarks.serve`, which knows all requests from the start, while ours come into being as
answers arrive. All is greedy, so that both get the same answers; the prefix cache is off, so that
nobody profits from the other's round. Aim: a ratio of at least 0.97.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from moaa import engines, mixture
from moaa.asking import Session, ask_all
from moaa.chat.message import Ask
from moaa.engines import cores
from moaa.journal import S3Journal
from moaa.ledger import Ledger
from moaa.progress import Progress
from moaa.recipe.schema import Calls, Member, Mixture, Model, Runtime, Sampling
from moaa.store import Store
from moaa.store import local as local_s3
from moaa.weights import local
from tests.bench.client import _commit, _cpu
from tests.support.real_engine import RealEngine, real_engine

MAX_TOKENS = 96
PERSONAS = {
    "concise": "You are a precise assistant. Answer briefly and keep to the facts.",
    "thorough": "You are a thorough assistant. Explain your answer step by step.",
    "creative": "You are a lively assistant. Answer with concrete, vivid examples.",
}
VLLM_BENCH = (
    "from vllm.utils.argparse_utils import FlexibleArgumentParser; from vllm.benchmarks.serve "
    "import add_cli_args, main; "
    "p = FlexibleArgumentParser(); add_cli_args(p); main(p.parse_args())"
)


@dataclass(frozen=True)
class Result:
    who: str
    requests: int
    tokens: int
    seconds: float

    @property
    def rate(self) -> float:
        return self.tokens / self.seconds


def ours(
    engine: RealEngine,
    questions: list[str],
    in_flight: int,
    store: Store,
    asked: list[dict[str, Any]] | None,
) -> Result:
    """Let the mixture answer every question; append each request to `asked`."""
    greedy = Sampling(temperature=0, max_tokens=MAX_TOKENS)
    committee = Mixture(
        proposers=tuple(
            Member(model="smol", name=name, system=text, sampling=greedy)
            for name, text in PERSONAS.items()
        ),
        aggregator=Member(model="smol", sampling=greedy),
    )
    ledger, first, last = Ledger(), 0.0, 0.0
    journal = S3Journal(store, f"{store.root}/{time.time_ns()}")
    journal.open()

    async def work(question: str, ask: Ask) -> dict[str, Any]:
        async def noted(model: str, messages: Any, sampling: Sampling, **options: Any) -> Any:
            nonlocal first, last
            first = first or time.perf_counter()
            if asked is not None:
                asked.append({"prompt": messages})
            reply = await ask(model, messages, sampling, **options)
            last = time.perf_counter()
            return reply

        return (await mixture.converse(committee, None, [question], noted)).to_json()

    session = Session(
        models={"smol": Model.model_validate(engine.as_model())},
        runtime=Runtime(calls=Calls(in_flight=in_flight)),
        store=store,
        ledger=ledger,
        progress=Progress.silent(),
        start_fleet=engines.start,
    )
    ask_all({question: question for question in questions}, work, session, journal)
    journal.close()
    use = ledger.model("smol")
    assert use.failed == use.retries == 0
    return Result("moaa", use.calls, use.completion_tokens, last - first)


def theirs(engine: RealEngine, requests: Path, in_flight: int) -> Result:
    """vLLM's bench asks what `requests` holds; streaming, as it always does."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                VLLM_BENCH,
                "--backend",
                "openai-chat",
                "--endpoint",
                "/v1/chat/completions",
                "--base-url",
                engine.url.removesuffix("/v1"),
                "--model",
                engine.model,
                "--skip-tokenizer-init",
                "--dataset-name",
                "custom",
                "--dataset-path",
                str(requests),
                "--disable-shuffle",
                "--num-prompts",
                "-1",
                "--temperature",
                "0",
                "--extra-body",
                json.dumps({"max_completion_tokens": MAX_TOKENS}),
                "--max-concurrency",
                str(in_flight),
                "--save-result",
                "--result-dir",
                folder,
                "--result-filename",
                "result.json",
            ],
            env={**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode:
            sys.exit(f"vLLM's bench failed:\n{done.stdout[-4000:]}")
        found = json.loads(Path(folder, "result.json").read_text())
    assert found.get("failed", 0) == 0
    return Result("vllm bench", found["completed"], found["total_output_tokens"], found["duration"])


def questions(n: int) -> list[str]:
    """MT-Bench's questions, both turns of each."""
    path = local.package_file("instructlab/eval/data/mt_bench/question.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    texts = [
        row["turns"][turn] for turn in (0, 1) for row in rows if row["category"] != "extraction"
    ]
    return texts[:n]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--conversations", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--in-flight", type=int, default=32)
    options = parser.parse_args()
    results: list[Result] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        local_s3.serve(Path(folder, "s3")) as environment,
        cores.reserve(len(cores.available()), "generation bench", partial(print, file=sys.stderr)),
        real_engine("--no-enable-prefix-caching") as engine,
    ):
        os.environ.update(environment)
        store = Store("s3://moaa/bench")
        asked: list[dict[str, Any]] = []
        requests = Path(folder, "requests.jsonl")
        ours(
            engine, questions(options.in_flight // 4), options.in_flight, store, None
        )  # warm-up: nobody's first answers count
        for number in range(1, options.rounds + 1):
            results.append(
                ours(
                    engine,
                    questions(options.conversations),
                    options.in_flight,
                    store,
                    None if asked else asked,
                )
            )
            requests.write_text("".join(json.dumps(request) + "\n" for request in asked))
            results.append(theirs(engine, requests, options.in_flight))
            for result in results[-2:]:
                print(
                    f"round {number}  {result.who:<10}  {result.requests} requests  "
                    f"{result.tokens} output tokens  "
                    f"{result.seconds:.1f} s  {result.rate:.1f} tokens/s",
                    flush=True,
                )
    a, b = (
        _rate([result for result in results if result.who == who]) for who in ("moaa", "vllm bench")
    )
    print(f"moaa {a:.1f} tokens/s, vllm bench {b:.1f}: ratio {a / b:.3f} (aim 0.97)")
    print(
        f"{_cpu()}, {len(cores.available())} cores, load {os.getloadavg()[0]:.1f}, commit "
        f"{_commit()}"
    )


def _rate(results: list[Result]) -> float:
    return sum(result.tokens for result in results) / sum(result.seconds for result in results)


if __name__ == "__main__":
    main()
