"""Rows of a JSONL, JSON, Parquet or CSV file. Memory use is bounded for any file."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

from moaa.errors import RecipeError, without_stop

READABLE: Final = (".jsonl", ".json", ".parquet")
"""The suffixes that are read in a folder."""
FILES: Final = (*READABLE, ".jsonl.zst", ".csv")
"""The suffixes that are read only if given, also as in `s3://…/*.jsonl.zst`."""
JSON_BYTES: Final = 1 << 30
"""A JSON file is read as a whole, so a larger one must be JSONL or Parquet."""
LINE_BYTES: Final = 64 << 20
ROW_GROUP_BYTES: Final = 4 << 30
"""The most bytes of a Parquet row group, unpacked: it is in memory at a time."""
BATCH_ROWS: Final = 64


def rows(path: Path) -> Iterator[Any]:
    """Yield the rows of a file. Raises RecipeError if it is not such a file,
    or too large to read."""
    readers: dict[str, Callable[[Path], Iterator[Any]]] = {
        ".parquet": _parquet,
        ".json": _json,
        ".jsonl": _jsonl,
        ".jsonl.zst": _jsonl,
        ".csv": _csv,
    }
    reader = next((each for end, each in readers.items() if path.name.endswith(end)), None)
    if reader is None:
        raise RecipeError(
            f"prompt source '{path}': {path.suffix or 'no suffix'} is not readable; use one of "
            f"{', '.join(readers)}"
        )
    yield from reader(path)


def _parquet(path: Path) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        _refuse_twice(path, file.schema_arrow.names)
        for number in range(file.num_row_groups):
            group = file.metadata.row_group(number)
            largest = max(group.total_byte_size, 0)
            if largest > ROW_GROUP_BYTES:
                raise RecipeError(
                    f"{path.name}: row group {number} has {_gib(largest)} unpacked; the limit is "
                    f"{_gib(ROW_GROUP_BYTES)}. Write the file again with smaller row groups."
                )
        for batch in file.iter_batches(BATCH_ROWS):
            if batch.nbytes > ROW_GROUP_BYTES:
                raise RecipeError(
                    f"{path.name}: {batch.num_rows} rows have {_gib(batch.nbytes)} unpacked; the "
                    f"limit is {_gib(ROW_GROUP_BYTES)}. Remove the columns that are no prompts."
                )
            yield from batch.to_pylist()
    # OSError is Arrow's for damaged pages; the others are for dates and times that Python does not
    # have, texts that are no UTF-8, and columns of one name.
    except (pa.ArrowException, OSError, ValueError, ArithmeticError, LookupError) as error:
        raise RecipeError(
            f"{path.name}: not a readable Parquet file ({without_stop(error)}). Write or copy it "
            "again."
        ) from None


def _json(path: Path) -> Iterator[Any]:
    if (size := path.stat().st_size) > JSON_BYTES:
        raise RecipeError(
            f"{path.name}: {_gib(size)} in one JSON document; the limit is {_gib(JSON_BYTES)}. "
            "Write it as .jsonl (an object a line) or as .parquet."
        )
    data = path.read_bytes()
    try:
        found = json.loads(data)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        line = (
            error.lineno
            if isinstance(error, json.JSONDecodeError)
            else data.count(b"\n", 0, error.start) + 1
        )
        raise RecipeError(
            f"{path.name}:{line}: not JSON ({without_stop(error)}). One list of objects is "
            "expected; call a file with an object a line .jsonl."
        ) from None
    except (RecursionError, ValueError) as error:  # nested too deep; a number of 5,000 digits
        raise RecipeError(f"{path.name}: not readable JSON ({without_stop(error)}).") from None
    if not isinstance(found, list):
        kind = "an object" if isinstance(found, dict) else "no list"
        raise RecipeError(
            f"{path.name}:1: the file holds {kind}. One list of objects is expected, [{{…}}, "
            f"{{…}}]."
        )
    yield from found


def _csv(path: Path) -> Iterator[Any]:
    csv.field_size_limit(LINE_BYTES)
    try:
        # Excel begins a file with a byte order mark.
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(_lines(path, stream), strict=True)
            _refuse_twice(path, reader.fieldnames or ())
            for row in reader:
                if None in row:
                    raise RecipeError(
                        f"{path.name}:{reader.line_num}: more fields than the first line has "
                        "names. Put quotes around texts with commas."
                    )
                yield row
    except (UnicodeDecodeError, csv.Error) as error:
        raise RecipeError(
            f"{path.name}: not readable CSV ({without_stop(error)}). A first line with the names "
            "of the columns is expected, in UTF-8, and quotes around texts with commas or line "
            "ends."
        ) from None


def _lines(path: Path, stream: IO[str]) -> Iterator[str]:
    while line := stream.readline(LINE_BYTES + 1):
        if len(line) > LINE_BYTES:
            raise RecipeError(f"{path.name}: a line is longer than {LINE_BYTES >> 20} MiB.")
        yield line


def _refuse_twice(path: Path, columns: Sequence[str]) -> None:
    """Refuse a file with two columns of one name: only one of them would be read."""
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise RecipeError(
            f"{path.name}: two columns are called {', '.join(map(repr, twice))}. Rename one."
        )


def _jsonl(path: Path) -> Iterator[Any]:
    # Read as bytes: json detects the encoding, and the error of a wrong byte has its line.
    with _opened(path) as stream:
        number = 0
        while line := stream.readline(LINE_BYTES + 1):
            number += 1
            if len(line) > LINE_BYTES:
                raise RecipeError(
                    f"{path.name}:{number}: the line is longer than {LINE_BYTES >> 20} MiB. One "
                    "JSON object a line is expected."
                )
            if line.strip():
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise RecipeError(
                        f"{path.name}:{number}: not JSON ({without_stop(error)}). One JSON object "
                        "a line is expected."
                    ) from None
                yield row


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """Yield the opened file, unpacked if it is packed with zstd."""
    if path.suffix != ".zst":
        with path.open("rb") as stream:
            yield stream
        return
    import pyarrow as pa

    try:
        with io.BufferedReader(pa.input_stream(str(path), compression="zstd")) as stream:
            yield stream
    except OSError as error:
        raise RecipeError(
            f"{path.name}: not a complete zstd file ({without_stop(error)}). Write or copy it "
            "again."
        ) from None


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
