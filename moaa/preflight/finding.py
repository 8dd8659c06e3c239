"""The result of a check: what was checked, what was found, and how to fix it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from moaa.errors import MoaaError


class PreflightFailed(MoaaError):
    """The run lacks something that it needs. The message lists each finding with its fix."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. `fix` says what to do if it is not ok.

    `looked` is false if it could not be checked from here. It is shown, and does not fail the run.
    """

    check: str
    ok: bool
    detail: str
    fix: str = ""
    looked: bool = True

    @property
    def word(self) -> Literal["ok", "FAIL", "?"]:
        """Return the result in one word."""
        return "FAIL" if not self.ok else "ok" if self.looked else "?"


def unseen(check: str, detail: str, fix: str = "") -> Finding:
    """Return a finding about something that could not be checked from here."""
    return Finding(check, True, detail, fix, looked=False)


def attempt(check: str, look: Callable[[], Any], detail: str, fix: str) -> Finding:
    """Return an ok finding, or one with the message of the MoaaError that `look` raises."""
    try:
        look()
    except MoaaError as error:
        return Finding(check, False, str(error), fix)
    return Finding(check, True, detail)


def refuse(found: Sequence[Finding]) -> None:
    """Raise PreflightFailed if any finding is not ok."""
    bad = [finding for finding in found if not finding.ok]
    if bad:
        lines = "\n".join(f"  {f.check}: {f.detail}\n    fix: {f.fix}" for f in bad)
        raise PreflightFailed(f"{len(bad)} of {len(found)} checks failed\n{lines}")
