"""On GPUs, flash attention gets the lengths of packed conversations instead of a mask.

Its kernel needs a GPU (tests/gpu/test_gpu_attention.py). Here a loop over the conversations stands
in for it, so that all of ours is run: which models get it, and what transformers and TRL pass on.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from moaa.errors import TrainError
from moaa.train import attention
from tests.support.later import later

torch = later("torch")
transformers = later("transformers")
later("trl")


SMALL: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
LLAMA = ("LlamaConfig", SMALL)
MISTRAL = ("MistralConfig", {**SMALL, "sliding_window": 5})

Models = Callable[..., tuple[Any, Any]]


def loop(
    query: Any,
    key: Any,
    value: Any,
    cu_seq_q: Any,
    cu_seq_k: Any,
    max_q: int,
    max_k: int,
    *,
    scale: float | None,
    window_size: tuple[int, int],
    enable_gqa: bool,
) -> Any:
    """Attention as `varlen_attn` defines it."""
    assert max_q == max_k == int(cu_seq_q.diff().max())
    found = []
    for start, end in pairwise(cu_seq_q.tolist()):
        q, k, v = (x[start:end].transpose(0, 1) for x in (query, key, value))
        back = torch.arange(end - start)[:, None] - torch.arange(end - start)
        seen = back >= 0
        if window_size[0] >= 0:
            seen &= back <= window_size[0]
        one = torch.nn.functional.scaled_dot_product_attention(
            q, k, v, attn_mask=seen, scale=scale, enable_gqa=enable_gqa
        )
        found.append(one.transpose(0, 1))
    return torch.cat(found)


def made(name: str, settings: dict[str, Any]) -> Any:
    return getattr(transformers, name)(**settings)


@pytest.fixture
def config(request: pytest.FixtureRequest) -> Any:
    return made(*request.param)


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> Models:
    """Gives two models of a config with the same weights: with transformers' default attention,
    and with ours."""
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", loop)

    def make(config: Any, *, packed: bool = False) -> tuple[Any, Any]:
        attention.register(packed=packed)
        torch.manual_seed(0)
        # A model keeps the config that it is given, and the name of its attention in it.
        usual, ours = (
            transformers.AutoModelForCausalLM.from_config(
                copy.deepcopy(config), attn_implementation=name
            ).eval()
            for name in ("sdpa", attention.VARLEN)
        )
        for weight in usual.parameters():
            weight.data.mul_(8)
        ours.load_state_dict(usual.state_dict())
        return usual, ours

    return make


@pytest.mark.parametrize("config", [LLAMA, MISTRAL], ids=["whole", "window"], indirect=True)
def test_packed_conversations_do_not_see_each_other(models: Models, config: Any) -> None:
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    from moaa.train.trainers import TOKENS_MULTIPLE

    usual, ours = models(config, packed=True)
    rows = [list(range(12)), list(range(20, 31)), list(range(40, 60))]
    packed = [
        {"input_ids": ids, "labels": ids, "seq_lengths": lengths}
        for ids, lengths in ((rows[0] + rows[1], [12, 11]), (rows[2], [20]))
    ]
    collate = DataCollatorForLanguageModeling(
        pad_token_id=0, padding_free=True, pad_to_multiple_of=TOKENS_MULTIPLE
    )
    batch = collate(packed)
    assert batch["input_ids"].shape == (1, TOKENS_MULTIPLE)
    del batch["labels"]
    with torch.no_grad():
        together = ours(**batch, use_cache=False).logits[0, : sum(map(len, rows))]
        alone = [usual(input_ids=torch.tensor([row]), use_cache=False).logits[0] for row in rows]
    assert torch.allclose(together, torch.cat(alone), atol=1e-3)


def test_packed_conversations_without_their_lengths_are_refused(models: Models) -> None:
    _, ours = models(made(*LLAMA), packed=True)
    with pytest.raises(TrainError, match=r"set sft\.packing to false"):
        ours(input_ids=torch.arange(1, 41)[None], use_cache=False)


@pytest.mark.parametrize("config", [LLAMA, MISTRAL], ids=["whole", "window"], indirect=True)
def test_padding_changes_no_text(models: Models, config: Any) -> None:
    usual, ours = models(config)
    ids = torch.arange(1, 41).view(2, 20)
    mask = torch.ones_like(ids)
    mask[1, 13:] = 0
    with torch.no_grad():
        right, found = (
            model(input_ids=ids, attention_mask=mask, use_cache=False).logits
            for model in (usual, ours)
        )
    assert torch.allclose(found[mask == 1], right[mask == 1], atol=1e-3)


def test_gradients_go_through_checkpointed_layers(
    models: Models,
) -> None:
    usual, ours = models(made(*LLAMA))
    ids = torch.arange(1, 41).view(2, 20)
    gradients = []
    for model in (usual, ours):
        model.train().gradient_checkpointing_enable()
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        gradients.append(model.model.layers[0].self_attn.k_proj.weight.grad)
    assert torch.allclose(*gradients, atol=1e-3)


@pytest.mark.parametrize(
    ("config", "chosen"),
    [
        (LLAMA, attention.VARLEN),
        (MISTRAL, attention.VARLEN),
        (("Qwen3Config", {}), attention.VARLEN),
        (("Gemma2Config", {}), "eager"),
        (("GptOssConfig", {}), None),  # attention sinks
        (("LlamaConfig", {**SMALL, "head_dim": 512}), None),
        (("LlamaConfig", {**SMALL, "attention_dropout": 0.1}), None),
        (("DeepseekV3Config", {}), None),  # values and keys of different sizes
    ],
    indirect=["config"],
    ids=lambda value: value[0] if isinstance(value, tuple) else None,
)
def test_only_plain_attention_is_replaced(config: Any, chosen: str | None) -> None:
    assert attention.implementation(config, "cuda") == chosen
    assert attention.implementation(config, "cpu") == ("eager" if chosen == "eager" else None)
