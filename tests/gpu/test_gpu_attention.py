"""The attention that GPUs train with: packed conversations do not see each other, and it computes
what transformers' default does."""

from __future__ import annotations

import time
from typing import Any

import pytest

from moaa.train import attention
from tests.gpu.conftest import MakeModel
from tests.gpu.machine import device
from tests.gpu.results import Results
from tests.gpu.shapes import Shape

pytestmark = pytest.mark.skipif(device() == "cpu", reason="flash attention needs a GPU")
TURNS = 5


def test_attention(model: MakeModel, shape: Shape, results: Results) -> None:
    import torch
    import transformers
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    library: Any = transformers
    attention.register(packed=False)
    usual, ours = (
        library.AutoModelForCausalLM.from_pretrained(
            model(shape), dtype=torch.bfloat16, attn_implementation=name
        ).cuda()
        for name in ("sdpa", attention.VARLEN)
    )
    lengths = [1500, 700, 1800, 900, 2000, 1100]
    draw = torch.Generator().manual_seed(0)
    ids = [torch.randint(3, shape.vocabulary, (n,), generator=draw).tolist() for n in lengths]
    packed = [
        {"input_ids": [t for row in half for t in row], "seq_lengths": [len(row) for row in half]}
        for half in (ids[:3], ids[3:])
    ]
    batch = {
        name: value.cuda() if isinstance(value, torch.Tensor) else value
        for name, value in DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)(
            packed
        ).items()
    }
    with torch.no_grad():
        together = ours(**batch, use_cache=False).logits[0].float()
        alone = torch.cat(
            [
                usual(input_ids=torch.tensor([row]).cuda(), use_cache=False).logits[0].float()
                for row in ids
            ]
        )
        unaware = usual(input_ids=batch["input_ids"], use_cache=False).logits[0].float()
    apart = float((together - alone).norm() / alone.norm())
    # The first conversation has none before it.
    seen = float((unaware - alone)[lengths[0] :].norm() / alone[lengths[0] :].norm())
    # Both round to bfloat16 in each layer; a model that sees other conversations is far off.
    assert apart < 0.03 < 0.1 < seen, (apart, seen)

    measured = {
        name: step_s(each, batch) for name, each in (("default_step_s", usual), ("step_s", ours))
    }
    tokens_per_s = sum(lengths) / measured["step_s"]
    results.add(
        f"attention {shape.name}",
        {
            "tokens_per_s": round(tokens_per_s, 1),
            "step_s": round(measured["step_s"], 4),
            "model": shape.name,
            "default_tokens_per_s": round(sum(lengths) / measured["default_step_s"], 1),
            "difference": round(apart, 4),
            "difference_if_seen": round(seen, 4),
        },
    )


def step_s(model: Any, batch: dict[str, Any]) -> float:
    """Seconds of one forward and backward pass with checkpointed layers."""
    import torch

    model.gradient_checkpointing_enable()
    model.train()

    def passes(count: int) -> None:
        for _ in range(count):
            model(**batch, use_cache=False).loss.backward()
            model.zero_grad()
        torch.cuda.synchronize()

    passes(2)
    begin = time.monotonic()
    passes(TURNS)
    return (time.monotonic() - begin) / TURNS
