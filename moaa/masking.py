"""Replaces personal data and keys in texts by their kind: `[e-mail]`, `[phone]`, `[card]`, `[key]`.

Patterns find data with a form of its own. Names and addresses of people have no such form: they
stay. Telephone numbers are those that Google's libphonenumber accepts.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Final

KEY_STARTS: Final = (
    r"sk-|sk_live_|rk_live_|hf_|gh[oprsu]_|github_pat_|gl(?:pat|ptt|rt|cbt)-|xox[abeprs]-|xapp-"
    r"|AKIA|ASIA|nvapi-|AIza|ya29\.|npm_|pypi-|gsk_|xai-|pplx-|csk-|tgp_v1_|glsa_|dop_v1_"
)
"""The first characters of the keys of well-known services."""
TOKEN: Final = r"(?<![A-Za-z0-9])eyJ[A-Za-z0-9_\-]{8,}\.eyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{8,}"
"""A JSON web token."""
_KEY: Final = re.compile(
    rf"(?<![A-Za-z0-9])(?:{KEY_STARTS})[A-Za-z0-9_\-]{{12,}}|{TOKEN}"
    r"|-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----.{0,9999}?(?:-----END [A-Z ]{0,30}KEY-----|\Z)"
    r"|(?<=://)[^/\s:@]{1,100}:[^/\s@]{1,100}(?=@)",
    re.DOTALL,
)
_NAMED: Final = re.compile(
    r"(?i)\b(?P<name>(?:api[_ -]?key|secret|password|passwd|access[_ -]?token|bearer)"
    r"[\"']?\s*[:= ]\s*[\"']?)(?P<value>(?=[^\s\"']{0,200}\d)[^\s\"',;]{8,200})"
)
"""A value with a digit after a name such as `password`."""
_EMAIL: Final = re.compile(
    r"(?<![\w.+%-])[\w.+%-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![\w-])"
)
_CARD: Final = re.compile(
    r"(?<![\d.-])(?:[2-6]\d{3}(?:[ -]?\d{4}){2}[ -]?\d{1,7}|3[47]\d\d[ -]?\d{6}[ -]?\d{5})(?![\d-])"
)
_PHONE: Final = re.compile(
    r"(?<![\w.,:/+-])(?:\+|00)?\(?\d(?:[ ()./-]{0,3}\d){6,16}(?![\w-]|[.,:]\d)"
)
"""A text that may be a telephone number."""
_BREAKS: Final = re.compile(r"[ ()./-]+")
MOST_GROUPS: Final = 7
REGIONS: Final = ("US", "GB")
"""Countries whose telephone numbers are found without `+` and the country code."""


class Masker:
    """Masks texts, one after the other; `found` counts what was replaced in all of them."""

    def __init__(self, regions: Sequence[str] = REGIONS) -> None:
        self._regions = regions
        self.found: Counter[str] = Counter()

    def __call__(self, text: str) -> str:
        """Return the text as `masked` does."""
        changed, there = masked(text, self._regions)
        self.found.update(there)
        return changed


def masked(text: str, regions: Sequence[str] = REGIONS) -> tuple[str, Counter[str]]:
    """Return the text with its e-mail addresses, keys, card and telephone numbers replaced, and how
    many of each there were."""
    found: Counter[str] = Counter()

    def replace(kind: str, before: str = "") -> str:
        found[kind] += 1
        return f"{before}[{kind}]"

    text = _KEY.sub(lambda _: replace("key"), text)
    text = _NAMED.sub(lambda m: m[0] if "[key]" in m["value"] else replace("key", m["name"]), text)
    text = _EMAIL.sub(lambda _: replace("e-mail"), text)
    text = _CARD.sub(lambda m: replace("card") if _adds_up(m[0]) else m[0], text)
    text = _PHONE.sub(lambda m: replace("phone") if _is_phone(m[0], regions) else m[0], text)
    return text, found


def _adds_up(number: str) -> bool:
    """Return whether the last digit is the check digit of the others (Luhn's, ISO/IEC 7812)."""
    digits = [int(each) for each in reversed(number) if each.isdigit()]
    doubled = [sum(divmod(2 * each, 10)) for each in digits[1::2]]
    return (sum(digits[::2]) + sum(doubled)) % 10 == 0


def _is_phone(number: str, regions: Sequence[str]) -> bool:
    """Return whether it is a valid number with its country code,
    or without one in a region's own form."""
    if len(_BREAKS.findall(number)) > MOST_GROUPS:
        return False
    from phonenumbers import Leniency, PhoneNumberMatcher

    if PhoneNumberMatcher(number, None, Leniency.VALID).has_next():
        return True
    grouping = Leniency.STRICT_GROUPING
    return any(PhoneNumberMatcher(number, each, grouping).has_next() for each in regions)
