"""What a model's chat template writes, without transformers, and which of its tokens are control
tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from moaa.errors import RecipeError
from moaa.recipe.schema import Model
from moaa.weights import tokenizer
from moaa.weights.chat_template import ChatTemplate
from moaa.weights.control import control_texts, pattern
from tests.support.memory_store import MemoryStore
from tests.support.training import said

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def written(folder: Path, template: str, added: dict[str, bool], **config: Any) -> Path:
    """The files of a tokenizer with these added tokens (text: special)."""
    folder.mkdir(parents=True, exist_ok=True)
    listed = [{"id": n, "content": t, "special": s} for n, (t, s) in enumerate(added.items())]
    (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": listed}))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "chat_template.jinja").write_text(template)
    return folder


def test_role_markers_that_are_not_special_are_control_tokens_too(tmp_path: Path) -> None:
    added = {
        "<|im_start|>": True,
        "<|im_end|>": False,
        "<tool_call>": False,
        "<table>": False,
        "\n\n": False,
        "<|fim_prefix|>": False,
        "<|endoftext|>": True,
    }
    folder = written(tmp_path, CHATML + "{# <tool_call> #}", added)
    found = control_texts(ChatTemplate.read(folder))
    assert found == added.keys() - {"<table>", "\n\n"}


def test_tokens_that_a_template_puts_together_are_found(tmp_path: Path) -> None:
    added = {"[user]": False, "[assistant]": False, "[tool]": False}
    template = "{% for m in messages %}{{ '[' + m.role + ']' + m.content }}{% endfor %}"
    found = control_texts(ChatTemplate.read(written(tmp_path, template, added)))
    assert found == {"[user]", "[assistant]"}


def test_tokens_are_read_wherever_a_tokenizer_keeps_them(tmp_path: Path) -> None:
    folder = written(
        tmp_path,
        "{{ bos_token }}{{ messages[0].content }}",
        {},
        bos_token={"content": "<s>", "special": True},
        added_tokens_decoder={"7": {"content": "<|user|>", "special": False}},
        additional_special_tokens=["<|pad|>"],
    )
    (folder / "special_tokens_map.json").write_text(json.dumps({"eos_token": "</s>"}))
    template = ChatTemplate.read(folder)
    assert template.render(said("Hi")) == "<s>Hi"
    assert control_texts(template) == {"<s>", "</s>", "<|user|>", "<|pad|>"}


def test_one_of_several_templates_is_the_default(tmp_path: Path) -> None:
    several = [{"name": "rag", "template": "no"}, {"name": "default", "template": "yes"}]
    folder = written(tmp_path, "", {}, chat_template=several)
    (folder / "chat_template.jinja").unlink()
    assert ChatTemplate.read(folder).render(said("Hi")) == "yes"
    assert ChatTemplate.read(folder, text="given").render(said("Hi")) == "given"


def test_a_tokenizer_without_a_template_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="has no chat template"):
        ChatTemplate.read(written(tmp_path, "", {}))


def test_the_longest_control_text_is_found() -> None:
    found = pattern({"<|im", "<|im_end|>", "<|im_start|>"})
    assert found.findall("a <|im_end|> <|im_x <|im_start|>") == [
        "<|im_end|>",
        "<|im",
        "<|im_start|>",
    ]
    assert pattern([]).search("anything") is None


def test_of_a_model_on_s3_only_the_small_files_are_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOAA_CACHE", str(tmp_path))
    store: Any = MemoryStore("s3://b")
    here = written(tmp_path / "x", CHATML, {"<|im_end|>": True})
    for path in here.iterdir():
        store.put(f"s3://b/m/{path.name}", path.read_bytes())
    store.put("s3://b/m/model.safetensors", b"large")
    folder = tokenizer.folder("s3://b/m", store)
    assert control_texts(ChatTemplate.read(folder)) == {"<|im_end|>"}
    assert not (folder / "model.safetensors").exists()
    with pytest.raises(RecipeError, match="has no tokenizer"):
        tokenizer.folder("s3://b/other", store)


def test_an_engines_arguments_reach_the_template(tmp_path: Path) -> None:
    store: Any = MemoryStore("s3://b")
    folder = written(tmp_path / "m", "{{ enable_thinking }} {{ level }} {{ (deep or {}).er }}", {})
    (folder / "config.json").write_text("{}")

    def rendered(*args: str) -> str:
        model = Model(source=str(folder), engine_args=args)
        return tokenizer.chat_template(model, store).render(said("Hi"))

    key = "--default-chat-template-kwargs"
    assert rendered() == "  "
    assert rendered(key, '{"enable_thinking": false, "level": 2}') == "False 2 "
    assert rendered(f'{key}={{"level": "low"}}', "--max-num-seqs", "4") == " low "
    assert rendered(f"{key}.enable_thinking", "true", f"{key}.deep.er=x") == "True  x"
    other = tmp_path / "other.jinja"
    other.write_text("from a file")
    assert rendered("--chat-template", str(other)) == "from a file"
    assert rendered("--chat-template={{ level }}text") == "text"
    with pytest.raises(RecipeError, match=r"gone\.jinja cannot be read here"):
        rendered("--chat-template", "gone.jinja")
    with pytest.raises(RecipeError, match="JSON object"):
        rendered(key, "no")
