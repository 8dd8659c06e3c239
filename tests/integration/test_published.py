"""A published version is read by the libraries that its users have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from moaa.artifacts import Artifact
from moaa.recipe.load import load_file
from moaa.stages.publish import publish
from tests.support.memory_store import MemoryStore
from tests.support.paths import DEMO
from tests.support.publishing import inputs

pytestmark = pytest.mark.real


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
    """The two lines of its card."""
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "made")
    files = {path.name: path.read_bytes() for path in (tmp_path / "made").iterdir()}
    version(files).download(tmp_path / "fetched")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "fetched")
    assert model.config.hidden_size == 16
