"""Models of random weights, a tokenizer built in code, and conversations to train on: nothing here
is downloaded."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
WORDS = ("river", "stone", "seven", "bread", "paper", "north", "little", "green", "over", "after")


@dataclass(frozen=True)
class Shape:
    """A Llama: the numbers that decide its size. Input embedding and output head are tied."""

    name: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocabulary: int = 49152
    context: int = 8192

    @property
    def head(self) -> int:
        """Dimensions of one attention head."""
        return self.hidden // self.heads

    @property
    def parameters(self) -> int:
        """Weights of the model, the tied embedding counted once."""
        attention = 2 * self.hidden * self.hidden + 2 * self.hidden * self.kv_heads * self.head
        layer = attention + 3 * self.hidden * self.intermediate + 2 * self.hidden
        return self.layers * layer + self.hidden + self.vocabulary * self.hidden


SHAPES = {
    shape.name: shape
    for shape in (
        # For machines without a GPU: it only shows that the code runs.
        Shape("tiny", 128, 2, 2, 1, 256, vocabulary=512, context=512),
        # For the CPU beside the GPU, and for checkpoints that fit on a small disk.
        Shape("small", 512, 8, 8, 4, 1536, context=2048),
        # The layers of Llama-3.2-1B and Llama-3.2-3B, with a smaller vocabulary.
        Shape("1b", 2048, 16, 32, 8, 8192),
        Shape("3b", 3072, 28, 24, 8, 8192),
    )
}


def save(shape: Shape, folder: Path, device: str) -> str:
    """Write a model of this shape with random weights (seed 0) and its tokenizer. Returns the
    folder's path."""
    import torch
    import transformers

    library: Any = transformers  # most of it has no annotations
    config = library.LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=shape.context,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=2,
    )
    torch.manual_seed(0)
    with torch.device(device):
        model = library.LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer(shape.vocabulary).save_pretrained(folder)
    return str(folder)


def tokenizer(vocabulary: int) -> Any:
    """A tokenizer with one token a byte and ChatML. Tokens that no text contains fill the
    vocabulary, so that whatever a model samples has a text."""
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    names = [*CONTROL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    names += [f"<{n}>" for n in range(len(names), vocabulary)]
    made = Tokenizer(models.BPE({name: n for n, name in enumerate(names)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    fast: Any = transformers.PreTrainedTokenizerFast
    return fast(
        tokenizer_object=made,
        bos_token=CONTROL[0],
        eos_token=CONTROL[2],
        pad_token=CONTROL[2],
        additional_special_tokens=list(CONTROL),
        chat_template=CHATML,
    )


def conversations(count: int, longest: int) -> list[dict[str, Any]]:
    """SFT rows of two turns. Their lengths differ: up to about `longest` tokens."""
    draw = random.Random(0)
    rows = []
    for n in range(count):
        length = draw.randrange(longest // 8, longest - 128) // 4
        questions = [_text(draw, length) for _ in range(2)]
        answers = [_text(draw, length) for _ in range(2)]
        messages = []
        for question, answer in zip(questions, answers, strict=True):
            messages.append({"role": "user", "content": question})
            messages.append({"role": "assistant", "content": answer})
        rows.append({"id": str(n), "messages": messages})
    return rows


def preferences(count: int, longest: int) -> list[dict[str, Any]]:
    """DPO rows: a question, and two answers of different lengths."""
    draw = random.Random(0)
    rows = []
    for n in range(count):
        length = draw.randrange(longest // 8, longest - 128) // 2
        question = {"role": "user", "content": _text(draw, length)}
        chosen, rejected = _text(draw, length), "No. " + _text(draw, length // 2)
        rows.append({"id": str(n), "messages": [question], "chosen": chosen, "rejected": rejected})
    return rows


def sequences(row: dict[str, Any]) -> list[list[dict[str, str]]]:
    """The conversations that go through the model for one row: one for SFT, two for DPO."""
    if "chosen" not in row:
        return [row["messages"]]
    answers = [{"role": "assistant", "content": row[name]} for name in ("chosen", "rejected")]
    return [[*row["messages"], answer] for answer in answers]


def lengths(rows: list[dict[str, Any]], tokens: Any) -> list[int]:
    """Tokens of every sequence that goes through the model."""
    texts = [
        tokens.apply_chat_template(messages, tokenize=False)
        for row in rows
        for messages in sequences(row)
    ]
    return [len(ids) for ids in tokens(texts, add_special_tokens=False)["input_ids"]]


def _text(draw: random.Random, length: int) -> str:
    words: list[str] = []
    while sum(map(len, words)) + len(words) < length:
        words.append(draw.choice(WORDS))
    return " ".join(words)[: max(length, 4)].strip() + "."
