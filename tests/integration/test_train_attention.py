"""A model is trained with the attention that computes what engines serve, as fast as it can."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.later import later

torch = later("torch")
later("trl")


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Gemma 2 of two tiny layers, with weights so large that a low cap matters, and a window that
    conversations outgrow."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        query_pre_attn_scalar=16,
        attn_logit_softcapping=0.5,
        final_logit_softcapping=None,
        sliding_window=8,
    )
    model = Gemma2ForCausalLM(config)
    for weight in model.parameters():
        weight.data.mul_(8)
    folder = tmp_path_factory.mktemp("gemma")
    model.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def loaded(gemma: str):
    """The model as policy and reference are loaded: TRL hands the trainer's arguments on."""
    from trl.trainer.utils import create_model_from_path

    from moaa.train.trainers import loading

    return create_model_from_path(
        gemma, device_map=None, **loading(gemma, None, "float32", "cpu")
    ).eval()


def logits(model, ids, **more):
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids]), use_cache=False, **more).logits[0]


def test_the_scores_are_capped_as_engines_cap_them(gemma, loaded):
    from transformers import AutoModelForCausalLM

    ids = list(range(16))
    right, default = (
        logits(
            AutoModelForCausalLM.from_pretrained(gemma, dtype="float32", **attention).eval(), ids
        )
        for attention in ({"attn_implementation": "eager"}, {})
    )
    assert not torch.allclose(default, right, atol=1e-1), "transformers' default leaves the cap out"
    assert torch.allclose(logits(loaded, ids), right, atol=1e-4)


def test_packed_conversations_do_not_see_each_other(loaded):
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    rows = [list(range(12)), list(range(20, 31)), list(range(40, 60))]
    ids = [token for row in rows for token in row]
    packed = {"input_ids": ids, "labels": ids, "seq_lengths": [len(row) for row in rows]}
    batch = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)([packed])
    together = logits(loaded, ids, position_ids=batch["position_ids"])
    assert torch.allclose(together, torch.cat([logits(loaded, row) for row in rows]), atol=1e-3)
    assert not torch.allclose(logits(loaded, ids)[12:], together[12:], atol=1e-1), (
        "they would, without their positions"
    )


def test_on_cpus_any_other_model_has_the_default_attention(tmp_path):
    from transformers import LlamaConfig

    from moaa.train.trainers import loading

    LlamaConfig().save_pretrained(tmp_path)
    assert loading(str(tmp_path), None, "bfloat16", "cpu") == {"dtype": "bfloat16"}


@pytest.mark.parametrize("kind", ["Sft", "Dpo"])
def test_both_trainers_are_given_it_and_it_is_said(kind, gemma, monkeypatch):
    """DPO's reference is the same model, before its first step."""
    from moaa.recipe import schema
    from moaa.train import trainers

    said = []
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", lambda *args: None)
    monkeypatch.setattr(trainers, "send", lambda prefix, **fields: said.append(fields["note"]))
    monkeypatch.setattr(trainers, f"{kind}Trainer", lambda **given: given["args"].model_init_kwargs)
    checkpoints: Any = SimpleNamespace(
        shape={"precision": "bfloat16"}, ranks=SimpleNamespace(first=True)
    )
    job: Any = SimpleNamespace(numbers=getattr(schema, kind)(), revision=None)
    arguments: Any = SimpleNamespace(use_cpu=True)
    loaded: Any = trainers.trainer(job, arguments, gemma, None, checkpoints)
    assert loaded == {"dtype": "bfloat16", "attn_implementation": "eager"}
    assert len(said) == 1
    assert "eager attention" in said[0]


def test_the_first_checkpoint_is_measured_by_the_model(loaded):
    from moaa.train.steps import Steps

    told: list[int] = []
    nothing: Any = None
    checkpoints: Any = SimpleNamespace(expect=told.append)
    state: Any = SimpleNamespace(is_world_process_zero=False)
    Steps(nothing, checkpoints).on_train_begin(nothing, state, nothing, model=loaded)
    assert told == [loaded.num_parameters()]
