"""The rights of an account that a chart makes."""

from __future__ import annotations

from typing import Any


def rights(role: dict[str, Any]) -> set[str]:
    """A Role as lines `verb resource.group [name]`."""
    return {
        f"{verb} {resource}{'.' + group if group else ''}{' ' + name if name else ''}"
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        for name in rule.get("resourceNames", [""])
    }
