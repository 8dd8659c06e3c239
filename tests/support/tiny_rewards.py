"""Tiny reward models with random weights: one of a usual kind, one like ArmoRM.

Heads of 64 numbers: with fewer, the engine dies at its first request on a CPU.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from moaa.chat.message import Message

CHAT = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
)
SPECIAL = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
OBJECTIVES, HIDDEN, GATE = 19, 128, 32


def tokenizer(folder: Path) -> Any:
    """Write a tokenizer of single bytes with Llama 3's control tokens and chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens(list(SPECIAL))
    made = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token=SPECIAL[0], eos_token=SPECIAL[3], pad_token=SPECIAL[3]
    )
    made.chat_template = CHAT
    made.save_pretrained(folder)
    return made


def _config() -> dict[str, Any]:
    return {
        "vocab_size": 320,
        "hidden_size": HIDDEN,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "max_position_embeddings": 512,
        # Not the end of a turn: transformers takes the last token that is no padding.
        "pad_token_id": 300,
    }


def reward_model(folder: Path) -> Any:
    """Write a sequence classification model with one label; return it."""
    import torch
    from transformers import LlamaConfig, LlamaForSequenceClassification

    tokenizer(folder)
    torch.manual_seed(7)
    model = LlamaForSequenceClassification(LlamaConfig(**_config() | {"num_labels": 1}))
    torch.nn.init.normal_(model.score.weight, std=0.5)
    model.float().eval().save_pretrained(folder)
    return model


def armorm_model(folder: Path) -> tuple[Any, dict[str, Any]]:
    """Write a checkpoint with the names of ArmoRM's; return its body and its heads."""
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import LlamaConfig, LlamaModel

    tokenizer(folder)
    torch.manual_seed(8)
    body = LlamaModel(LlamaConfig(**_config())).float().eval()
    widths = [HIDDEN, GATE, GATE, OBJECTIVES]
    heads = {
        "regression_layer.weight": torch.randn(OBJECTIVES, HIDDEN),
        "reward_transform_matrix": torch.randn(OBJECTIVES, OBJECTIVES) / 4,
        "gating.logit_scale": torch.tensor([1.5]),
    }
    for i, (width, out) in enumerate(pairwise(widths)):
        heads[f"gating.layers.{i}.weight"] = torch.randn(out, width)
        heads[f"gating.layers.{i}.bias"] = torch.randn(out)
    body.save_pretrained(folder / "body")
    weights = load_file(folder / "body" / "model.safetensors")
    named = {f"model.{name.removeprefix('model.')}": value for name, value in weights.items()}
    save_file(named | heads, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "body" / "config.json").read_text())
    config |= {
        "architectures": ["LlamaForRewardModelWithGating"],
        "auto_map": {"AutoModel": "modeling_custom.X"},
        "num_labels": OBJECTIVES,
    }
    (folder / "config.json").write_text(json.dumps(config))
    shutil.rmtree(folder / "body")
    return body, heads


def score(folder: Path, scorer: Any, query: Sequence[Message], answer: str) -> float:
    """The score of an answer by `reward_model`, as transformers computes it."""
    import torch

    with torch.no_grad():
        messages = [*query, Message(role="assistant", content=answer)]
        return float(scorer(_rendered(folder, messages)).logits.item())


def armorm_score(
    folder: Path, body: Any, heads: dict[str, Any], query: Sequence[Message], answer: str
) -> float:
    """ArmoRM's score as its own code computes it: one pass, the gate at the last assistant
    header."""
    import torch

    ids = _rendered(folder, [*query, Message(role="assistant", content=answer)])
    header = _rendered(folder, [Message(role="assistant", content="")])[0, 1:4].tolist()
    listed = ids[0].tolist()
    starts = [i for i in range(len(listed)) if listed[i : i + 2] == header[:2]]
    with torch.no_grad():
        hidden = body(ids).last_hidden_state[0]
        gate = hidden[starts[-1] - 1]
        for i in range(3):
            gate = heads[f"gating.layers.{i}.weight"] @ gate + heads[f"gating.layers.{i}.bias"]
            gate = torch.relu(gate) if i < 2 else gate
        weights = torch.softmax(gate / 10, dim=0) * heads["gating.logit_scale"][0]
        rewards = heads["regression_layer.weight"] @ hidden[-1] @ heads["reward_transform_matrix"]
        return float((weights * rewards).sum())


def _rendered(folder: Path, messages: Sequence[Message]) -> Any:
    from transformers import AutoTokenizer

    tokens: Any = AutoTokenizer.from_pretrained(folder)
    text = tokens.apply_chat_template(list(messages), tokenize=False)
    return tokens(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
