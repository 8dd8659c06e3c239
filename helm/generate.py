"""Writes values.schema.json and README.md of each chart from its values.yaml and README.in.md.

    python helm/generate.py              write them
    python helm/generate.py --check      list what is not up to date; exit status 1 if anything is

In values.yaml, above a field: `# -- text` describes it. `# @schema {…}` adds to the type of its
default. It holds JSON Schema and three keys more:

$ref: NAME          one of DEFINITIONS
itemsLike: FIELD    a list; its items have the fields of FIELD and those of `extra`
valuesLike: FIELD   a mapping; its keys are `keys`, its values have the fields of FIELD
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CHARTS = tuple(Path(__file__).parent / name for name in ("moaa-serving", "moaa-platform"))
MARK = "<!-- values -->"

_DNS = "[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?"
_QUANTITY = r"[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti|P|Pi)?"
_QUANTITIES = {"type": "object", "additionalProperties": {"$ref": "#/definitions/quantity"}}
DEFINITIONS: dict[str, dict[str, Any]] = {
    # A tag or a digest is required, and the tag must name a version.
    "image": {
        "type": "string",
        "pattern": "^([A-Za-z0-9.-]+(:[0-9]+)?/)?[a-z0-9._/-]+"
        "(:[A-Za-z0-9_][A-Za-z0-9._-]{0,127}(@sha256:[0-9a-f]{64})?|@sha256:[0-9a-f]{64})$",
        "not": {"pattern": ":latest(@|$)"},
    },
    "name": {"type": "string", "pattern": f"^{_DNS}$"},
    "nameOrNone": {"type": "string", "pattern": f"^({_DNS})?$"},
    "modelName": {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$"},
    "poolName": {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$"},
    "labels": {"type": "object", "additionalProperties": {"type": "string"}},
    "quantity": {"type": "string", "pattern": f"^{_QUANTITY}$"},
    "quantityOrNone": {"type": "string", "pattern": f"^({_QUANTITY})?$"},
    "resources": {
        "type": "object",
        "additionalProperties": False,
        "properties": {"requests": _QUANTITIES, "limits": _QUANTITIES},
    },
    "cidr": {"type": "string", "pattern": "^[0-9a-fA-F.:]+/[0-9]{1,3}$"},
    "port": {"type": "integer", "minimum": 1, "maximum": 65535},
    "duration": {"type": "string", "pattern": "^([0-9]+(ms|s|m|h))+$"},
    "cron": {"type": "string", "pattern": r"^(@[a-z]+|\S+( \S+){4})$"},
}
_TYPES = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
}


@dataclass(frozen=True, slots=True)
class Field:
    """One value of values.yaml, with its description and schema."""

    name: str
    default: Any
    text: str
    given: dict[str, Any]
    children: tuple[Field, ...]


def fields(text: str) -> tuple[Field, ...]:
    """Return the fields of a values.yaml in order. Raises ValueError if one has no description."""
    lines = text.splitlines()
    return tuple(_fields(yaml.compose(text), yaml.safe_load(text), lines, ""))


def _fields(
    node: yaml.Node | None, values: dict[str, Any], lines: list[str], path: str
) -> Iterator[Field]:
    assert isinstance(node, yaml.MappingNode)
    for key, value in node.value:
        text, given = _comments(lines, key.start_mark.line)
        default = values[key.value]
        nested = isinstance(value, yaml.MappingNode) and bool(value.value) and not _free(given)
        children = tuple(_fields(value, default, lines, f"{path}{key.value}.")) if nested else ()
        if not text and not children:
            raise ValueError(f"{path}{key.value} has no description: write `# -- …` above it")
        yield Field(key.value, default, text, given, children)


def _free(given: dict[str, Any]) -> bool:
    """Return whether users choose the keys: the value is a default then, not a list of fields."""
    return bool({"$ref", "valuesLike", "additionalProperties"} & given.keys())


def _comments(lines: list[str], line: int) -> tuple[str, dict[str, Any]]:
    """Return the description and the schema in the comment above a line."""
    first = line
    while first and lines[first - 1].lstrip().startswith("#"):
        first -= 1
    words: list[str] = []
    given: dict[str, Any] = {}
    for comment in (each.strip().removeprefix("#").strip() for each in lines[first:line]):
        if comment.startswith("@schema "):
            given |= yaml.safe_load(comment.removeprefix("@schema "))
        elif comment.startswith("-- "):
            words = [comment.removeprefix("-- ")]
        elif words:
            words.append(comment)
    return " ".join(words), given


def schema(text: str, title: str) -> dict[str, Any]:
    """Return the JSON Schema of a values.yaml, in draft 7, which every Helm reads."""
    top = fields(text)
    # Helm adds the value `global` to every chart.
    made = _object(top, {each.name: each for each in top})
    made["properties"]["global"] = {"type": "object"}
    used = json.dumps(made)
    kept = {
        name: definition
        for name, definition in DEFINITIONS.items()
        if f"#/definitions/{name}" in used or name == "quantity"
    }
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": title,
        **made,
        "definitions": kept,
    }


def _object(parts: tuple[Field, ...], top: dict[str, Field]) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {part.name: _property(part, top) for part in parts},
    }


def _property(part: Field, top: dict[str, Field]) -> dict[str, Any]:
    given = dict(part.given)
    described = {"description": part.text} if part.text else {}
    if part.children:
        return described | _object(part.children, top) | given
    if "itemsLike" in given:
        item = _object(top[given.pop("itemsLike")].children, top)
        extra = {name: _resolved(each) for name, each in given.pop("extra").items()}
        item["properties"] = extra | item["properties"]
        item["required"] = given.pop("required")
        return described | {"type": "array", "items": item} | given
    if "valuesLike" in given:
        # `name:` with nothing after it is null: only defaults.
        each = _object(top[given.pop("valuesLike")].children, top) | {"type": ["object", "null"]}
        names = _resolved({"$ref": given.pop("keys")})
        values = {"type": "object", "propertyNames": names, "additionalProperties": each}
        return described | values | given
    kind = {"type": _TYPES[type(part.default)]}
    if "$ref" in given:
        kind = DEFINITIONS[given.pop("$ref")]
    own: dict[str, Any] = _resolved(given)
    return described | kind | own


def _resolved(given: Any) -> Any:
    """Return `given` with every `$ref: NAME` as JSON Schema writes it."""
    if isinstance(given, dict):
        return {
            key: f"#/definitions/{value}" if key == "$ref" else _resolved(value)
            for key, value in given.items()
        }
    return given


def readme(text: str, page: str) -> str:
    """Return the page with a table of all values in place of its mark."""
    rows = ["| value | default | |", "|---|---|---|"]
    rows += [_row(path, part) for path, part in _flat(fields(text), "")]
    return page.replace(MARK, "\n".join(rows))


def _flat(parts: tuple[Field, ...], prefix: str) -> Iterator[tuple[str, Field]]:
    for part in parts:
        if part.children:
            yield from _flat(part.children, f"{prefix}{part.name}.")
        else:
            yield f"{prefix}{part.name}", part


def _row(path: str, part: Field) -> str:
    default = json.dumps(part.default, ensure_ascii=False)
    words = part.text
    if allowed := part.given.get("enum"):
        words += f" One of {', '.join(f'`{each}`' for each in allowed)}."
    cells = (cell.replace("|", "\\|") for cell in (f"`{path}`", f"`{default}`", words))
    return f"| {' | '.join(cells)} |"


def generated(chart: Path) -> dict[Path, str]:
    """Return the generated files of a chart: {path: text}."""
    text, page = (chart / "values.yaml").read_text(), (chart / "README.in.md").read_text()
    made = json.dumps(schema(text, f"Values of {chart.name}"), indent=2, ensure_ascii=False) + "\n"
    notice = "<!-- Written by helm/generate.py from values.yaml and README.in.md. -->\n"
    return {chart / "values.schema.json": made, chart / "README.md": notice + readme(text, page)}


def main() -> int:
    """Write the files, or check them. Return the exit status."""
    stale = 0
    for path, text in (item for chart in CHARTS for item in generated(chart).items()):
        if path.exists() and path.read_text() == text:
            continue
        if "--check" in sys.argv[1:]:
            stale += 1
            print(f"{path} is not up to date: python helm/generate.py")
        else:
            path.write_text(text)
            print(f"wrote {path}")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
