"""Addresses of values in a recipe, in the form of `--set`: `label.judge.proposers[0].model`."""

from __future__ import annotations

import re

Address = tuple[str | int, ...]
"""Address of a value: ("label", "judge", "proposers", 0, "model")."""


def dotted(address: Address) -> str:
    """Return an address in the form of `--set`: `label.judge.proposers[0].model`.

    Keys with dots in them are in quotes.
    """
    text = ""
    for step in address:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += ("." if text else "") + (
                f'"{step}"' if not step or re.search(r'[.\[\]"=]', step) else step
            )
    return text


_STEP = re.compile(r'"([^"]*)"|\[(\d+)\]|([^.\[\]"]+)')


def parse_path(text: str) -> Address | None:
    """Return the address in a text of the form of `dotted`, or None if it is not one.

    A list's index may also be written `proposers.0`.
    """
    steps: list[str | int] = []
    position = 0
    while position < len(text):
        match = _STEP.match(text, position)
        if not match:
            return None
        quoted, index, bare = match.groups()
        steps.append(int(index) if index is not None else quoted if quoted is not None else bare)
        position = match.end()
        if position < len(text) and text[position] == ".":
            position += 1
            if position == len(text):
                return None
    return tuple(steps) or None
