"""Rows of an artifact as token ids, as the trainers take them.

Every row that is left out is counted by its reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moaa.errors import RowRejected, TrainError
from moaa.recipe.schema import Dpo
from moaa.train.job import Job
from moaa.train.tokens import Template

Example = dict[str, list[int]]
Row = Mapping[str, Any]
MakeExample = Callable[[Template, Row], Example]


@dataclass
class Prepared:
    """A data set on this node's disk.

    `sequences` counts what a batch consists of: rows, packed sequences, or pairs.
    """

    path: str = ""
    rows: int = 0
    sequences: int = 0
    tokens: int = 0
    merged_system: int = 0
    """Rows whose system message was put into the first user turn, because the template has no
    system role."""
    dropped: Counter[str] = field(default_factory=Counter)


def sft_example(template: Template, row: Row) -> Example:
    """Return {input_ids, labels} of a conversation (`messages`)."""
    ids, labels = template.conversation(row["messages"])
    return {"input_ids": ids, "labels": labels}


def dpo_example(template: Template, row: Row) -> Example:
    """Return {prompt_ids, chosen_ids, rejected_ids} of a preference (`messages`, and the texts
    `chosen` and `rejected`)."""
    if row["chosen"] == row["rejected"]:
        raise RowRejected("identical", "chosen and rejected are the same text")
    prompt, (chosen, rejected) = template.answers(row["messages"], row["chosen"], row["rejected"])
    if chosen == rejected:
        raise RowRejected("identical", "chosen and rejected are the same to the template")
    return {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected}


def length(example: Example) -> int:
    """Return how many tokens go through the model together: of a pair the prompt and the longer
    answer."""
    if "prompt_ids" in example:
        answers = example["chosen_ids"], example["rejected_ids"]
        return len(example["prompt_ids"]) + max(map(len, answers))
    return len(example["input_ids"])


def tokens(example: Example) -> int:
    """Return how many tokens the example has: of a pair the prompt and both answers."""
    return sum(len(ids) for name, ids in example.items() if name != "labels")


def examples(
    make: MakeExample, rows: Iterable[Row], template: Template, limit: int, counts: Prepared
) -> Iterator[Example]:
    """Yield the rows that can be trained on; `counts` counts what happened to each row."""
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
        counts.tokens += tokens(example)
        yield example


def prepare(
    job: Job, rows: Iterable[Row], template: Template, limit: int, folder: Path
) -> Prepared:
    """Write the job's data set to `folder`; rows of more than `limit` tokens are left out.

    Raises TrainError, with the table of reasons, if no row is left.
    """
    counts = Prepared(path=str(folder / "data.arrow"))
    make = dpo_example if isinstance(job.numbers, Dpo) else sft_example
    counts.sequences = _write(examples(make, rows, template, limit, counts), Path(counts.path))
    if not counts.rows:
        raise TrainError(_no_row_left(job, counts, limit))
    if not isinstance(job.numbers, Dpo) and job.numbers.packing:
        _pack(counts, limit)
    return counts


def _no_row_left(job: Job, counts: Prepared, limit: int) -> str:
    left_out = counts.dropped.total()
    text = f"No row of {job.data} can be trained on: "
    text += f"all {left_out} were left out." if left_out else "it has no rows."
    for reason, count in counts.dropped.most_common():
        text += f"\n  {count:>7} {reason}"
    if counts.dropped["too_long"]:
        text += f"\n{job.kind}.max_length is {limit}; raise it to keep longer rows."
    return text


def _write(found: Iterator[Example], path: Path) -> int:
    """Write an Arrow stream that every rank maps into memory; return the number of rows.

    The rows are never all in memory.
    """
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
    """Put several conversations into one sequence, best fit first; `seq_lengths` has their
    lengths."""
    from trl.data_utils import pack_dataset

    packed = pack_dataset(read(counts.path), limit, "bfd")
    counts.path, counts.sequences = packed.cache_files[0]["filename"], len(packed)


def read(path: str) -> Any:
    """Return the data set at `path`, as every rank maps it.

    One that is made in memory would differ from rank to rank.
    """
    from datasets import Dataset

    return Dataset.from_file(path)
