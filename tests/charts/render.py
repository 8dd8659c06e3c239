"""Charts rendered by helm, without a cluster.

python -m tests.charts.render      # renew golden/: what each values file of the examples renders to
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.paths import ROOT

HELM = ROOT / "helm"
GOLDEN = Path(__file__).with_name("golden")
SERVING, PLATFORM = HELM / "moaa-serving", HELM / "moaa-platform"
CHARTS = (SERVING, PLATFORM)
EXAMPLES = [example for chart in CHARTS for example in sorted((chart / "examples").glob("*.yaml"))]
FOR = ("--kube-version", "1.36.3")
"""The cluster's version for helm; its own guess depends on how it was built."""
MISSING = "helm is not on PATH, so no chart was rendered; CONTRIBUTING.md says how to get it"

needs_helm = pytest.mark.skipif(not shutil.which("helm"), reason=MISSING)


def helm(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["helm", *map(str, arguments)], capture_output=True, text=True, timeout=60
    )


def text(chart: Path, values: Path) -> str:
    """Return what `helm template` prints for a values file."""
    done = helm("template", "ex", chart, *FOR, "--namespace", "moaa", "--values", values)
    assert not done.returncode, done.stderr
    # The engines' API key is another one each time.
    out = re.sub(r"(  VLLM_API_KEY: )\w+={0,2}$", r"\1cmFuZG9t", done.stdout, flags=re.MULTILINE)
    # The number of blank lines depends on helm's version.
    return re.sub(r"\n+(?=---\n)", "\n", out).rstrip() + "\n"


def objects(chart: Path, values: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """Return all objects of a release `ex` in namespace `moaa`, with those of its tests."""
    with _file(values or {}) as file:
        return parsed(text(chart, file))


def refusal(chart: Path, values: dict[str, Any]) -> str:
    """Return helm's error message for values that it must refuse."""
    with _file(values) as file:
        done = helm("template", "ex", chart, *FOR, "--namespace", "moaa", "--values", file)
    assert done.returncode, f"helm took {values}"
    return done.stderr


def parsed(rendered: str) -> list[dict[str, Any]]:
    return [each for each in yaml.safe_load_all(rendered) if each]


def of(kind: str, found: list[dict[str, Any]], name: str | None = None) -> dict[str, Any]:
    """Return the one object of this kind (and name)."""
    fitting = [
        each for each in found if each["kind"] == kind and name in (None, each["metadata"]["name"])
    ]
    assert len(fitting) == 1, f"{len(fitting)} objects are {kind} {name or ''}"
    return fitting[0]


def pods(manifest: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the spec of every pod that an object is or creates."""
    if manifest["kind"] == "Pod":
        yield manifest["spec"]
    yield from _templates(manifest)


def _templates(value: Any) -> Iterator[dict[str, Any]]:
    children = value.values() if isinstance(value, dict) else value
    for child in children if isinstance(value, dict | list) else ():
        if isinstance(child, dict) and "containers" in child.get("spec", {}):
            yield child["spec"]
        yield from _templates(child)


@contextmanager
def _file(values: dict[str, Any]) -> Iterator[Path]:
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(values, file)
        file.flush()
        yield Path(file.name)


def golden(example: Path) -> Path:
    return GOLDEN / example.parents[1].name / example.name


if __name__ == "__main__":
    for example in EXAMPLES:
        golden(example).parent.mkdir(parents=True, exist_ok=True)
        golden(example).write_text(text(example.parents[1], example))
        print(f"wrote {golden(example)}")
