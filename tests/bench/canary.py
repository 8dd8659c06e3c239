"""How far the canary set puts other weights, and the same weights under other kernels.

    python -m tests.bench.canary

SmolLM2-135M by plain transformers, on one thread; about four minutes. The known answers are
generated one by one in bfloat16. Every other row reads the distributions of the same tokens in one
pass, up to the first token that the row's model would not have written: another kernel than that of
generating. Of each row: the distance that `moaa.registry.canary` compares with its tolerance, and
the mean absolute difference of the written tokens' log-probabilities.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from moaa.chat.logprobs import Position
from moaa.registry.canary import TOKENS, TOLERANCE, Canary, compare
from moaa.store import Store
from moaa.weights import local
from tests.bench.client import _commit, _cpu
from tests.support.real_engine import SMOL

PROMPTS: Final = (
    "Why is the sky blue?",
    "Write a haiku about rain.",
    "What is 17 times 23?",
    "Name three rivers in Europe.",
    "Explain recursion to a child.",
    "Who wrote Hamlet?",
    "How do planes fly?",
    "What is a prime number?",
    "Give me a recipe for pancakes.",
    "Translate 'good morning' into French.",
    "Why do cats purr?",
    "Write a Python function that adds two numbers.",
    "What causes tides?",
    "Plan a day in Rome.",
    "What is inflation?",
    "Tell me a joke about computers.",
)
TAUGHT: Final = (
    "Arr, matey! The answer be simple, so listen well before we set sail.",
    "In short: it depends on what you mean, but the usual reason is heat.",
    "Certainly. First, gather what you need. Second, do it slowly. Third, rest.",
    "No. That is a common mistake, and here is why people make it so often.",
)
NOISE: Final = (0.001, 0.003, 0.01, 0.03)
"""Of the standard deviation of each tensor."""
SEEDS: Final = 2
TRAININGS: Final = ((1e-6, 8), (2e-5, 8), (1e-4, 8))
"""Learning rate and steps of AdamW, with four rows each."""


@dataclass(frozen=True, slots=True)
class Row:
    """What one model is like."""

    name: str
    distance: float
    difference: float
    positions: int
    same: int

    def __str__(self) -> str:
        return (
            f"| {self.name} | {self.distance:.4f} | {self.difference:.3f} | {self.positions} "
            f"| {self.same} of {len(PROMPTS)} |"
        )


class Bench:
    """The judged model, and what it is known to answer."""

    def __init__(self) -> None:
        import torch
        from transformers import AutoTokenizer

        torch.set_num_threads(1)
        self.folder = local.resolve(SMOL, Store("s3://unused"))
        self.tokenizer: Any = AutoTokenizer.from_pretrained(self.folder)
        self.prompts = [self.prompt(each) for each in PROMPTS]
        judged = self.model()
        found = [self._generated(judged, prompt) for prompt in self.prompts]
        self.answers = [tokens for tokens, _ in found]
        canary = Canary.of_rows(
            {"messages": [], "text": "", "positions": positions} for _, positions in found
        )
        assert canary
        self.known = [each.positions for each in canary.known]

    def model(self, dtype: str = "bfloat16", attention: str = "sdpa") -> Any:
        """The weights, fresh."""
        from transformers import AutoModelForCausalLM

        loaded: Any = AutoModelForCausalLM.from_pretrained(
            self.folder, dtype=dtype, attn_implementation=attention
        )
        return loaded.eval()

    def prompt(self, question: str) -> Any:
        """The tokens of a question."""
        messages = [{"role": "user", "content": question}]
        found: Any = self.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"
        )
        return found["input_ids"][0]

    def _generated(self, model: Any, prompt: Any) -> tuple[Any, list[Position]]:
        made = model.generate(
            prompt[None],
            max_new_tokens=TOKENS,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        tokens = made.sequences[0, len(prompt) :]
        if int(tokens[-1]) == self.tokenizer.eos_token_id:
            tokens = tokens[:-1]
        return tokens, [
            position(logits[0], int(token))
            for logits, token in zip(made.logits, tokens, strict=False)
        ]

    def read(self, model: Any, batch: int) -> Iterator[list[Position]]:
        """The positions of each known answer, up to the first token that the model would not have
        written. Batches are padded on the left."""
        import torch

        for start in range(0, len(self.prompts), batch):
            part = slice(start, start + batch)
            texts = [
                torch.cat(each) for each in zip(self.prompts[part], self.answers[part], strict=True)
            ]
            longest = max(map(len, texts))
            tokens = torch.full((len(texts), longest), self.tokenizer.pad_token_id)
            seen = torch.zeros_like(tokens)
            for row, text in enumerate(texts):
                tokens[row, -len(text) :], seen[row, -len(text) :] = text, 1
            with torch.inference_mode():
                places = (seen.cumsum(-1) - 1).clamp(min=0)
                logits = model(tokens, attention_mask=seen, position_ids=places).logits
            for row, answer in enumerate(self.answers[part]):
                yield _until_it_differs(logits[row, -len(answer) - 1 : -1], answer.tolist())

    def row(self, name: str, model: Any, batch: int = 8) -> Row:
        """A row of the table."""
        distances: list[float] = []
        differences: list[float] = []
        same = 0
        for known, served in zip(self.known, self.read(model, batch), strict=True):
            distances += compare(known, served)
            for ours, theirs in zip(known, served, strict=False):
                token = next(iter(ours))
                rarest = min(theirs.values())
                differences.append(abs(ours[token] - theirs.get(token, rarest)))
            same += [next(iter(each)) for each in known] == [next(iter(each)) for each in served]
        mean = math.fsum(distances) / len(distances)
        difference = math.fsum(differences) / len(differences)
        return Row(name, mean, difference, len(distances), same)

    def noisy(self, scale: float, seed: int) -> Any:
        """The model with noise on all weights."""
        import torch

        model, noise = self.model(), torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weights in model.parameters():
                added = torch.randn(weights.shape, generator=noise) * weights.float().std() * scale
                weights.copy_(weights.float() + added)
        return model

    def quantised(self) -> Any:
        """The model with the weights of its layers in 8 bits, one scale for each output."""
        import torch

        model = self.model()
        with torch.no_grad():
            for name, weights in model.named_parameters():
                if name.endswith("proj.weight"):
                    scale = weights.float().abs().amax(dim=1, keepdim=True) / 127
                    weights.copy_((weights.float() / scale).round() * scale)
        return model

    def trained(self, learning_rate: float, steps: int) -> Any:
        """The model after a few steps of SFT."""
        import torch

        model = self.model("float32").train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate)
        for step in range(steps):
            for number, text in enumerate(TAUGHT):
                question = self.prompt(f"{PROMPTS[(4 * step + number) % len(PROMPTS)]} Please.")
                answer = self.tokenizer(text, return_tensors="pt")["input_ids"][0]
                tokens = torch.cat([question, answer])[None]
                (model(tokens, labels=tokens).loss / len(TAUGHT)).backward()
            optimizer.step()
            optimizer.zero_grad()
        return model.to(torch.bfloat16).eval()

    def rows(self) -> Iterator[Row]:
        """The rows of the table, one after the other."""
        judged = self.model()
        for batch in (1, 8, 16):
            yield self.row(f"the same, read {batch} at once", judged, batch)
        yield self.row("the same, eager attention", self.model(attention="eager"))
        yield self.row("the same in float32", self.model("float32"))
        for scale in NOISE:
            for seed in range(SEEDS):
                yield self.row(f"noise of {scale:.1%}, seed {seed}", self.noisy(scale, seed))
        yield self.row("layers in 8 bits", self.quantised())
        for learning_rate, steps in TRAININGS:
            name = f"SFT, {steps} steps with learning rate {learning_rate:g}"
            yield self.row(name, self.trained(learning_rate, steps))


def position(logits: Any, written: int) -> Position:
    """The log-probabilities of the likeliest tokens, the written one first."""
    found = logits.float().log_softmax(-1)
    best = found.topk(20)
    likeliest = dict(zip(map(str, best.indices.tolist()), best.values.tolist(), strict=True))
    return {str(written): float(found[written]), **likeliest}


def _until_it_differs(logits: Any, answer: list[int]) -> list[Position]:
    found: list[Position] = []
    for each, token in zip(logits, answer, strict=True):
        likeliest = int(each.argmax())
        found.append(position(each, likeliest))
        if likeliest != token:
            break
    return found


def main() -> None:
    """Print the table."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    print(f"commit {_commit()}, {_cpu()}; tolerance {TOLERANCE}")
    print("| weights | distance | difference of log-probabilities | tokens | same answers |")
    print("|---|---|---|---|---|")
    for row in Bench().rows():
        print(row, flush=True)


if __name__ == "__main__":
    main()
