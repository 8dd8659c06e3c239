"""What helm/generate.py makes is up to date, complete and closed. Needs no helm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from helm import generate
from moaa import __version__
from tests.charts.render import CHARTS

by_chart = pytest.mark.parametrize("chart", CHARTS, ids=lambda chart: chart.name)


@by_chart
def test_schema_and_readme_are_those_of_the_values(chart: Path) -> None:
    for path, text in generate.generated(chart).items():
        assert path.read_text() == text, f"{path.name}: python helm/generate.py"


@by_chart
def test_every_object_of_the_schema_is_closed(chart: Path) -> None:
    """An object names its fields and takes no others, or the user chooses its keys. Kubernetes
    checks what belongs to a pod."""
    open_ones = []

    def look(path: str, schema: Any) -> None:
        if isinstance(schema, list):
            for each in schema:
                look(path, each)
        elif isinstance(schema, dict):
            kinds = schema.get("type", [])
            if (
                "object" in ([kinds] if isinstance(kinds, str) else kinds)
                and "additionalProperties" not in schema
            ):
                open_ones.append(path)
            for key, each in schema.items():
                look(f"{path}/{key}", each)

    look("", json.loads((chart / "values.schema.json").read_text()))
    ours = {
        path
        for path in open_ones
        if not path.endswith(("Volumes/items", "VolumeMounts/items", "tolerations/items"))
    }
    assert ours == {"/properties/global"}


@by_chart
def test_every_value_is_in_the_readme(chart: Path) -> None:
    readme = (chart / "README.md").read_text()

    def look(prefix: str, fields: tuple[generate.Field, ...]) -> None:
        for field in fields:
            assert field.text or field.children, f"{prefix}{field.name}"
            if field.children:
                look(f"{prefix}{field.name}.", field.children)
            else:
                assert f"| `{prefix}{field.name}` |" in readme

    look("", generate.fields((chart / "values.yaml").read_text()))


@by_chart
def test_chart_images_and_library_have_one_version(chart: Path) -> None:
    meta, values = (
        yaml.safe_load((chart / name).read_text()) for name in ("Chart.yaml", "values.yaml")
    )
    assert meta["version"] == meta["appVersion"] == __version__
    assert {image.partition(":")[2] for image in values["images"].values()} == {__version__}


def test_a_value_without_a_description_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a\.b has no description"):
        generate.fields("a:\n  # a remark\n  b: 1\n")


def test_comments_become_the_schema() -> None:
    text = (
        "# -- Some\n# text.\n# @schema {minimum: 1}\nn: 3\n"
        'm:\n  # -- Free.\n  # @schema {$ref: labels}\n  labels: {a: "b"}\n'
    )
    made = generate.schema(text, "t")
    assert made["properties"]["n"] == {"description": "Some text.", "type": "integer", "minimum": 1}
    assert made["properties"]["m"]["properties"]["labels"]["additionalProperties"] == {
        "type": "string"
    }
    assert generate.readme(text, f"x\n{generate.MARK}\n") == (
        "x\n| value | default | |\n|---|---|---|\n| `n` | `3` | Some text. |\n| `m.labels` | "
        '`{"a": "b"}` | Free. |\n'
    )
