"""Finds reasoning that a server left in the text of an answer, by the markers of public models.

Servers with a reasoning parser send the reasoning separately. Without a parser it would become a
proposal, a judged answer or training data.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from typing import Final, Literal, NamedTuple

Thought = Literal["", "marked", "opened by the prompt"]
"""How the reasoning in a text was marked: at both ends, or only at its end;
empty if there is none."""
_TAG = (
    r"(?:\w+[:_|])?(?:think|thinking|thought|thoughts|reasoning)"
    r"(?:_fast(?:er)?)?(?::[^\s<>]{1,64})?"
)
"""`<think>` (Qwen, DeepSeek, GLM), `<seed:think>`, `<mm:think>`, `<thought>` (EXAONE),
`<ifm|think_fast>` (K2 Horizon), `<think:…>` (Hunyuan 4)."""


class _Marker(NamedTuple):
    """How a family of models marks its reasoning. `{}` is the `name`, the same at both ends.

    `plain`: ordinary words, which are a marker only if both are there.
    """

    opening: str
    closing: str
    name: str = ""
    plain: bool = False


_MARKERS: Final = (
    _Marker("<{}>", "</{}>", _TAG),
    _Marker(r"\[{}\]", r"\[/{}\]", "THINK"),  # Magistral
    _Marker("◁{}▷", "◁/{}▷", "think"),  # Kimi
    _Marker(r"<\|begin_of_thought\|>", r"<\|end_of_thought\|>"),  # OpenThinker
    _Marker(r"<\|START_THINKING\|>", r"<\|END_THINKING\|>"),  # Command A
    _Marker(r"<\|content_thinking\|>", r"<\|content_text\|>"),  # Inkling
    _Marker(r"<\|inner_prefix\|>", r"<\|inner_suffix\|>"),  # Apertus
    _Marker(r"<\|channel>thought\b", r"<channel\|>"),  # Gemma 4
    _Marker(r"<\|open\|>\s*think\s*<\|sep\|>", r"<\|close\|>\s*think\s*<\|sep\|>"),  # Kimi K3
    _Marker(r"<\|plamo:begin_think:plamo\|>", r"<\|plamo:end_think:plamo\|>"),  # PLaMo 3
    _Marker(  # Muse
        r"(?:<\|start\|>assistant\s*)?to=self<\|message\|>",
        r"<\|eom\|>(?:\s*(?:<\|start\|>assistant\s*)?to=user<\|message\|>)?",
    ),
    _Marker(  # gpt-oss
        r"(?:<\|start\|>assistant)?<\|channel\|>(?:analysis|commentary)<\|message\|>",
        r"<\|channel\|>final<\|message\|>",
    ),
    _Marker(r"(?-i:analysis(?=[A-Z]))", "(?-i:assistantfinal)"),  # gpt-oss, special tokens left out
    _Marker(  # Granite 3.2
        r"Here(?:'s| is) my thought process:", r"Here(?:'s| is) my response:", plain=True
    ),
)


def _named(pattern: str, marker: _Marker) -> str:
    """The pattern with a group around the marker's name, if it has one."""
    return pattern.replace("{}", f"({marker.name})")


_OPENINGS: Final = [
    re.compile(rf"[\s\ufeff\u200b]*{_named(marker.opening, marker)}", re.IGNORECASE)
    for marker in _MARKERS
]
_OPENING_ANYWHERE: Final = re.compile(
    "|".join(_named(marker.opening, marker) for marker in _MARKERS if not marker.plain),
    re.IGNORECASE,
)
_MARKS: Final = re.compile(
    "|".join(
        rf"(?P<{end}{place}>{_named(pattern, marker)})"
        for place, marker in enumerate(_MARKERS)
        if not marker.plain
        for end, pattern in (("opens", marker.opening), ("closes", marker.closing))
    )
    + "|(?P<fence>```|~~~)",
    re.IGNORECASE,
)
"""Every opening and closing marker, and the fences of code blocks."""
_CLOSING_ALONE: Final = re.compile(
    rf"</{_TAG}>|\[/THINK\]|◁/think▷|<\|end_of_thought\|>|<\|END_THINKING\|>"
    r"|<\|close\|>\s*think\s*<\|sep\|>|<\|plamo:end_think:plamo\|>",
    re.IGNORECASE,
)
"""The end of a thought whose opening marker is in the prompt (DeepSeek-R1, Qwen3-Thinking)."""
_SIGNS: Final = (
    "think",
    "thought",
    "reasoning",
    "<|channel",
    "<|inner_prefix",
    "analysis",
    "to=self",
)
"""Without one of these (in small letters) there is no marker."""
MOST_NESTED: Final = 64
"""How many markers inside a thought are looked at."""
_QUOTES: Final = frozenset("`'\"“”‘’«»(<[*_")
_WRAPPED: Final = re.compile(
    r"\A\s*(?:<(answer|response|output)>(?P<xml>.*?)(?:</\1>|\Z)"
    r"|<\|begin_of_solution\|>(?P<solution>.*?)(?:<\|end_of_solution\|>|\Z)"
    r"|<\|open\|>\s*response\s*<\|sep\|>(?P<xtml>.*?)(?:<\|close\|>\s*response\s*<\|sep\|>"
    r"(?:<\|close\|>\s*message\s*<\|sep\|>)?|\Z)"
    r"|<\|START_RESPONSE\|>(?P<said>.*?)(?:<\|END_RESPONSE\|>|\Z))\s*\Z",
    re.IGNORECASE | re.DOTALL,
)
"""Marks that some of these models put around the answer itself."""


def without_thoughts(text: str) -> tuple[str, Thought]:
    """The text without its reasoning, and how that was marked.

    Reasoning is what stands between markers at the start of the text or of a later line, and all
    that follows such a piece. Reasoning at the start that does not end leaves no answer: the text
    is empty then. A marker that is only mentioned, or stands in a code block, stays.
    """
    small = text.lower()
    if not any(sign in small for sign in _SIGNS):  # most answers: the rest takes its time
        return text, ""
    at = 0
    while (end := _end_of_marked(text, at)) is not None:
        at = end
    how: Thought = "marked"
    if not at and _CLOSING_ALONE.search(text):
        at, how = _end_of_opened(text), "opened by the prompt"
    pieces = list(_between_later(text, at))
    if not at and len(pieces) == 1:
        return text, ""
    rest = _joined(pieces)
    if wrapped := _WRAPPED.match(rest):
        rest = next((part for part in wrapped.groupdict().values() if part), "")
    return rest.strip(), how if at else "marked"


def _between_later(text: str, at: int) -> Iterator[str]:
    """The pieces of `text[at:]` between the thoughts in it.

    Such a thought has both markers. It begins a line, or follows one that was taken out.
    """
    marks = list(_MARKS.finditer(text, at))
    closings: list[int | None] = [None] * len(marks)
    nearest: dict[tuple[str, str], int] = {}
    for place in range(len(marks) - 1, -1, -1):
        kind = marks[place].lastgroup or ""
        key = (kind.removeprefix("opens").removeprefix("closes"), _name(marks[place]))
        if kind.startswith("closes"):
            nearest[key] = place
        elif kind.startswith("opens"):
            closings[place] = nearest.get(key)
    start, follows, fence, place = at, at > 0, "", 0
    while place < len(marks):
        mark, closing = marks[place], closings[place]
        place += 1
        if mark.lastgroup == "fence":
            fence = "" if fence == mark[0] else fence or mark[0]
        elif closing is not None and not fence and _is_thought(text, mark, marks[closing], follows):
            yield text[start : mark.start()]
            start, follows, place = marks[closing].end(), True, closing + 1
    yield text[start:]


def _name(mark: re.Match[str]) -> str:
    """The marker's name: of `<think>` and `</think>` it is `think`."""
    return next((each.lower() for each in mark.groups()[mark.lastindex or 0 :] if each), "")


def _is_thought(text: str, opening: re.Match[str], closing: re.Match[str], follows: bool) -> bool:
    """Whether this is a thought, and no sentence about markers. `follows`: one was taken out."""
    if text[closing.start() - 1] == " " and text[closing.end() : closing.end() + 1] == " ":
        return False  # "<think> and </think> are its tags"
    before = text[max(0, opening.start() - 4) : opening.start()]
    if follows:
        return before[-1:] not in _QUOTES
    line = before.rpartition("\n")
    return bool(line[1]) and not line[2].strip(" ")


def _joined(pieces: Sequence[str]) -> str:
    """One text: a thought between two lines or words becomes a blank line, else a blank."""
    found: list[str] = []
    gap = ""
    for piece in pieces:
        text = piece.strip()
        if not text:
            gap += piece
            continue
        start = piece.index(text)
        gap += piece[:start]
        found += [" " if gap and "\n" not in gap else "\n\n"] if found else []
        found.append(text)
        gap = piece[start + len(text) :]
    return "".join(found)


def _end_of_marked(text: str, start: int) -> int | None:
    """Where the thought ends whose opening marker stands at `start`; None if there is none."""
    for marker, opening in zip(_MARKERS, _OPENINGS, strict=True):
        if opened := opening.match(text, start):
            name = re.escape("".join(opened.groups()))
            ends = [each.replace("{}", name) for each in (marker.opening, marker.closing)]
            if (end := _end_of_nested(text, opened.end(), *ends)) is not None:
                return end
            if not marker.plain:
                return len(text)
    return None


def _end_of_nested(text: str, start: int, opening: str, closing: str) -> int | None:
    """Return where the thought ends that is open at `start`, with the thoughts in it; None if
    nothing closes it.

    A quoted marker in it is a mention. If it opens more than it closes, it ends at its first end.
    """
    first = re.compile(closing, re.IGNORECASE).search(text, start)
    if first is None:
        return None
    open_now = 1
    marks = re.compile(f"(?P<opens>{opening})|{closing}", re.IGNORECASE)
    for mark in itertools.islice(marks.finditer(text, start), MOST_NESTED):
        around = (text[mark.start() - 1], text[mark.end() : mark.end() + 1])
        if not _QUOTES.issuperset(around):
            open_now += 1 if mark["opens"] else -1
        if not open_now:
            return mark.end()
    return first.end()


def _end_of_opened(text: str) -> int:
    """Return where a thought ends that the prompt opened; 0 if there is none.

    It ends at a closing marker without an opening one before it. A marker that is quoted, in a code
    block or inside a sentence is a mention.
    """
    opened = _OPENING_ANYWHERE.search(text)
    counted = fences = 0
    for closing in _CLOSING_ALONE.finditer(text, 0, opened.start() if opened else len(text)):
        fences += text.count("```", counted, closing.start())
        counted = closing.start()
        if fences % 2 == 0 and not _is_mention(text, closing):
            return closing.end()
    return 0


def _is_mention(text: str, marker: re.Match[str]) -> bool:
    before, after = (
        text[max(0, marker.start() - 1) : marker.start()],
        text[marker.end() : marker.end() + 2],
    )
    if before in (" ", "\t"):
        return after != "\n\n"
    return before in _QUOTES or after[:1] in _QUOTES
