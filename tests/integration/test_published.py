"""A published version is read by the libraries that its users have."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

from moaa.artifacts import Artifact
from moaa.recipe.load import load_file
from moaa.stages.publish import publish
from tests.support.memory_store import MemoryStore
from tests.support.paths import DEMO
from tests.support.publishing import inputs


def version(files: dict[str, bytes] | None = None) -> Artifact:
    """A version of the model with these files."""
    store = MemoryStore()
    recipe = load_file(DEMO, ["gate={}", "publish={}"]).recipe
    manifest, _ = publish.run(recipe, store, inputs(store, model=files))
    return Artifact.open(store, manifest.facts["published"]["uri"])


def test_the_hubs_own_library_reads_the_cards_metadata() -> None:
    from huggingface_hub import ModelCard

    found = version()
    data: Any = ModelCard(found.store.get(f"{found.uri}/README.md").decode()).data
    assert data.library_name == "transformers"
    results = {(each.dataset_name, each.metric_value) for each in data.eval_results}
    assert results == {("Head to head", 0.6), ("GSM8K", 0.6)}


def test_a_version_loads_with_two_lines_of_transformers(tmp_path: Path) -> None:
    """The lines of its card, as they stand there."""
    _tiny_model(tmp_path / "made")
    files = {path.name: path.read_bytes() for path in (tmp_path / "made").iterdir()}
    folder = version(files).download(tmp_path / "fetched")
    card = (folder / "README.md").read_text()
    code = card.partition("```python\n")[2].partition("```")[0]
    first, _, second, *_ = code.splitlines()
    assert first == "from transformers import pipeline"
    assert second == 'generate = pipeline("text-generation", "PATH")'
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(code.replace("PATH", str(folder)), {})
    assert "'role': 'assistant'" in said.getvalue()


def test_its_data_load_with_datasets_and_have_the_columns_that_trl_wants(tmp_path: Path) -> None:
    from datasets import load_dataset
    from trl.data_utils import is_conversational

    store = MemoryStore()
    recipe = load_file(DEMO, ["gate={}", "publish={data: true}"]).recipe
    manifest, _ = publish.run(recipe, store, inputs(store))
    folder = Artifact.open(store, manifest.facts["data"]).download(tmp_path / "data")
    cache = str(tmp_path / "cache")
    sft, preference = (
        load_dataset(str(folder), name, split="train", cache_dir=cache)
        for name in ("sft", "preference")
    )
    assert (sft.column_names, len(sft)) == (["messages"], 3)
    assert preference.column_names == ["prompt", "chosen", "rejected"]
    assert is_conversational(sft[0])
    assert is_conversational(preference[0])
    assert preference[0]["prompt"][-1]["role"] == "user"


def _tiny_model(folder: Path) -> None:
    """A model with random weights and a tokenizer of a few words, with a chat template."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = ["<unk>", "<end>", "user", "assistant", "Why", "is", "the", "sky", "blue"]
    tokenizer = Tokenizer(WordLevel({word: n for n, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    template = (
        "{% for m in messages %}{{ m.role }} {{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %} assistant {% endif %}"
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<end>", chat_template=template
    ).save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        eos_token_id=1,
        max_position_embeddings=64,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
