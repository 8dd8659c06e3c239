"""One choice of a reply, read from the protocol: its text, how it ended, its log-probabilities."""

from __future__ import annotations

from typing import Any, Final, Literal

from moaa.chat.fault import Fault, writable
from moaa.chat.logprobs import read_logprobs
from moaa.chat.message import Choice
from moaa.chat.thoughts import without_thoughts

_ENDS: Final[dict[str, frozenset[str]]] = {
    "stop": frozenset(
        {"stop", "eos", "eos_token", "end_turn", "stop_sequence", "stop_string", "complete"}
        | {"completed"}
    ),
    "length": frozenset(
        {"length", "max_tokens", "max_length", "max_output_tokens", "model_length", "repetition"}
    ),
    "content_filter": frozenset(
        {"content_filter", "content_filtered", "safety", "recitation", "blocklist", "refusal"}
        | {"prohibited_content", "spii", "sensitive", "error_toxic", "guardrail_intervened"}
    ),
}
"""The names that servers use for the three ways an answer may end. With any other name (`error`,
`abort`, `tool_calls`) the answer may be incomplete."""


def read_choice(data: dict[str, Any], *, logprobs: bool) -> Choice:
    """Return the choice, without the reasoning in its text. A filtered answer has no text.

    Raises `Fault` if the answer was broken off. Raises ValueError, KeyError and the like if it does
    not have the protocol's form.
    """
    end = _end(data)
    raw = "" if end == "content_filter" else writable(_content(data["message"].get("content")))
    text, thought = without_thoughts(raw)
    tokens = read_logprobs(data.get("logprobs"), text) if logprobs else None
    return Choice(text, end, tokens, thought)


def _end(data: dict[str, Any]) -> Literal["stop", "length", "content_filter"]:
    given = data.get("finish_reason") or ""
    if not isinstance(given, str):
        raise ValueError(f"finish_reason is {given!r}")
    if error := data.get("error"):
        said = error.get("message") if isinstance(error, dict) else error
        raise Fault("unfinished answer", f"finish_reason {given!r}, {said}", alive=True)
    for end in ("stop", "length", "content_filter"):
        if given.lower() in _ENDS[end]:
            return end
    raise Fault("unfinished answer", f"finish_reason {given!r}", alive=True)


def _content(content: Any) -> str:
    """Return the text of a message's content: a text, nothing, or a list of parts. Parts that are
    not text (Mistral's `thinking`) are skipped."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise ValueError(f"content is {content!r}")
    return "".join([_part(part) for part in content])


def _part(part: Any) -> str:
    if isinstance(part, str):
        return part
    if part.get("type", "text") not in ("text", "output_text"):
        return ""
    text = part["text"]
    if not isinstance(text, str):
        raise ValueError(f"a part's text is {text!r}")
    return text
