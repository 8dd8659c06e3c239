"""A client's question to a mixture, read from the body of /v1/chat/completions. No I/O.

The client's own parameters (temperature, n, response_format, seed, …) go to the aggregator, whose
text the client gets. The proposers keep the sampling of the mixture.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from moaa.chat.controls import KNOWN, Controls
from moaa.chat.message import Message
from moaa.gateway.body import checked_fields
from moaa.gateway.wire import invalid, missing, shown, wrong
from moaa.mixture import as_member
from moaa.recipe.document import Part
from moaa.recipe.method import Sampling
from moaa.recipe.schema import Member

Proposals = Literal["", "reasoning", "each"]
"""How a client sees the proposals while it waits. reasoning: one after the other, as the reasoning
of one answer, which chat programs can fold. each: side by side, every chunk with the name of its
proposer."""

_OURS: Final = frozenset({"model", "messages", "stream", "stream_options", "moaa"})
_UNUSED: Final = frozenset(
    {"tool_choice", "parallel_tool_calls", "function_call", "tools", "functions"}
    | {"store", "metadata", "audio", "modalities"}
)
"""Fields that do nothing without tools, or that are not for an engine."""
_ROLES: Final = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}


def _texts(given: Any) -> Any:
    texts = given if isinstance(given, list) else [given]
    if given is None or all(isinstance(each, str) for each in texts):
        return given
    raise PydanticCustomError("form", "It must be a text or a list of texts")


class _Wishes(Part):
    """The field `moaa` of a request."""

    proposals: Proposals = ""


class _Parameters(Part):
    """The fields that are checked before proposals are paid for. Engines check the others."""

    model_config = ConfigDict(extra="ignore", strict=True)
    stream: bool | None = None
    n: int | None = Field(None, ge=1, le=128)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    seed: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    stop: Annotated[Any, AfterValidator(_texts)] = None
    stream_options: dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    moaa: _Wishes | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """A conversation that ends with the user's turn,
    and the wishes of the client for the answer."""

    history: tuple[Message, ...]
    fields: Mapping[str, Any]
    """The client's fields for the aggregator's request."""
    streamed: bool = False
    wants_usage: bool = False
    proposals: Proposals = ""

    @property
    def n(self) -> int:
        """How many answers the client wants."""
        n: int = self.fields.get("n") or 1
        return n

    def for_aggregator(self, sampling: Sampling) -> dict[str, Any]:
        """Return the fields of the aggregator's request except its messages. The client's values
        replace those of the mixture's sampling."""
        found: dict[str, Any] = {"temperature": sampling.temperature, "top_p": sampling.top_p}
        if self.fields.get("max_completion_tokens") is None:
            found["max_tokens"] = sampling.max_tokens
        if sampling.seed is not None:
            found["seed"] = sampling.seed
        if sampling.stop:
            found["stop"] = sampling.stop
        return found | {name: value for name, value in self.fields.items() if value is not None}


def read_question(data: Mapping[str, Any], controls: Controls = KNOWN) -> Question:
    """Return the question in a request. Raises ApiError 400 with the name of the wrong parameter.

    Control tokens in earlier answers are neutralised, as in the pipeline: a model wrote them.
    """
    for name in ("tools", "functions"):
        if data.get(name):
            raise invalid(
                "A mixture calls no tools: its proposers answer in words. Leave out `tools`, or "
                "ask a plain model (GET /v1/models).",
                name,
                "unsupported_parameter",
            )
    modalities = data.get("modalities") or []
    if not isinstance(modalities, list):
        raise wrong("modalities", modalities, "a list")
    if data.get("audio") or "audio" in modalities:
        raise invalid("A mixture answers only in text.", "modalities", "unsupported_parameter")
    given = checked_fields(data, _Parameters)
    fields = {name: value for name, value in data.items() if name not in _OURS | _UNUSED}
    options = given.stream_options or {}
    return Question(
        _history(data.get("messages"), controls),
        fields,
        given.stream is True,
        options.get("include_usage") is True,
        given.moaa.proposals if given.moaa else "",
    )


def _history(messages: Any, controls: Controls) -> tuple[Message, ...]:
    if messages is None:
        raise missing("messages")
    if not isinstance(messages, list) or not messages:
        raise wrong("messages", messages, "a list with at least one message")
    found = [_message(each, f"messages[{at}]", controls) for at, each in enumerate(messages)]
    if found[-1]["role"] != "user":
        raise invalid(
            "The last message must be the user's: a mixture answers it, and does not continue "
            "another text.",
            "messages",
        )
    # Everything before the first user message becomes one system message: members expect one.
    while len(found) > 1 and found[0]["role"] == found[1]["role"] == "system":
        found = as_member(Member(model="", system=found[0]["content"]), found[1:])
    return tuple(found)


def _message(given: Any, where: str, controls: Controls) -> Message:
    if not isinstance(given, dict):
        raise wrong(where, given, "a message with role and content", "messages")
    if given.get("tool_calls") or given.get("role") in ("tool", "function"):
        raise invalid(
            f"{where} is about a tool, and a mixture calls no tools. Ask a plain model.",
            "messages",
            "unsupported_parameter",
        )
    role = _ROLES.get(given["role"]) if isinstance(given.get("role"), str) else None
    if role is None:
        known = "system, developer, user or assistant"
        raise wrong(f"{where}.role", given.get("role"), known, "messages")
    text = _text(given.get("content"), where)
    return Message(role=role, content=controls.neutralised(text) if role == "assistant" else text)


def _text(content: Any, where: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise wrong(f"{where}.content", content, "a text or a list of texts", "messages")
    parts: list[str] = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        text = part.get(kind) if kind in ("text", "refusal") else None
        if not isinstance(text, str):
            raise invalid(
                f"{where}.content has a part of type {shown(kind)}. A mixture reads only text: "
                "ask a plain model about images, sound and files.",
                "messages",
                "unsupported_parameter",
            )
        parts.append(text)
    return "\n".join(parts)
