"""OpenAI's errors: one form for every status, whatever an engine said.

`{"error": {"message", "type", "param", "code"}}`, each of them a text or null. Headers tell a
client's library what to do next: `x-should-retry`, and `Retry-After`, which is at most 120 s,
because the official client gives up at once if it is longer.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from typing import Any, Final

from moaa.chat.fault import writable
from moaa.recipe.mistakes import short

LONGEST_WAIT_S: Final = 120
LONGEST_MESSAGE: Final = 4_000
DONE: Final = b"data: [DONE]\n\n"
UNBUFFERED: Final = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
"""Headers of a stream: they tell proxies not to buffer it."""

_TYPES: Final = {
    400: "invalid_request_error",
    401: "invalid_request_error",
    403: "permission_error",
    404: "invalid_request_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
    504: "timeout_error",
}
_CODES: Final = {
    401: "invalid_api_key",
    403: "permission_denied",
    404: "not_found",
    405: "method_not_allowed",
    413: "request_too_large",
    429: "rate_limit_exceeded",
    503: "unavailable",
    504: "timeout",
}
_MEANT: Final = {
    400: "The request is not valid.",
    401: "The key is missing or wrong.",
    403: "The key may not do this.",
    404: "The address is not served here.",
    413: "The request is too large.",
    422: "The request is not valid.",
    429: "Too many requests: wait, then try again.",
    503: "The model is not available now.",
}
_RETRY: Final = frozenset({408, 409, 425, 429, 500, 502, 503})
"""Statuses after which the same request may succeed. 504 is not among them:
it has waited long enough."""
_FULL_QUEUE: Final = re.compile(r"queue|overload|capacity|too many", re.I)
_TOO_LONG: Final = re.compile(r"context length|maximum (model|input) length|too long", re.I)
_NO_MODEL: Final = re.compile(r"model\b.*\b(not exist|not found|unknown)", re.I | re.DOTALL)


@dataclass
class ApiError(Exception):
    """An answer that is an error. `retry`: the value of `x-should-retry`; None:
    decided by the status."""

    status: int
    message: str
    code: str | None = None
    param: str | None = None
    type: str | None = None
    after_s: float | None = None
    retry: bool | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.status} {self.code or ''}: {self.message}"

    @property
    def kind(self) -> str:
        """OpenAI's `type` of the error."""
        default = "server_error" if self.status >= 500 else "invalid_request_error"
        return self.type or _TYPES.get(self.status, default)

    @property
    def may_retry(self) -> bool:
        """Whether the client's library may send the request again."""
        return self.status in _RETRY if self.retry is None else self.retry

    def to_json(self) -> dict[str, Any]:
        """Return the error as OpenAI's object."""
        inner = {
            "message": self.message,
            "type": self.kind,
            "param": self.param,
            "code": self.code or _CODES.get(self.status),
        }
        return {"error": inner}

    def body(self) -> bytes:
        """Return the object as the body of an answer."""
        return json.dumps(self.to_json()).encode()

    def event(self) -> bytes:
        """Return the object as the last event of a stream that has begun, with the stream's end."""
        return b"data: " + self.body() + b"\n\n" + DONE

    def response_event(self) -> bytes:
        """Return the same for a stream of /v1/responses, which ends with its last event."""
        error = self.to_json()["error"]
        data = {"type": "error", "sequence_number": 0, **error, "error": error}
        return b"event: error\ndata: " + json.dumps(data).encode() + b"\n\n"

    def all_headers(self) -> dict[str, str]:
        """The headers of the error, with those that tell a client whether and when to try again."""
        found = {"x-should-retry": "true" if self.may_retry else "false", **self.headers}
        if self.after_s is not None:
            found["Retry-After"] = str(max(1, min(LONGEST_WAIT_S, math.ceil(self.after_s))))
        return found


def no_model(name: object) -> ApiError:
    """Return the error for a model that does not exist, or that this key may not use."""
    return ApiError(
        404,
        f"The model {shown(name)} does not exist, or this key may not use it. GET /v1/models "
        "lists the models that the key may use.",
        "model_not_found",
        "model",
    )


def invalid(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """Return the error for a request that no retry helps."""
    return ApiError(400, message, code, param)


def missing(name: str) -> ApiError:
    """Return the error for a field that a request must have."""
    return invalid(f"{name} is missing.", name, "missing_required_parameter")


def wrong(name: str, value: object, allowed: str, param: str | None = None) -> ApiError:
    """Return the error for a value that its field does not take."""
    return invalid(f"{name} is {short(value)}. It must be {allowed}.", param or name)


def shown(value: object) -> str:
    """Return what a client gave, in quotes and cut to 100 characters."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return f"'{text if len(text) <= 100 else text[:99] + '…'}'"


def of_engine(status: int, body: bytes, model: str, after_s: float = 0.0) -> ApiError:
    """Return what an engine's answer of this status means to the client of this model."""
    if status < 400:
        return ApiError(502, f"The server of '{model}' answered with {status}.", "bad_gateway")
    said = _error_in(body)
    message = said.get("message") or _MEANT.get(status) or f"HTTP {status}"
    code, param, kind = _text(said.get("code")), _text(said.get("param")), _text(said.get("type"))
    code = code if code and not code.isdigit() else None
    after = after_s if after_s > 0 else None
    if status == 503 and _FULL_QUEUE.search(message):
        # The engine is up but overloaded: vLLM's --max-num-queued-reqs.
        return ApiError(429, message, "engine_overloaded", after_s=after or 1)
    if status in (400, 404, 422) and code is None:
        if _TOO_LONG.search(message):
            code = "context_length_exceeded"
        elif status == 404 and (_NO_MODEL.search(message) or kind == "NotFoundError"):
            code = "model_not_found"
    if status in (429, 503) and after is None:
        after = 1
    ours = kind if kind and re.fullmatch(r"[a-z_]+", kind) else None
    return ApiError(status, message, code, param, ours, after_s=after)


def _text(value: object) -> str | None:
    return None if value is None or value == "" else str(value)[:200]


def _error_in(body: bytes) -> dict[str, Any]:
    """Return the error object of OpenAI, vLLM or FastAPI in the body; its message as one text."""
    text = writable(body.decode(errors="replace")).strip()
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return {"message": _plain(text)}
    if isinstance(data, dict):
        error = data.get("error") or data
        if isinstance(error, str):
            return {**data, "message": _cut(error)}
        if isinstance(error, dict):
            message = error.get("message") or error.get("detail") or error.get("msg")
            return {**error, "message": _sentence(message) if message else _cut(text)}
    return {"message": _sentence(data)}


def _sentence(message: Any) -> str:
    """Return the message as one text: it may be FastAPI's list of problems."""
    if isinstance(message, list):
        parts = [
            f"{'.'.join(map(str, each.get('loc', ())))}: {each.get('msg')}"
            if isinstance(each, dict)
            else str(each)
            for each in message
        ]
        return _cut("; ".join(parts))
    return _cut(message if isinstance(message, str) else json.dumps(message))


def _plain(text: str) -> str:
    """Return the text, or nothing if it is an HTML page: a program cannot use it."""
    return "" if text.startswith("<") else _cut(text)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_MESSAGE else text[: LONGEST_MESSAGE - 1] + "…"
