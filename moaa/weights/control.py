"""The texts that a model's tokenizer turns into control tokens: in a message they could forge a
turn, a role or the end of an answer."""

from __future__ import annotations

import re
from collections.abc import Iterable

from moaa.chat.message import Message
from moaa.weights.chat_template import ChatTemplate, Render

_SHAPE = re.compile(r"<[|｜].*[|｜]>|</?s>|\[/?INST\]|<(start|end)_of_turn>", re.DOTALL)
"""Added tokens of this form are control tokens, even if the template does not write them."""
_NOTHING = re.compile(r"(?!)")


def control_texts(template: ChatTemplate) -> frozenset[str]:
    """Return the texts of a model's control tokens.

    These are the added tokens that are special, that the chat template writes, or that have the
    form of one (`<|…|>`). Other added tokens (`<table>` in Gemma's) are ordinary text.
    """
    return rendered_controls(template.added, template.text, template.render)


def rendered_controls(
    added: Iterable[tuple[str, bool]], template: str, render: Render
) -> frozenset[str]:
    """Return the `added` tokens (text, special) that are control tokens under this template."""
    written = template + "\n".join(_samples(render))
    return frozenset(
        text
        for text, special in added
        if text.strip() and (special or text in written or _SHAPE.fullmatch(text))
    )


def pattern(texts: Iterable[str]) -> re.Pattern[str]:
    """Return a pattern that finds any of these texts, and the longest one at each place."""
    escaped = [re.escape(text) for text in sorted(texts, key=len, reverse=True) if text]
    return re.compile("|".join(escaped)) if escaped else _NOTHING


def _samples(render: Render) -> list[str]:
    """Return what the template writes for short conversations:
    it may build its tokens from parts."""
    from jinja2 import TemplateError

    told, asked = Message(role="system", content="Be."), Message(role="user", content="Why?")
    answered = Message(role="assistant", content="So.")
    found = []
    for messages in ([asked], [told, asked], [asked, answered], [asked, answered, asked]):
        for prompt in (True, False):
            try:
                found.append(render(messages, prompt=prompt))
            except TemplateError:
                continue
    return found
