"""A data set with several configurations, read by the real `datasets`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from moaa.errors import RecipeError
from moaa.prompts import sources
from moaa.recipe.schema import Source
from tests.support.memory_store import MemoryStore


def rows(*texts: str) -> bytes:
    return "".join(json.dumps({"prompt": text}) + "\n" for text in texts).encode()


def test_a_configuration_of_a_data_set_can_be_named(tmp_path: Path) -> None:
    card = "---\nconfigs:\n" + "".join(
        f"- config_name: {name}\n  data_files: {name}/train.jsonl\n" for name in ("main", "other")
    )
    (tmp_path / "README.md").write_text(f"{card}---\n")
    for name in ("main", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.jsonl").write_bytes(rows(f"A question of {name}?"))
    source = Source(source=f"hub:{tmp_path}")
    with pytest.raises(RecipeError, match="Set `config` of this source") as caught:
        list(sources.rows(source, MemoryStore()))
    assert "'main', 'other'" in str(caught.value)
    named = source.model_copy(update={"config": "other"})
    assert list(sources.rows(named, MemoryStore())) == [{"prompt": "A question of other?"}]
