"""Finds reasoning that a server left in the text of an answer, by the markers of public models.

Servers with a reasoning parser send the reasoning separately. Without a parser it would become a
proposal, a judged answer or training data.
"""

from __future__ import annotations

import re
from typing import Final, Literal, NamedTuple

Thought = Literal["", "marked", "opened by the prompt"]
"""How the reasoning in a text was marked: at both ends, or only at its end; empty if there is
none."""
_TAG = r"(?:\w+[:_])?(?:think|thinking|thought|thoughts|reasoning)"
"""`<think>` (Qwen, DeepSeek, GLM), `<seed:think>`, `<mm:think>`, `<thought>` (EXAONE), …"""


class _Marker(NamedTuple):
    """How a family of models marks its reasoning. `{}` in `closing` is the group of `opening`.

    `plain`: ordinary words, which are a marker only if both are present.
    """

    opening: str
    closing: str
    plain: bool = False


_MARKERS: Final = (
    _Marker(rf"<({_TAG})>", "</{}>"),
    _Marker(r"\[(THINK)\]", r"\[/{}\]"),  # Magistral
    _Marker("◁(think)▷", "◁/{}▷"),  # Kimi
    _Marker(r"<\|begin_of_thought\|>", r"<\|end_of_thought\|>"),  # OpenThinker
    _Marker(r"<\|START_THINKING\|>", r"<\|END_THINKING\|>"),  # Command A
    _Marker(r"<\|content_thinking\|>", r"<\|content_text\|>"),  # Inkling
    _Marker(r"<\|inner_prefix\|>", r"<\|inner_suffix\|>"),  # Apertus
    _Marker(r"<\|channel>thought\b", r"<channel\|>"),  # Gemma 4
    _Marker(  # gpt-oss
        r"(?:<\|start\|>assistant)?<\|channel\|>(?:analysis|commentary)<\|message\|>",
        r"<\|channel\|>final<\|message\|>",
    ),
    _Marker(r"(?-i:analysis(?=[A-Z]))", "(?-i:assistantfinal)"),  # gpt-oss, special tokens left out
    _Marker(  # Granite 3.2
        r"Here(?:'s| is) my thought process:", r"Here(?:'s| is) my response:", plain=True
    ),
)
_OPENINGS: Final = [re.compile(rf"\s*{marker.opening}", re.IGNORECASE) for marker in _MARKERS]
_OPENING_ANYWHERE: Final = re.compile(
    "|".join(marker.opening for marker in _MARKERS if not marker.plain), re.IGNORECASE
)
_CLOSING_ALONE: Final = re.compile(
    rf"</{_TAG}>|\[/THINK\]|◁/think▷|<\|end_of_thought\|>|<\|END_THINKING\|>", re.IGNORECASE
)
"""The end of a thought whose opening marker is in the prompt (DeepSeek-R1, Qwen3-Thinking)."""
_SIGNS: Final = ("<", "[", "◁", "analysis", "thought process")
"""A text without any of these has no marker."""
_QUOTES: Final = frozenset("`'\"“”‘’«»(<[*_")
_WRAPPED: Final = re.compile(
    r"\A\s*(?:<(answer|response|output)>(?P<xml>.*?)(?:</\1>|\Z)"
    r"|<\|begin_of_solution\|>(?P<solution>.*?)(?:<\|end_of_solution\|>|\Z)"
    r"|<\|START_RESPONSE\|>(?P<said>.*?)(?:<\|END_RESPONSE\|>|\Z))\s*\Z",
    re.IGNORECASE | re.DOTALL,
)
"""Marks that some of these models put around the answer itself."""


def without_thoughts(text: str) -> tuple[str, Thought]:
    """Return the text without the reasoning at its start, and how the reasoning was marked.

    Reasoning that does not end leaves no answer: the text is then empty. A marker that is only
    mentioned further down stays, with the rest of the text.
    """
    if not any(sign in text for sign in _SIGNS):  # most answers: the rest is slow
        return text, ""
    at = 0
    while (end := _end_of_marked(text, at)) is not None:
        at = end
    how: Thought = "marked"
    if not at and _CLOSING_ALONE.search(text):
        at, how = _end_of_opened(text), "opened by the prompt"
    if not at:
        return text, ""
    rest = text[at:]
    if wrapped := _WRAPPED.match(rest):
        rest = wrapped["xml"] or wrapped["solution"] or wrapped["said"] or ""
    return rest.strip(), how


def _end_of_marked(text: str, start: int) -> int | None:
    """Return where the thought ends whose opening marker is at `start`; None if there is none."""
    for marker, opening in zip(_MARKERS, _OPENINGS, strict=True):
        if opened := opening.match(text, start):
            closing = marker.closing.format(*(re.escape(group) for group in opened.groups()))
            if closed := re.compile(closing, re.IGNORECASE).search(text, opened.end()):
                return closed.end()
            if not marker.plain:
                return len(text)
    return None


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
