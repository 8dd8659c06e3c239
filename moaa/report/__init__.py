"""What people see of a run: one HTML page, a text for the terminal, a Markdown page for each stage.
Made only from run records.

RunView         the input of the others: records and declarations of the stages
build           the page, with examples read from the run's artifacts
page            the same with another reader of rows
failure         a page that says why there is no report
summary         the text at the end of a run
stage_markdown  one stage, for the Kubeflow UI
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from moaa.report.page import failure, page
from moaa.report.text import stage_markdown, summary
from moaa.report.view import RunView

if TYPE_CHECKING:
    from moaa.store import Store

__all__ = ["RunView", "build", "failure", "page", "stage_markdown", "summary"]


def build(run: RunView, store: Store) -> str:
    """Return one self-contained HTML page about a run, complete or broken.

    The page says what could not be read; no error is raised for it.
    """

    def read(manifest: Mapping[str, Any], table: str) -> Iterator[dict[str, Any]]:
        from moaa.artifacts import Artifact

        return Artifact.open(store, json.dumps(manifest)).rows(table)

    return page(run, read)
