"""What was looked at, what was found, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from moaa.errors import MoaaError


class PreflightFailed(MoaaError):
    """Something that the run needs is missing; the message lists each finding with its fix."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `fix` says what to do where it is not ok.

    `looked` is false for what could not be looked at from here: no reason to refuse, and not hidden
    either.
    """

    check: str
    ok: bool
    detail: str
    fix: str = ""
    looked: bool = True

    @property
    def word(self) -> Literal["ok", "FAIL", "?"]:
        return "FAIL" if not self.ok else "ok" if self.looked else "?"


def unseen(check: str, detail: str, fix: str = "") -> Finding:
    """A finding about what could not be looked at."""
    return Finding(check, True, detail, fix, looked=False)


def attempt(check: str, look: Callable[[], Any], detail: str, fix: str) -> Finding:
    """Ok when `look` raises nothing that a user can mend; else its words."""
    try:
        look()
    except MoaaError as error:
        return Finding(check, False, str(error), fix)
    return Finding(check, True, detail)


def refuse(found: Sequence[Finding]) -> None:
    """Raise PreflightFailed with all that is not ok."""
    bad = [finding for finding in found if not finding.ok]
    if bad:
        lines = "\n".join(f"  {f.check}: {f.detail}\n    fix: {f.fix}" for f in bad)
        raise PreflightFailed(f"{len(bad)} of {len(found)} checks failed\n{lines}")
