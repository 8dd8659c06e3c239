"""The declared columns and fields are those that the stages write."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet as parquet
import pytest

from moaa.artifacts import Artifact, Draft, File, Manifest, Output, formats
from moaa.artifacts.columns import TABLES, columns_of
from moaa.artifacts.fields import Field
from moaa.artifacts.table import Table
from tests.support import example_run
from tests.support.memory_store import MemoryStore
from tests.support.paths import ROOT
from tests.support.stage_run import run_stages

DRAFT = Draft(stage="any", name="test", fingerprint="f")
ARROW = {"string": "string", "int32": "int32", "double": "double", "bool": "bool"}
TYPES: dict[str, tuple[type, ...]] = {
    "text": (str,),
    "text or null": (str, type(None)),
    "whole number": (int,),
    "whole number or null": (int, type(None)),
    "number": (int, float),
    "number or null": (int, float, type(None)),
    "true or false": (bool,),
    "object": (dict,),
    "object or null": (dict, type(None)),
    "list of texts": (list,),
    "list of true or false": (list,),
    "list of numbers": (list,),
    "list of numbers or nulls": (list,),
    "list of objects": (list,),
}
ITEMS: dict[str, tuple[type, ...]] = {
    "list of texts": (str,),
    "list of true or false": (bool,),
    "list of numbers": (int, float),
    "list of numbers or nulls": (int, float, type(None)),
    "list of objects": (dict,),
}


pytestmark = pytest.mark.xdist_group("artifacts")  # its fixture is made once


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Artifact]]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield run_stages(tmp_path_factory.mktemp("prompts"), MemoryStore(), monkeypatch)


def mistakes(row: dict[str, Any], fields: tuple[Field, ...], where: str) -> Iterator[str]:
    """What in a row is not as it is declared."""
    for name in row.keys() - {field.name for field in fields}:
        yield f"{where}.{name} is not declared in moaa/artifacts/fields.py or columns.py"
    for field in fields:
        if field.name not in row:
            yield f"{where}.{field.name} is declared, but the row does not have it"
            continue
        value, fits = row[field.name], isinstance(row[field.name], TYPES[field.type])
        if not fits:
            yield f"{where}.{field.name} is {value!r}, no {field.type}"
        elif field.type.startswith("list of"):
            for item in value:
                fits = isinstance(item, ITEMS[field.type])
                if not fits:
                    yield f"{where}.{field.name} holds {item!r}"
                elif field.fields:
                    yield from mistakes(item, field.fields, f"{where}.{field.name}[]")
        elif field.fields:
            yield from mistakes(value, field.fields, f"{where}.{field.name}")


def parquets(artifact: Artifact, table: str) -> pyarrow.Table:
    files = [file for file in artifact.manifest.files if file.table == table]
    read = [artifact.store.get(f"{artifact.uri}/{file.path}") for file in files]
    return pyarrow.concat_tables(parquet.read_table(io.BytesIO(data)) for data in read)


def called(table: Table) -> str:
    return f"{table.kind}-{table.name}"


@pytest.mark.parametrize("table", TABLES, ids=called)
def test_every_row_of_a_stage_is_as_declared(table: Table, artifacts: dict[str, Artifact]) -> None:
    rows = list(artifacts[table.kind].rows(table.name))
    assert rows, "the run of this test writes no such row: add a prompt that does"
    assert [each for row in rows for each in mistakes(row, table.fields, called(table))] == []


def test_every_table_that_a_stage_writes_is_declared(artifacts: dict[str, Artifact]) -> None:
    written = {
        (kind, table) for kind, artifact in artifacts.items() for table in artifact.manifest.rows
    }
    assert written == {(table.kind, table.name) for table in TABLES}


def test_the_example_run_has_rows_as_the_stages_write_them() -> None:
    run = example_run.whole()
    declared = {(table.kind, table.name): table for table in TABLES}
    for record in run.records:
        if not (manifest := record["manifest"]):
            continue
        for name, rows in run.tables[manifest["uri"]].items():
            table = declared[manifest["kind"], name]
            for row in rows:
                assert list(mistakes(row, table.fields, called(table))) == []


@pytest.mark.parametrize("table", TABLES, ids=called)
def test_the_columns_of_a_file_are_as_declared(
    table: Table, artifacts: dict[str, Artifact]
) -> None:
    found = parquets(artifacts[table.kind], table.name)
    types = {field.name: str(field.type) for field in found.schema}
    declared = {column.name: ARROW[column.type] for column in table.columns}
    assert types == {"id": "string", **declared, "row": "large_string"}
    rows = [json.loads(text) for text in found.column("row").to_pylist()]
    assert found.column("id").to_pylist() == [row["id"] for row in rows]
    for column in table.columns:
        assert found.column(column.name).to_pylist() == [column.of(row) for row in rows]
    assert rows == list(artifacts[table.kind].rows(table.name))


@pytest.mark.parametrize(
    ("kind", "table", "column", "row", "value"),
    [
        ("prompts", "sft", "turns", {"turns": ["a", "b"]}, 2),
        ("prompts", "sft", "source", {"source": "mt-bench"}, "mt-bench"),
        ("sft-data", "data", "finish_reason", {"turns": [{"finish_reason": "length"},
                                                         {"finish_reason": "stop"}]}, "length"),
        ("sft-data", "data", "finish_reason", {"turns": [{"finish_reason": "stop"}]}, "stop"),
        ("sft-data", "data", "left_out", {"turns": [{"left_out": [{}]}, {"left_out": [{}]}]}, 2),
        ("samples", "data", "turns", {"messages": [{"role": "system"}, {"role": "user"}]}, 1),
        ("samples", "data", "samples", {"samples": [{}, {}]}, 2),
        ("preferences", "data", "margin", {"margin": 0.5}, 0.5),
        ("preferences", "judgements", "verdict", {"p": 0.7}, "a"),
        ("preferences", "judgements", "verdict", {"p": 0.2}, "b"),
        ("preferences", "judgements", "verdict", {"p": 0.5}, "tie"),
        ("scores", "judgements", "disagree", {"orders": [{"p": 0.9}, {"p": 0.6}]},
         True),
        ("scores", "judgements", "disagree", {"orders": [{"p": 0.9}, {"p": 0.4}]},
         False),
        ("scores", "judgements", "disagree", {"orders": [{"p": 0.5}, {"p": 0.5}]}, False),
        ("scores", "judgements", "disagree", {"orders": []}, None),
    ],
)  # fmt: skip
def test_what_a_column_holds(
    kind: str, table: str, column: str, row: dict[str, Any], value: Any
) -> None:
    (found,) = [each for each in columns_of(kind, table) if each.name == column]
    assert found.of(row) == value


def write(rows: list[dict[str, Any]], kind: str = "samples", table: str = "data") -> Artifact:
    store: Any = MemoryStore()
    with Output(store, f"{store.root}/x", kind) as out:
        for row in rows:
            out.write(row, table=table)
        return Artifact(store, out.commit(DRAFT))


def test_the_same_rows_give_the_same_bytes() -> None:
    rows = [{"id": str(n), "source": "s", "messages": [], "samples": [{}]} for n in range(50)]
    assert write(rows).manifest.files == write(rows).manifest.files


def test_a_table_that_is_not_declared_has_ids_and_rows() -> None:
    for artifact in (write([{"id": "a"}], kind="other"), write([{"id": "a"}], table="other")):
        (table,) = artifact.manifest.rows
        assert parquets(artifact, table).column_names == ["id", "row"]


def test_a_row_without_a_field_has_no_value_in_its_column() -> None:
    found = parquets(write([{"id": "a"}, {"source": "half \ud83d"}]), "data")
    assert found.column("source").to_pylist() == [None, "half ?"]
    assert found.column("samples").to_pylist() == [None, None]
    assert found.column("finish_reason").to_pylist() == [None, None]


def test_a_file_with_ids_and_rows_alone_is_read_as_before() -> None:
    """As earlier versions wrote it."""
    rows = [{"id": "a", "source": "s"}, {"id": "b", "turns": ["é"]}]
    sink = io.BytesIO()
    texts = [json.dumps(row, ensure_ascii=False).encode() for row in rows]
    old = pyarrow.table(
        {
            "id": pyarrow.array(["a", "b"], pyarrow.string()),
            "row": pyarrow.array(texts, pyarrow.large_string()),
        }
    )
    parquet.write_table(old, sink, compression="zstd", use_dictionary=False)
    data = sink.getvalue()
    store: Any = MemoryStore()
    name = "data/00000-0.parquet"
    store.put(f"{store.root}/x/{name}", data)
    digest = hashlib.sha256(data).hexdigest()
    file = File(name=name, table="data", rows=2, size=len(data), sha256=digest)
    manifest = Manifest(
        kind="sft-data", stage="generate", name="n", uri=f"{store.root}/x", fingerprint="f",
        created="2026-01-01T00:00:00+00:00", files=(file,), rows={"data": 2},
    )  # fmt: skip
    assert list(Artifact(store, manifest).rows()) == rows


# The page about data formats

PAGE = ROOT / "docs/data-formats.md"


def test_the_page_is_what_the_declarations_say() -> None:
    written = PAGE.read_text(encoding="utf-8")
    assert written == formats.page(), "run: python -m moaa.artifacts.formats docs/data-formats.md"


def test_the_lines_of_pandas_on_the_page_work(
    artifacts: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind, stage in formats.STAGES.items():
        artifacts[kind].download(tmp_path / stage)
    monkeypatch.chdir(tmp_path)
    imports, *examples = formats.examples()
    assert len(examples) == len(TABLES) + 2, "each table, a data set, a gateway's rows"
    for example in examples[: len(TABLES)]:
        *lines, last = example.strip().splitlines()
        names: dict[str, Any] = {}
        exec("\n".join([imports, *lines]), names)
        assert len(names["rows"]) == len(names["table"]) > 0
        assert eval(last, names) is not None
