"""How the Kubernetes API picks objects by selectors, and merges a patch."""

from __future__ import annotations

import re
from typing import Any

from aiohttp import web

from moaa.kubernetes.kinds import Object


def selects(request: web.Request, found: Object) -> bool:
    """Whether the request's label and field selectors pick this object."""
    labels = found["metadata"].get("labels") or {}
    for term in re.findall(r"[^,(]+(?:\([^)]*\))?", request.query.get("labelSelector", "")):
        if among := re.fullmatch(r"(\S+) in \((.*)\)", term):
            if labels.get(among[1]) not in among[2].split(","):
                return False
        elif "=" in term:
            key, value = term.split("=")
            if labels.get(key) != value:
                return False
        elif term not in labels:
            return False
    return all(
        _field(found, *term.split("="))
        for term in filter(None, request.query.get("fieldSelector", "").split(","))
    )


def _field(found: Object, path: str, value: str) -> bool:
    field: Any = found
    for key in path.split("."):
        field = field[key]
    return bool(field == value)


def merge(into: Object, patch: Object) -> None:
    """Apply a merge patch in place: None removes a key."""
    for key, value in patch.items():
        if value is None:
            into.pop(key, None)
        elif isinstance(value, dict):
            merge(into.setdefault(key, {}), value)
        else:
            into[key] = value
