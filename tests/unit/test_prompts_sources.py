"""Rows of a prompt source, and what a malformed file says."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from moaa.errors import RecipeError
from moaa.prompts import files, sources
from moaa.recipe.schema import Source
from tests.support.memory_store import MemoryStore

ROWS = [{"prompt": "Why?"}, {"prompt": "How, in Köln?"}]


def read(path: Path, **more: int) -> list[object]:
    return list(sources.rows(Source(source=str(path), **more), MemoryStore()))


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet"])
def test_rows_of_each_kind(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"prompts.{kind}"
    match kind:
        case "jsonl":
            path.write_text("\n\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS))
        case "json":
            path.write_text(json.dumps(ROWS))
        case "parquet":
            pq.write_table(pa.Table.from_pylist(ROWS), path)
    assert read(path) == ROWS
    assert read(path, offset=1, limit=1) == ROWS[1:]


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("csv", "prompt,answer\r\nWhy?,So.\r\n"),
        ("json", '[{"prompt": "Why?", "answer": "So."}]'),
        ("jsonl", '{"prompt": "Why?", "answer": "So."}\n'),
    ],
)
def test_a_byte_order_mark_hides_no_column(kind: str, content: str, tmp_path: Path) -> None:
    (path := tmp_path / f"excel.{kind}").write_text(content, encoding="utf-8-sig")
    assert read(path) == [{"prompt": "Why?", "answer": "So."}]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", b'{"prompt": "x"}\n\n{"prompt": "y', "a.jsonl:3: not JSON"),
        ("a.jsonl", b'{"prompt": "x"}\n{"prompt": "\xff"}\n', "a.jsonl:2: not JSON"),
        ("a.json", b'[{"prompt": "x"},\n{"prompt": ', "a.json:2: not JSON"),
        ("a.json", b'[{"prompt": "x"},\n\n{"prompt": "\xff"}]', "a.json:3: not JSON"),
        (
            "a.json",
            b'{"prompt": "x"}\n{"prompt": "y"}\n',
            "call a file with an object a line .jsonl",
        ),
        ("a.json", b'{"data": [{"prompt": "x"}]}', "a.json:1: the file holds an object"),
        ("a.json", b"7", "a.json:1: the file holds no list"),
        ("a.json", b"", "a.json:1: not JSON"),
        ("a.parquet", b"PAR1 and no more", "a.parquet: not a readable Parquet file"),
        ("a.parquet", b"", "a.parquet: not a readable Parquet file"),
        ("a.csv", b"prompt\nWhy, and how?\n", "a.csv:2: more fields than the first line has names"),
        ("a.csv", b'prompt,answer\nx,y\n"z\nand so', "a.csv: not readable CSV"),
        ("a.csv", b'prompt\n"x" and "y"\n', "a.csv: not readable CSV"),
        ("a.csv", b"prompt,answer,prompt\nx,y,z\n", "a.csv: two columns are called 'prompt'"),
        ("a.txt", b"prompt\nx\n", ".txt is not readable"),
    ],
)
def test_a_malformed_file_is_the_users_to_mend(
    name: str, content: bytes, words: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RecipeError) as caught:
        read(tmp_path / name)
    assert words in str(caught.value)


def test_a_parquet_file_with_a_damaged_page(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist([{"prompt": f"What is {n}?"} for n in range(1000)]), path)
    data = bytearray(path.read_bytes())
    data[20:2000] = b"\xff" * 1980
    path.write_bytes(data)
    with pytest.raises(RecipeError, match=r"a\.parquet: not a readable Parquet file"):
        read(path)


FAR = 10**18


@pytest.mark.parametrize(
    "column",
    [
        pa.array([FAR], pa.timestamp("us")),
        pa.array([10**8], pa.int32()).cast(pa.date32()),
        pa.array([2**53], pa.duration("s")),
        pa.array([1], pa.timestamp("us", tz="Mars/Phobos")),
        pa.StructArray.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]),
        pa.array([{"when": FAR}], pa.struct({"when": pa.timestamp("us")})),
    ],
    ids=str,
)
def test_a_parquet_value_that_python_does_not_have_is_the_users_to_mend(
    column: pa.Array, tmp_path: Path
) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"prompt": ["Why?"], "more": column}), path)
    with pytest.raises(RecipeError, match=r"a\.parquet: not a readable Parquet file"):
        read(path)


def test_of_two_parquet_columns_of_one_name_none_is_lost_in_silence(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array(["x"]), pa.array(["y"])], ["prompt"] * 2), path)
    with pytest.raises(RecipeError, match="two columns are called 'prompt'"):
        read(path)


def test_a_long_field_of_csv_is_read_like_any_other(tmp_path: Path) -> None:
    (path := tmp_path / "a.csv").write_text(f"prompt,page\nWhy?,{'x' * 200_000}\n")
    assert read(path) == [{"prompt": "Why?", "page": "x" * 200_000}]


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet", "csv"])
def test_a_file_too_large_for_memory_is_refused_before_it_is_read(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"large.{kind}"
    large = [{"prompt": "Why? " * 1000}] * 3
    match kind:
        case "jsonl":
            path.write_text("\n".join(json.dumps(row) for row in large))
        case "json":
            path.write_text(json.dumps(large))
        case "parquet":
            pq.write_table(pa.Table.from_pylist(large), path)  # packed to a few hundred bytes
        case "csv":
            path.write_text("prompt\n" + "x" * 5000)
    for limit in ("JSON_BYTES", "LINE_BYTES", "ROW_GROUP_BYTES"):
        monkeypatch.setattr(files, limit, 1000)
    with pytest.raises(
        RecipeError,
        match=r"large\.(json: .* in one|jsonl:1: the line|parquet: |csv: a line is longer)",
    ):
        read(path)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[1" + "0" * 5000 + "]"])
@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_json_that_breaks_the_parser_is_the_users_to_mend(
    name: str, text: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(RecipeError, match=r"not (readable )?JSON"):
        read(tmp_path / name)


def test_rows_that_are_no_objects_are_rows(tmp_path: Path) -> None:
    """Whoever reads the prompts counts them as unreadable."""
    path = tmp_path / "a.jsonl"
    path.write_text('"a text"\n["a"]\n7\nnull\n')
    assert read(path) == ["a text", ["a"], 7, None]
