"""A published model stops where it was trained to stop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from moaa.recipe.schema import Sft, StoreAddress
from moaa.store import Store
from moaa.train.job import Job
from moaa.train.publish import complete
from moaa.train.tokens import Template
from moaa.weights import local
from tests.support import training as support
from tests.support.training import said

pytestmark = pytest.mark.real


def job(base: Path, **more: Any) -> Job:
    return Job(
        kind="sft",
        numbers=Sft(),
        base=str(base),
        data="s3://b/d",
        output="s3://b/sft/3f",
        store=StoreAddress(root="s3://b"),
        **more,
    )


def base_model(folder: Path, eos: str, settings: dict[str, Any] | None) -> Path:
    """A tiny model that always answers with the end of a turn, whatever its settings say."""
    import torch
    from transformers import AutoTokenizer, LlamaForCausalLM

    tokenizer: Any = AutoTokenizer.from_pretrained(
        local.resolve(support.SMOLLM2, Store("s3://none"))
    )
    end = tokenizer.vocab["<|im_end|>"]
    tokenizer.eos_token = tokenizer.pad_token = eos
    config = support.tiny_llama(tokenizer, tokenizer.vocab[eos], tie_word_embeddings=False)
    model: Any = LlamaForCausalLM(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
        model.model.norm.weight.fill_(1)
        model.model.embed_tokens.weight.fill_(1)
        model.lm_head.weight[end] = 1
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "generation_config.json").unlink()
    if settings is not None:
        (folder / "generation_config.json").write_text(json.dumps(settings))
    return folder


def tokens_until_it_stops(folder: Path) -> int:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    asked: Any = tokenizer.apply_chat_template(
        said("Hi"), add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    found = model.generate(**asked, max_new_tokens=20, do_sample=False)
    return int(found.shape[1] - asked["input_ids"].shape[1])


@pytest.mark.parametrize(
    ("eos", "settings"),
    [
        ("<|endoftext|>", {"eos_token_id": 0}),
        ("<|endoftext|>", {"eos_token_id": [0, 1], "temperature": 0.5, "do_sample": True}),
        ("<|endoftext|>", {"eos_token_id": 0, "temperature": 0.9, "top_p": 0.6}),
        ("<|endoftext|>", {}),
        ("<|endoftext|>", None),
        ("<|im_end|>", None),
        ("<|im_end|>", {"eos_token_id": 2}),
    ],
)
def test_a_published_model_stops_where_its_turns_were_trained_to_end(
    eos: str, settings: dict[str, Any] | None, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    base = base_model(tmp_path / "base", eos, settings)
    if eos != "<|im_end|>":
        assert tokens_until_it_stops(base) == 20, "this test needs a base model that never stops"
    template = Template.of(AutoTokenizer.from_pretrained(base), "base")
    folder = tmp_path / "trained"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes((base / name).read_bytes())
    complete(folder, job(base), str(base), template.rendering.end)
    assert tokens_until_it_stops(folder) == 1
    written = json.loads((folder / "generation_config.json").read_text())
    stops = written["eos_token_id"]
    assert 2 in (stops if isinstance(stops, list) else [stops])
    assert {k: written[k] for k in settings or {} if k != "eos_token_id"} == {
        k: v for k, v in (settings or {}).items() if k != "eos_token_id"
    }
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.eos_token == "<|im_end|>", "for engines that read no generation settings"
    assert tokenizer.get_chat_template() == template.tokenizer.get_chat_template()
    assert json.loads((folder / "config.json").read_text())["use_cache"] is True


def test_weights_are_saved_whatever_the_base_models_settings_are(tmp_path: Path) -> None:
    """Public models have a temperature without `do_sample`, which transformers refuses to save: a
    training of hours ended with a traceback, and so did each further attempt."""
    from transformers import AutoModelForCausalLM

    from moaa.train.trainers import _Ours

    class Trainer:
        model: Any

        def _save(self, folder: str, weights: dict[str, Any]) -> None:
            self.model.save_pretrained(folder, state_dict=weights)

    class Ours(_Ours, Trainer):
        pass

    settings = {"eos_token_id": 0, "temperature": 0.9, "top_p": 0.6}
    base = base_model(tmp_path / "base", "<|endoftext|>", settings)
    trainer = Ours()
    trainer.model = AutoModelForCausalLM.from_pretrained(base)
    folder = tmp_path / "trained"
    trainer._save(str(folder), trainer.model.state_dict())
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == 0
    complete(folder, job(base), str(base), "<|im_end|>")
    written = json.loads((folder / "generation_config.json").read_text())
    assert (written["temperature"], written["eos_token_id"]) == (0.9, [0, 2])


def test_a_template_that_writes_the_end_of_text_keeps_it(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    base = base_model(tmp_path / "base", "<|endoftext|>", {"eos_token_id": 0})
    text = "{{ eos_token }}" + support.DEFAULT_SYSTEM
    folder = tmp_path / "trained"
    folder.mkdir()
    (folder / "config.json").write_bytes((base / "config.json").read_bytes())
    complete(folder, job(base, chat_template=text), str(base), "<|im_end|>")
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.get_chat_template() == text
    assert tokenizer.eos_token == "<|endoftext|>"
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == [0, 2]
