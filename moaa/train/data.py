"""Rows of an artifact as token ids for the trainers.

Every row that is left out is counted by its reason.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moaa.artifacts.table import Row
from moaa.errors import RowRejected, TooManyRejected, TrainError
from moaa.recipe.schema import Dpo
from moaa.train import disk
from moaa.train.job import Job
from moaa.train.tokens import Template

CUT = "length"
"""The finish reason of an answer that was cut at the token limit."""

Example = dict[str, list[int]]


@dataclass
class Made:
    """What one row became: examples, and how many of its answers are in none, by reason."""

    examples: list[Example]
    left_out: Counter[str] = field(default_factory=Counter)
    cut: int = 0
    """Answers that were cut at the token limit: without loss on an end of turn."""


MakeExamples = Callable[[Template, Row], Made]


@dataclass
class Prepared:
    """A data set on this node's disk.

    `sequences` counts the units of a batch: rows, packed sequences, or pairs.
    """

    path: str = ""
    rows: int = 0
    sequences: int = 0
    tokens: int = 0
    merged_system: int = 0
    """Rows whose system message was put into the first user turn, because the template has no
    system role."""
    split: int = 0
    """Rows of several sequences: the template shows an answer differently
    when another turn follows."""
    cut: int = 0
    """Answers that were cut at the token limit: the model is not taught to stop there."""
    control_text: int = 0
    """Rows in which the text of a control token was kept as plain text."""
    dropped: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    """Answers of kept rows that are not trained on, by reason."""
    details: dict[str, str] = field(default_factory=dict)
    """For each reason, the problem of its first row."""
    end_of_turn: str = ""
    """The text that ends an answer."""
    system_role: bool = True
    """False if system messages are put into the first user turn: the model must then be asked this
    way too."""

    def facts(self) -> dict[str, Any]:
        """Return the numbers for the report."""
        return {
            "rows": self.rows,
            "dropped": dict(self.dropped),
            "sequences": self.sequences,
            "data_tokens": self.tokens,
            "merged_system": self.merged_system,
            "system_role": self.system_role,
            "end_of_turn": self.end_of_turn,
            "split": self.split,
            "cut_answers": self.cut,
            "control_texts": self.control_text,
            "answers_left_out": dict(self.left_out),
        }


def sft_examples(template: Template, row: Row) -> Made:
    """Return {input_ids, labels} of a conversation (`messages`;
    `turns` say which answers were cut)."""
    cut = {
        number
        for number, turn in enumerate(row.get("turns") or ())
        if turn.get("finish_reason") == CUT
    }
    found, left_out = template.sequences(row["messages"], cut)
    return Made([{"input_ids": ids, "labels": labels} for ids, labels in found], left_out, len(cut))


def dpo_examples(template: Template, row: Row) -> Made:
    """Return {prompt_ids, chosen_ids, rejected_ids} of a preference (`messages`, and the texts
    `chosen` and `rejected`; `chosen_cut` and `rejected_cut` say which were cut)."""
    if row["chosen"] == row["rejected"]:
        raise RowRejected("identical", "chosen and rejected are the same text")
    cut = [bool(row.get(f"{name}_cut")) for name in ("chosen", "rejected")]
    prompt, (chosen, rejected) = template.answers(
        row["messages"], [row["chosen"], row["rejected"]], cut
    )
    if chosen == rejected:
        raise RowRejected("identical", "chosen and rejected are the same to the template")
    return Made(
        [{"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected}], cut=sum(cut)
    )


def length(example: Example) -> int:
    """Return how many tokens go through the model together:
    for a pair the prompt and the longer answer."""
    if "prompt_ids" in example:
        answers = example["chosen_ids"], example["rejected_ids"]
        return len(example["prompt_ids"]) + max(map(len, answers))
    return len(example["input_ids"])


def tokens(example: Example) -> int:
    """Return how many tokens the example has: for a pair the prompt and both answers."""
    return sum(len(ids) for name, ids in example.items() if name != "labels")


def examples(
    make: MakeExamples, rows: Iterable[Row], template: Template, limit: int, counts: Prepared
) -> Iterator[Example]:
    """Yield the examples that can be trained on; `counts` counts what happened to each row."""
    for row in rows:
        try:
            made = make(template, row)
            fitting = [each for each in made.examples if length(each) <= limit]
            if not fitting:
                shortest = min(map(length, made.examples))
                raise RowRejected("too_long", f"{shortest} tokens are more than {limit}")
        except RowRejected as rejected:
            counts.dropped[rejected.reason] += 1
            counts.details.setdefault(rejected.reason, rejected.detail)
            continue
        made.left_out["too_long"] += len(made.examples) - len(fitting)
        counts.rows += 1
        counts.merged_system += template.merges(row["messages"])
        counts.split += len(made.examples) > 1
        counts.cut += made.cut
        counts.control_text += template.has_control_text(texts_of(row))
        counts.left_out += made.left_out  # leaves zeros out
        for example in fitting:
            counts.tokens += tokens(example)
            yield example


def texts_of(row: Row) -> list[str]:
    """Return every text of a row that is trained on."""
    answers = [row[name] for name in ("chosen", "rejected") if name in row]
    return [*(message["content"] for message in row["messages"]), *answers]


def held_out(row: Row, share: float) -> bool:
    """Return whether a row belongs to the share that is never trained on.

    The row's first question decides: all answers to a prompt are on one side, in SFT and in DPO.
    """
    first = next((m["content"] for m in row["messages"] if m["role"] == "user"), "")
    number = int.from_bytes(hashlib.sha256(f"held out\n{first}".encode()).digest()[:8])
    return number < share * 2**64


def prepare(
    job: Job,
    rows: Iterable[Row],
    template: Template,
    limit: int,
    folder: Path,
    name: str = "data",
) -> Prepared:
    """Write the job's data set `name` to `folder`; rows of more than `limit` tokens are left out.

    Raises TrainError, with the table of reasons, if no row is left.
    """
    counts = Prepared(path=str(folder / f"{name}.arrow"))
    make = dpo_examples if isinstance(job.numbers, Dpo) else sft_examples
    with disk.named(folder):
        counts.sequences = _write(examples(make, rows, template, limit, counts), Path(counts.path))
    total = counts.rows + counts.dropped.total()
    if not counts.rows:
        left_out = f"all {total} were left out." if total else "it has no rows."
        raise TrainError(
            f"No row of {job.data} can be trained on: {left_out}{_table(job, counts, limit)}"
            if name == "data"
            else f"{job.kind}.validation is {job.numbers.validation:g}, but of the rows of "
            f"{job.data} none is left to measure the training: {left_out} Raise the share, or set "
            f"it to 0.{_table(job, counts, limit)}"
        )
    if not isinstance(job.numbers, Dpo) and job.numbers.packing:
        _pack(counts, limit)
    return counts


def check_left_out(job: Job, parts: Iterable[Prepared], limit: int) -> None:
    """Check how many rows of the artifact were left out of all its parts together: in a small part,
    one row may be a large share.

    Raises TooManyRejected, with the table of reasons, if it is more than `job.max_rejected_share`.
    """
    counts = Prepared()
    for part in parts:
        counts.rows += part.rows
        counts.dropped += part.dropped
        counts.details = part.details | counts.details
    lost = counts.dropped.total()
    total = counts.rows + lost
    if lost > job.max_rejected_share * total:
        raise TooManyRejected(
            f"{lost} of {total} rows of {job.data} cannot be trained on "
            f"({lost / total:.1%}); the limit is {job.max_rejected_share:.1%} "
            f"(runtime.max_rejected_share).{_table(job, counts, limit)}\n"
            "  Fix the cause, or raise the limit to train on the rest, and run again: the rows "
            "are not made again."
        )


def _table(job: Job, counts: Prepared, limit: int) -> str:
    """Return every reason with the number of its rows, an example, and what to do."""
    text = ""
    for reason, count in counts.dropped.most_common():
        text += f"\n  {count:>7} {reason}   e.g. {counts.details[reason][:200]}"
    if counts.dropped["too_long"]:
        text += f"\n  {job.kind}.max_length is {limit}; raise it to keep longer rows."
    if counts.dropped["prompt_differs"] or counts.dropped["template_refuses"]:
        text += (
            f"\n  The chat template of {job.base} does not fit these conversations. "
            "`moaa preflight` shows which kinds it loses; engine_args of the target can name "
            "another one (--chat-template) or its variables (--default-chat-template-kwargs)."
        )
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
    """Put several conversations into one sequence, best fit first;
    `seq_lengths` has their lengths."""
    from trl.data_utils import pack_dataset

    packed = pack_dataset(read(counts.path), limit, "bfd")
    counts.path, counts.sequences = packed.cache_files[0]["filename"], len(packed)


def read(path: str) -> Any:
    """Return the data set at `path`, mapped into memory on every rank.

    A data set made in memory would differ from rank to rank.
    """
    from datasets import Dataset

    return Dataset.from_file(path)
