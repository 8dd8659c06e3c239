"""Requests to engines of pooling models: the score of a conversation, or the vector of its last
token. No I/O.

vLLM serves both outside of the OpenAI protocol, at `/classify` and `/pooling`. They take no
sampling and return no text. The reply's text is the score as Python writes it, or the vector as
base64 of its float32 numbers.
"""

from __future__ import annotations

import array
import base64
import json
import math
from typing import Any, Final, Literal

from moaa.chat.fault import MALFORMED, Fault, shorten
from moaa.chat.message import Call, Choice, Reply, count
from moaa.errors import EngineError

Task = Literal["chat", "reward", "embed"]

PATHS: Final[dict[Task, str]] = {"reward": "/classify", "embed": "/pooling"}
"""The paths, next to `/v1` and not below it."""
DATE: Final = "26 Jul 2024"
"""The date for chat templates that write one: with today's date, scores would change from day to
day. It is the default of Llama 3.1's template."""


def pooling_body(task: Task, call: Call, model: str) -> bytes:
    """Return the JSON of a request for a score (the logit) or a vector (unnormalised)."""
    body: dict[str, Any] = {
        "model": model,
        "messages": call.messages,
        # Without this field a score is a sigmoid, which is 1.0 for every good answer.
        "use_activation": False,
        "chat_template_kwargs": {"date_string": DATE},
    }
    if task == "embed":
        body |= {"task": "embed", "encoding_format": "base64"}
    return json.dumps(body, separators=(",", ":")).encode()


def parse_pooled(task: Task, call: Call, body: bytes, seconds: float) -> Reply:
    """Return the reply in a body of status 200. Raises `Fault` if it has no score or vector,
    EngineError if the model has several labels."""
    try:
        data = json.loads(body)
        tokens = count((data.get("usage") or {}).get("prompt_tokens"))
        (found,) = data["data"]
        text = _score(call.model, found["probs"]) if task == "reward" else _vector(found["data"])
    except MALFORMED:
        shown = shorten(body[:4_000].decode(errors="replace"))
        what = "score" if task == "reward" else "vector"
        detail = f"the server answered 200 without a {what}: {shown!r}"
        raise Fault("garbled answer", detail, alive=True) from None
    return Reply((Choice(text),), tokens, 0, seconds)


def _score(model: str, numbers: Any) -> str:
    if not isinstance(numbers, list) or not numbers:
        raise ValueError("no list of numbers")
    if len(numbers) != 1:
        raise EngineError(
            f"model '{model}' gives {len(numbers)} numbers for a conversation; a reward model "
            "has one label. Name another model, or use the labeller armorm if it is ArmoRM."
        )
    if isinstance(numbers[0], bool) or not isinstance(numbers[0], int | float):
        raise ValueError("not a number")
    score = float(numbers[0])
    if not math.isfinite(score):
        raise ValueError("not a number")
    return repr(score)


def _vector(text: Any) -> str:
    """Return the text if it is the base64 of one or more finite float32 numbers."""
    numbers = array.array("f", base64.b64decode(text, validate=True))
    if not isinstance(text, str) or not numbers or not all(map(math.isfinite, numbers)):
        raise ValueError("no vector")
    return text
