"""Rows of an artifact as the token ids that the trainers take. Every row that is left out is
counted by its reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moaa.errors import RowRejected, TrainError
from moaa.train.tokens import Template

Example = dict[str, list[int]]
Row = Mapping[str, Any]


@dataclass
class Prepared:
    """A data set on this node's disk. `sequences` counts what a batch is made of: rows, packed
    sequences, or pairs."""

    path: str = ""
    rows: int = 0
    sequences: int = 0
    tokens: int = 0
    merged_system: int = 0
    """Rows whose system message went into the first user turn, because the template knows no system
    role."""
    dropped: Counter[str] = field(default_factory=Counter)


def sft_example(template: Template, row: Row) -> Example:
    """{input_ids, labels} of a conversation (`messages`)."""
    ids, labels = template.conversation(row["messages"])
    return {"input_ids": ids, "labels": labels}


def dpo_example(template: Template, row: Row) -> Example:
    """{prompt_ids, chosen_ids, rejected_ids} of a preference (`messages`, and the texts `chosen`
    and `rejected`)."""
    if row["chosen"] == row["rejected"]:
        raise RowRejected("identical", "chosen and rejected are the same text")
    prompt, (chosen, rejected) = template.answers(row["messages"], row["chosen"], row["rejected"])
    if chosen == rejected:
        raise RowRejected("identical", "chosen and rejected are the same to the template")
    return {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected}


EXAMPLE: dict[str, Callable[[Template, Row], Example]] = {"sft": sft_example, "dpo": dpo_example}


def length(example: Example) -> int:
    """Tokens that go through the model together: of the longer answer, with its prompt, for a pair."""
    if "prompt_ids" in example:
        return len(example["prompt_ids"]) + max(
            len(example["chosen_ids"]), len(example["rejected_ids"])
        )
    return len(example["input_ids"])


def examples(
    kind: str, rows: Iterable[Row], template: Template, limit: int, counts: Prepared
) -> Iterator[Example]:
    """The rows that can be trained on, as token ids. `counts` says what happened to each."""
    make = EXAMPLE[kind]
    for row in rows:
        try:
            example = make(template, row)
            if length(example) > limit:
                raise RowRejected("too_long", f"{length(example)} tokens are more than {limit}")
        except RowRejected as rejected:
            counts.dropped[rejected.reason] += 1
            continue
        counts.rows += 1
        counts.merged_system += template.merges(row["messages"])
        counts.tokens += (
            sum(map(len, example.values())) if kind == "dpo" else len(example["input_ids"])
        )
        yield example


def prepare(
    kind: str,
    rows: Iterable[Row],
    template: Template,
    limit: int,
    folder: Path,
    *,
    packing: bool = False,
    source: str = "",
) -> Prepared:
    """Write the data set below `folder`. Raises TrainError, with the table of reasons, where no row
    is left."""
    counts = Prepared(path=str(folder / "data.arrow"))
    counts.sequences = _write(examples(kind, rows, template, limit, counts), Path(counts.path))
    if not counts.rows:
        reasons = "\n".join(f"  {n:>7} {reason}" for reason, n in counts.dropped.most_common())
        raise TrainError(
            f"No row of {source or 'the data'} can be trained on"
            + (
                f": all {counts.dropped.total()} were left out.\n{reasons}"
                if reasons
                else ": it has no rows."
            )
            + (
                f"\n{kind}.max_length is {limit}; raise it to keep longer rows."
                if counts.dropped["too_long"]
                else ""
            )
        )
    if packing:
        _pack(counts, limit)
    return counts


def _write(found: Iterator[Example], path: Path) -> int:
    """An Arrow stream that every rank maps into memory; rows are never all held at once."""
    import pyarrow as pa

    writer: pa.RecordBatchStreamWriter | None = None
    rows = 0
    batch: list[Example] = []

    def flush() -> None:
        nonlocal writer
        if batch:
            schema = pa.schema({name: pa.list_(pa.int32()) for name in batch[0]})
            writer = writer or pa.ipc.new_stream(str(path), schema)
            writer.write_batch(pa.RecordBatch.from_pylist(batch, schema))
            batch.clear()

    for example in found:
        batch.append(example)
        rows += 1
        if len(batch) == 500:
            flush()
    flush()
    if writer is not None:
        writer.close()
    return rows


def _pack(counts: Prepared, limit: int) -> None:
    """Several conversations in one sequence, best fit first; their extents stand in `seq_lengths`."""
    from trl.data_utils import pack_dataset

    packed = pack_dataset(read(counts.path), limit, "bfd")
    counts.path, counts.sequences = packed.cache_files[0]["filename"], len(packed)


def read(path: str) -> Any:
    """The data set at `path`, as every rank maps it. (One made in memory would differ from rank to
    rank.)"""
    from datasets import Dataset

    return Dataset.from_file(path)
