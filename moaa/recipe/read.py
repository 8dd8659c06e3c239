"""Reads and writes YAML: a text becomes a tree of `Given`,
each value with the place of its origin."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from moaa.recipe.addresses import Address

MAX_VALUES = 20_000
"""The most values: 64 KB of text can have more only by aliases of aliases."""
MAX_DEPTH = 50
"""A recipe is about 6 deep. An alias inside its own value would never end."""

_NO_YAML = (yaml.YAMLError, RecursionError, ValueError, OverflowError)  # the last two: an escape
_SCALARS: dict[str, tuple[str, str]] = {
    "tag:yaml.org,2002:null": (r"^(?:~|null|Null|NULL|)$", "~nN\0"),
    "tag:yaml.org,2002:bool": (r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    "tag:yaml.org,2002:int": (r"^[-+]?[0-9]+$", "-+0123456789"),
    "tag:yaml.org,2002:float": (
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        "-+.0123456789",
    ),
}
"""YAML 1.2's scalars. PyYAML's own (1.1) read `8e-7` as text, `no` as false and `12:30` as 750."""


@dataclass(slots=True)
class Given:
    """A value and its place (`demo.yaml:14`, `--set dpo.beta`). Containers hold `Given` again."""

    value: Any
    where: str
    wrong: bool = False
    """An error names it already, so what else is wrong with it only follows from that."""


class _Loader(yaml.SafeLoader):
    """PyYAML's own parser: slow, but its words for problems are the ones that we show."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012


class _FastLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """libyaml's parser, ten times as fast, if PyYAML was built with it."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012

    def ignore_aliases(self, data: Any) -> bool:
        return True


for _tag, (_pattern, _first) in _SCALARS.items():
    for _class in (_Loader, _FastLoader, _Dumper):
        _class.add_implicit_resolver(
            _tag, re.compile(_pattern), [c.replace("\0", "") for c in _first]
        )


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    # A YAML reader takes these for line ends: unless escaped, they come back as spaces.
    style = (
        '"' if re.search("[\r\x85\u2028\u2029\ufeff]", value) else "|" if "\n" in value else None
    )
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def read(text: str, name: str, errors: list[str], what: str = "a recipe") -> Given:
    """Return the tree of a YAML text; add the problems to `errors`.

    `name` is the file's name in places and errors, `what` the kind of document.
    """
    try:
        node = _compose(text)
    except _NO_YAML as e:
        mark = getattr(e, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        errors.append(f"{name}{line}: this is not YAML: {_problem(e)}.")
        return Given({}, name, wrong=True)
    if not isinstance(node, yaml.MappingNode):
        errors.append(
            f"{name}: {what} is a mapping of fields (`FIELD: VALUE`), but this is not one."
        )
        return Given({}, name, wrong=True)
    return _Reader(name, errors).given(node, node.start_mark.line)


def _compose(text: str) -> yaml.Node | None:
    """Return the root of a YAML text, None if the text is empty."""
    try:
        return yaml.compose(text, Loader=_FastLoader)
    except _NO_YAML:
        return yaml.compose(text, Loader=_Loader)


def _problem(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return f"it is nested more than {MAX_DEPTH} deep"
    return str(getattr(error, "problem", None) or error)


class _Reader:
    def __init__(self, name: str, errors: list[str]) -> None:
        self.name = name
        self.errors = errors
        self.values = 0
        self.too_deep = False

    def given(self, node: yaml.Node, line: int, depth: int = 0) -> Given:
        where = f"{self.name}:{line + 1}"
        if depth > MAX_DEPTH:
            if not self.too_deep:
                self.errors.append(
                    f"{where}: values are nested more than {MAX_DEPTH} deep; perhaps an alias "
                    "(*name) is inside its own value. Write it out."
                )
            self.too_deep = True
            return Given(None, where, wrong=True)
        self.values += 1
        if self.values > MAX_VALUES:
            if self.values == MAX_VALUES + 1:
                self.errors.append(
                    f"{where}: more than {MAX_VALUES} values; aliases (*name) multiply. Write "
                    "fewer of them."
                )
            return Given(None, where, wrong=True)
        if isinstance(node, yaml.MappingNode):
            return Given(self._mapping(node, depth), where)
        if isinstance(node, yaml.SequenceNode):
            items = [self.given(child, child.start_mark.line, depth + 1) for child in node.value]
            return Given(items, where)
        before = len(self.errors)
        value = self._scalar(node, where)
        return Given(value, where, wrong=len(self.errors) > before)

    def _mapping(self, node: yaml.MappingNode, depth: int) -> dict[str, Given]:
        lines: dict[str, int] = {}
        result: dict[str, Given] = {}
        for key, child in node.value:
            line = key.start_mark.line
            if not isinstance(key, yaml.ScalarNode):
                self.errors.append(
                    f"{self.name}:{line + 1}: a key must be plain text, not a list or a mapping."
                )
            elif key.value in lines:
                first = lines[key.value] + 1
                self.errors.append(
                    f"{self.name}:{line + 1}: '{key.value}' is here a second time (first in "
                    f"line {first}). Remove one."
                )
            else:
                lines[key.value] = line
                result[key.value] = self.given(child, line, depth + 1)
        return result

    def _scalar(self, node: yaml.Node, where: str) -> Any:
        text = str(node.value)
        match node.tag.removeprefix("tag:yaml.org,2002:"):
            case "str":
                return text
            case "null":
                return None
            case "bool":
                return text.lower() == "true"
            case "int" if len(text) < 40:
                return int(text)
            case "int":
                self.errors.append(
                    f"{where}: a number of {len(text)} digits is too long. Put quotes around it "
                    "if it is text."
                )
                return None
            case "float":
                return float(re.sub(r"\.(inf|nan)$", r"\1", text.lower()))
        self.errors.append(f"{where}: the tag {node.tag} is not allowed in a recipe. Remove it.")
        return None


def value_of(text: str, where: str, errors: list[str]) -> Given:
    """Return one YAML value (of `--set path=value`); all of it has the place `where`."""
    try:
        node = _compose(text)
    except _NO_YAML as e:
        errors.append(f"{where}: the value is not YAML: {_problem(e)}.")
        return Given(None, where, wrong=True)
    given = _Reader(where, errors).given(node, 0) if node is not None else Given(None, where)
    _move(given, where)
    return given


def given_of(value: Any, where: str) -> Given:
    """Return the tree of a JSON value; all of it has the place `where`.

    Kubeflow's objects have no integers: a whole number becomes an integer again.
    """
    if isinstance(value, dict):
        return Given({str(key): given_of(child, where) for key, child in value.items()}, where)
    if isinstance(value, list):
        return Given([given_of(child, where) for child in value], where)
    if isinstance(value, float) and value.is_integer():
        return Given(int(value), where)
    return Given(value, where)


def _move(given: Given, where: str) -> None:
    given.where = where
    children = (
        given.value.values()
        if isinstance(given.value, dict)
        else given.value
        if isinstance(given.value, list)
        else ()
    )
    for child in children:
        _move(child, where)


def merge(base: Given, over: Given) -> Given:
    """Return `over` merged over `base`: mappings field by field;
    all else, also lists, is replaced."""
    if not (isinstance(base.value, dict) and isinstance(over.value, dict)):
        return over
    fields = {
        **base.value,
        **{k: merge(base.value[k], v) if k in base.value else v for k, v in over.value.items()},
    }
    return Given(fields, over.where, base.wrong or over.wrong)


def copied(given: Given) -> Given:
    """Return the tree again: what is changed in one is not changed in the other."""
    if isinstance(given.value, dict):
        return Given({key: copied(child) for key, child in given.value.items()}, given.where)
    if isinstance(given.value, list):
        return Given([copied(child) for child in given.value], given.where)
    return Given(given.value, given.where)


def plain(given: Given) -> Any:
    """Return the tree without its places."""
    if isinstance(given.value, dict):
        return {key: plain(child) for key, child in given.value.items()}
    if isinstance(given.value, list):
        return [plain(child) for child in given.value]
    return given.value


def places(given: Given, address: Address = ()) -> Iterator[tuple[Address, Given]]:
    """Yield every value of the tree with its address, containers before their contents."""
    yield address, given
    if isinstance(given.value, dict):
        for key, child in given.value.items():
            yield from places(child, (*address, key))
    elif isinstance(given.value, list):
        for index, child in enumerate(given.value):
            yield from places(child, (*address, index))


def dump(data: Any, *, flow: bool = False) -> str:
    """Return YAML text that `read` turns into the same data; `flow`: on one line, for people."""
    if flow:
        return (
            str(
                yaml.dump(
                    data, Dumper=_Dumper, sort_keys=False, default_flow_style=True, width=10_000
                )
            )
            .removesuffix("\n...\n")
            .strip()
        )
    text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)
    if any(ord(c) > 0xFFFF for c in text):
        # Kubeflow's database refuses characters beyond the Basic Multilingual Plane: escape them.
        text = yaml.dump(data, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=False)
    return text


_ESCAPED = re.compile(r"[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]|[^\x00-\uffff]")
"""Characters that Kubeflow's database refuses,
or that YAML refuses or takes for the end of a line."""


def one_line(data: Any) -> str:
    """Return JSON on one line, which `read` turns into the same data. Characters that Kubeflow
    would change are escaped as in YAML."""
    text = json.dumps(data, ensure_ascii=False)
    return _ESCAPED.sub(lambda found: f"\\U{ord(found[0]):08X}", text)
