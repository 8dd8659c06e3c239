"""What was measured on one machine: a JSON file, and a Markdown table made of it."""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COLUMNS = {
    "tokens_per_s": "tokens/s",
    "mfu": "MFU",
    "peak_memory_gib": "peak memory, GiB",
    "step_s": "s a step",
    "steps": "steps",
    "first_loss": "first loss",
    "last_loss": "last loss",
}
"""Measured fields that have a column of the table. The others stand under `more`."""


@dataclass(frozen=True)
class Results:
    """The results of one machine below `folder`. Each part replaces what it measured before."""

    folder: Path
    machine: Mapping[str, Any]
    """GPU, driver, versions of libraries, commit."""

    @property
    def path(self) -> Path:
        name = re.sub(r"[^a-z0-9]+", "-", str(self.machine["gpu"]).lower()).strip("-")
        return self.folder / f"gpu-{name}.json"

    def add(self, part: str, measured: Mapping[str, Any]) -> None:
        """Write down what `part` measured, and renew the table. Tests that run side by side wait
        for each other."""
        self.folder.mkdir(parents=True, exist_ok=True)
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            self._add(part, measured)
        finally:
            os.close(folder)

    def _add(self, part: str, measured: Mapping[str, Any]) -> None:
        found: dict[str, Any] = {}
        if self.path.exists():
            found = json.loads(self.path.read_text())["parts"]
        # Parts may be measured at different times: each says on what.
        found[part] = {"machine": dict(self.machine), **measured}
        parts = dict(sorted(found.items()))
        self.path.write_text(json.dumps({"schema_version": 1, "parts": parts}, indent=1) + "\n")
        self.path.with_suffix(".md").write_text(markdown(parts))


def markdown(parts: Mapping[str, Mapping[str, Any]]) -> str:
    """The results of a machine as a page: what it is, and one row for each part."""
    machines = [dict(part["machine"]) for part in parts.values()]
    lines = [f"# {machines[0]['gpu']}", ""]
    lines += ["Measured by `make test-gpu`. MFU: model FLOPs by the formula of PaLM, Appendix B,"]
    lines += ["as a share of the GPU's dense bfloat16 peak (`tests/gpu/flops.py`).", ""]
    lines += [f"- {name}: {_values(machines, name)}" for name in machines[0] if name != "gpu"]
    heads = ["part", *COLUMNS.values(), "more"]
    lines += ["", _row(heads), _row(["---"] * len(heads))]
    for name, part in parts.items():
        more = {k: v for k, v in part.items() if k not in COLUMNS and _is_short(v)}
        if len({str(machine["commit"]) for machine in machines}) > 1:
            more["commit"] = part["machine"]["commit"]
        cells = [name, *(_cell(column, part.get(column)) for column in COLUMNS)]
        lines.append(_row([*cells, ", ".join(f"{k} {v}" for k, v in more.items())]))
    return "\n".join(lines) + "\n"


def _values(machines: list[dict[str, Any]], name: str) -> str:
    return ", ".join(dict.fromkeys(str(machine.get(name)) for machine in machines))


def _is_short(value: Any) -> bool:
    return isinstance(value, str | int | float | bool)


def _cell(column: str, value: Any) -> str:
    if value is None:
        return "-"
    if column == "mfu":
        return f"{value:.1%}"
    return f"{value:,.0f}" if column == "tokens_per_s" else f"{value:.4g}"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
