"""Writes the page about data formats from the declarations of tables and fields.

python -m moaa.artifacts.formats docs/data-formats.md
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from moaa.artifacts.columns import FEEDBACK, TABLES
from moaa.artifacts.fields import Field
from moaa.artifacts.table import Table

STAGES = {
    "prompts": "prompts",
    "sft-data": "generate",
    "samples": "sample",
    "preferences": "label",
    "scores": "evaluate",
    "decision": "gate",
    "answers": "evaluation/answers",
    "judgements": "evaluation/judgements",
}
"""The folder of each kind of artifact: the stage that makes it, or what evaluate keeps."""

HEAD = """\
<!-- Generated: python -m moaa.artifacts.formats docs/data-formats.md -->
# Data formats

Each stage leaves one artifact on S3, below the recipe's `store.root`:

```
STAGE/FINGERPRINT/manifest.json                   what the artifact is; written last
STAGE/FINGERPRINT/TABLE/00000-DIGEST.parquet      rows; up to 20,000 in a file
STAGE/FINGERPRINT/model-ATTEMPT/                  the model, of sft and dpo
STAGE/FINGERPRINT/journal/                        answers of a stage that is not finished
STAGE/FINGERPRINT/owner/                          who works on it, while somebody does
evaluation/answers/FINGERPRINT/                   a contestant's answers, for later evaluations
evaluation/judgements/FINGERPRINT/                the judgements of a match, likewise
models/NAME/VERSION/                              a published model with its card and lineage
runs/RUN/STAGE.json                               how a stage of a run went; names its artifact
runs/RUN/report.html                              the report
```

`manifest.json` lists every file with its size and sha256, the number of rows of each table, the
artifacts it was made from (`parents`), the part of the recipe that the stage was given (`part`),
what was counted (`ledger`) and the numbers of the report (`facts`). A folder without a manifest is
not finished: do not use it.

A Parquet file has the column `id` (each table says of what), the columns listed below, and `row`:
the whole row as JSON text. The columns are copies, for looking and filtering; `row` alone is
complete. A file written by an earlier version may have `id` and `row` only. A field may be missing
from rows of earlier versions.

## Read it with pandas

Copy an artifact into a folder; every file is checked against its digest:

```
moaa fetch s3://moaa/demo/generate/FINGERPRINT generate
```

The lines below then work as they stand, after these:

```python
import json
import pandas
```

In Python without a copy (the environment names the S3 and its keys, as for a run):

```
from moaa.artifacts import Artifact
from moaa.store import Store
artifact = Artifact.open(Store("s3://moaa/demo"), "s3://moaa/demo/generate/FINGERPRINT")
rows = list(artifact.rows("data"))
```
"""

KINDS = {
    "prompts": "The three sets of prompts, without what is repeated or near to the evaluation.",
    "sft-data": "Conversations written by the mixture, and what could not be answered.",
    "samples": "Answers of the SFT model, several to a prompt.",
    "preferences": "Pairs of a better and a worse answer, and all that was judged.",
    "scores": "Scores, answers and judgements of all benchmarks of the evaluation.",
    "decision": "Whether the model may be published. The manifest's `facts.decision` is the whole "
    "decision: verdict, reason, power, findings.",
    "answers": "Answers of a contestant, kept for later evaluations with the same questions.",
    "judgements": "Judgements of a match, likewise.",
}

TAIL = """
## Models (`model`)

The artifacts of `sft` and `dpo` have no tables: they hold the files that transformers'
`save_pretrained` writes (`config.json`, `model.safetensors`, the tokenizer). `moaa fetch` copies
them; `AutoModelForCausalLM.from_pretrained(folder)` and vLLM load that folder. The manifest's
`facts` have the training's curve, steps and tokens.

## Published versions (`version`)

The artifact of `publish` has no tables: its `facts.published` names the version, or `facts.why`
says why there is none; `facts.data` is the address of the training data. `facts.registry` and
`facts.hub` say why a version is not shown there.

The version itself is an artifact of kind `model` at `models/NAME/VERSION`. Beside the model's files
are `README.md` (the model card), `canary.json` (how the model answers) and `lineage.json`:

| field | |
|---|---|
| `recipe` | `name`, `text` as it was run, `digest` (sha256 of the text) |
| `code` | `moaa` (version), `commit`; on a cluster `images`: `reference` and `digest` |
| `rounds` | that made it, in order: `run`, `trained`, `artifact` (the winner), `version` |
| `data` | of its round: `source`, `mixture`, `writers`, `labeller`, `conversations`, `pairs` |
| `artifacts` | what the model was made from: `uri`, `rows`; `content`: what was read |
| `system_role` | whether the model was trained with system messages of their own |
| `models` | those that took part: `roles`, `source`, `revision`, `licence`, `outcome` |
| `prompts` | the prompt sources |
| `scores` | of each benchmark the main numbers and the differences, with intervals |
| `decision` | of the gate |

`models/NAME/production.json` says which version is in production, and which ones were before.

The training data (`publish.data`) are at `datasets/NAME/VERSION`: `README.md` (the data card),
`data/sft-*.parquet` (`messages`) and `data/preference-*.parquet` (`prompt`, `chosen`, `rejected`):
lists of messages with `role` and `content`, as TRL takes them. In a copy of that folder:

```python
conversations = pandas.read_parquet("data/sft-00000.parquet").messages
pairs = pandas.read_parquet("data/preference-00000.parquet")
```

## Promotions (`promotion`)

The artifact of `promote` has no tables. Its `facts.promoted` names the version that is in
production now (`name`, `version`, `uri`), or is null; `facts.why` says why in both cases;
`facts.registry` says why a Kubeflow Model Registry does not show it.
"""

FEEDBACK_PAGE = """
## Questions and ratings of a gateway

A gateway with `feedback` ([mixtures online](mixtures-online.md)) keeps the questions of keys that
agreed, as JSON lines at `DAY/TIME-PROCESS-NUMBER.jsonl.zst` below `feedback.store.root`. A rating
that comes after its row was written is a row of its own: `id`, `time`, `key`, `rating`, `comment`,
`masked`.

| field | type | |
|---|---|---|
{fields}

```python
rows = pandas.read_json("2026-11-18/110640-7f3a9c-000001.jsonl.zst", lines=True)
rated = rows[rows.rating.notna()]
```
"""


def page() -> str:
    """Return the page as Markdown."""
    parts = [HEAD]
    for kind, stage in STAGES.items():
        parts.append(f"\n## {stage} (`{kind}`)\n\n{KINDS[kind]}\n")
        parts += [_table(table) for table in TABLES if table.kind == kind]
    feedback = FEEDBACK_PAGE.format(fields=_rows_of(FEEDBACK))
    return "".join([*parts, TAIL, feedback])


def examples() -> list[str]:
    """Return the page's lines of pandas: one block a table, then the others. The first imports."""
    return re.findall(r"```python\n(.*?)```", page(), re.DOTALL)


def _table(table: Table) -> str:
    stage = STAGES[table.kind]
    columns = "\n".join(f"| `{each.name}` | {each.type} | {each.about} |" for each in table.columns)
    (id_about,) = [field.about for field in table.fields if field.name == "id"]
    named = f"{columns}\n" if columns else ""
    return f"""
### {stage}/{table.name}

{table.about}

| column | type | |
|---|---|---|
| `id` | string | {id_about} |
{named}| `row` | large_string | The row, as JSON text. |

| field of `row` | type | |
|---|---|---|
{_rows_of(table.fields)}

```python
table = pandas.read_parquet("{stage}/{table.name}")
rows = pandas.DataFrame(map(json.loads, table.row))
{table.example}
```
"""


def _rows_of(fields: tuple[Field, ...]) -> str:
    """Return the rows of a table in Markdown about these fields, and those inside of them."""
    return "\n".join(f"| `{name}` | {each.type} | {each.about} |" for name, each in _walk(fields))


def _walk(fields: tuple[Field, ...], prefix: str = "") -> Iterator[tuple[str, Field]]:
    """Yield every field with its path; fields of a list's items are below `name[]`."""
    for field in fields:
        yield prefix + field.name, field
        inner = "[]." if field.type.startswith("list") else "."
        yield from _walk(field.fields, prefix + field.name + inner)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
