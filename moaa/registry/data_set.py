"""The data that a model was trained on, as a data set that `datasets` and TRL read.

Below `<root>/datasets/<name>/<version>/`: README.md (the data card), and the tables of `TABLES` as
Parquet files of plain columns. The manifest is written last, as for the version itself.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final

from moaa.artifacts import Artifact, Draft, File, Output
from moaa.artifacts.table import Row
from moaa.registry.lineage import ancestors
from moaa.registry.versions import Version
from moaa.store import Store

DATA_SETS: Final = "datasets"
"""The folder of all published data, below the root of the store."""
SHARD_BYTES: Final = 256 << 20
"""The most text in a file, before compression."""


def _conversation(row: Row) -> dict[str, Any]:
    return {"messages": [_message(each["role"], each["content"]) for each in row["messages"]]}


def _preference(row: Row) -> dict[str, Any]:
    return {
        "prompt": _conversation(row)["messages"],
        "chosen": [_message("assistant", row["chosen"])],
        "rejected": [_message("assistant", row["rejected"])],
    }


def _message(role: str, content: str) -> dict[str, str]:
    # Arrow refuses half a surrogate pair, which models do write.
    return {"role": role, "content": content.encode(errors="replace").decode()}


@dataclass(frozen=True, slots=True)
class Published:
    """A table of the data set. `columns` have lists of messages, in TRL's form."""

    kind: str
    """The artifact that it is made from."""
    name: str
    columns: tuple[str, ...]


TABLES: Final = (
    Published("sft-data", "sft", ("messages",)),
    Published("preferences", "preference", ("prompt", "chosen", "rejected")),
)
_ROWS: Final = {"sft": _conversation, "preference": _preference}


@dataclass(frozen=True, slots=True)
class DataSet:
    """The data of a version."""

    uri: str
    counts: dict[str, Counter[str]]
    """How many rows each table has from each prompt source."""


def address(version: Version) -> str:
    """Return where the data of a version are: below the root of the version's own folder."""
    root = version.uri.rsplit("/", 3)[0]
    return f"{root}/{DATA_SETS}/{version.name}/{version.version}"


def sources(model: Artifact) -> dict[str, Artifact]:
    """Return the artifacts with the data of a trained model, by the name of their table."""
    kinds = {table.kind: table.name for table in TABLES}
    found: dict[str, Artifact] = {}
    for artifact in ancestors(model):
        if name := kinds.get(artifact.manifest.kind):
            found.setdefault(name, artifact)
    return {table.name: found[table.name] for table in TABLES if table.name in found}


def write_data_set(
    version: Version,
    store: Store,
    tables: Mapping[str, Artifact],
    card: Callable[[DataSet], str],
) -> None:
    """Write the tables, then README.md as `card` makes it, then the manifest.

    Existing data stay as they are. If it is killed before its end, the next call writes the same
    files again.
    """
    uri = address(version)
    if store.exists(f"{uri}/manifest.json"):
        return
    data = DataSet(uri, {name: Counter() for name in tables})
    with Output(store, uri, "data-set") as out:
        files = []
        for table in TABLES:
            if table.name in tables:
                rows = _counted(tables[table.name].rows(), data.counts[table.name])
                for number, made in enumerate(_shards(map(_ROWS[table.name], rows), table)):
                    files.append(_put(store, uri, f"data/{table.name}-{number:05d}.parquet", made))
        files.append(_put(store, uri, "README.md", card(data).encode()))
        out.adopt(files)
        out.commit(Draft(stage="publish", name=version.name, fingerprint=version.version))


def _counted(rows: Iterable[Row], counts: Counter[str]) -> Iterator[Row]:
    for row in rows:
        counts[row["source"]] += 1
        yield row


def _put(store: Store, uri: str, name: str, data: bytes) -> File:
    store.put(f"{uri}/{name}", data)
    return File(name=name, size=len(data), sha256=hashlib.sha256(data).hexdigest())


def _shards(rows: Iterable[dict[str, Any]], table: Published) -> Iterator[bytes]:
    """Yield Parquet files. The same rows always give the same files."""
    waiting: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        waiting.append(row)
        size += sum(len(each["content"]) for column in row.values() for each in column)
        if size >= SHARD_BYTES:
            yield _parquet(waiting, table)
            waiting, size = [], 0
    if waiting:
        yield _parquet(waiting, table)


def _parquet(rows: list[dict[str, Any]], table: Published) -> bytes:
    import pyarrow
    import pyarrow.parquet as parquet

    text = pyarrow.string()
    messages = pyarrow.list_(pyarrow.struct([("role", text), ("content", text)]))
    schema = pyarrow.schema([(name, messages) for name in table.columns])
    sink = BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows, schema), sink, compression="zstd")
    return sink.getvalue()
