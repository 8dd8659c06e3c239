"""The OpenAI chat protocol: request bodies, replies and refusals. No I/O."""

from __future__ import annotations

import json
import math
from typing import Any

from moaa.chat.message import Call, Choice, Reply
from moaa.errors import CallError, CallRejected, EngineError

RETRYABLE = frozenset({408, 409, 425, 429})
"""With 5xx: the statuses after which the same request may succeed."""
REFUSED = frozenset({400, 413, 422})
"""The request itself is refused; a retry changes nothing."""
MALFORMED = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)
"""What reading a JSON of another form raises."""
SHOWN = 300
"""How many characters of a server's message are shown."""


FORBIDDEN = -9999.0
"""The log-probability of a token that a grammar forbids, as vLLM gives it."""


class Fault(Exception):
    """This attempt failed; another may succeed. `after_s`: how long the server asked to wait."""

    def __init__(self, reason: str, detail: str, after_s: float = 0.0) -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail
        self.after_s = after_s


def request_body(call: Call, model: str) -> bytes:
    """The JSON of a request. It has every field of `Sampling`, so that a server's own defaults do
    not apply."""
    sampling = call.sampling
    body: dict[str, Any] = {
        "model": model,
        "messages": call.messages,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens,
    }
    if sampling.n > 1:
        body["n"] = sampling.n
    if sampling.seed is not None:
        body["seed"] = sampling.seed
    if sampling.stop:
        body["stop"] = sampling.stop
    if call.choices:
        body["structured_outputs"] = {"choice": call.choices}
    if call.logprobs:
        body["logprobs"] = True
        body["top_logprobs"] = 20
    return json.dumps(body, separators=(",", ":")).encode()


def parse_reply(call: Call, body: bytes, seconds: float) -> Reply:
    """The reply in a body of status 200. Raises `Fault` if it is not a valid answer, `CallRejected`
    if the server ignored `n`."""
    try:
        data = json.loads(body)
        choices = tuple([_choice(choice) for choice in data["choices"]])
        usage = data.get("usage") or {}
        prompt_tokens = int(usage.get("prompt_tokens") or 0)
        completion_tokens = int(usage.get("completion_tokens") or 0)
    except MALFORMED:
        shown = shorten(body.decode(errors="replace"))
        raise Fault(
            "garbled answer",
            f"the server answered 200 with {repr(shown) if shown else 'an empty body'}",
        ) from None
    if not choices:
        raise Fault("garbled answer", "the server answered 200 without any choice")
    if len(choices) < call.sampling.n:
        raise CallRejected(
            "too few answers",
            f"asked for n={call.sampling.n}, got {len(choices)}: this server ignores `n`",
        )
    return Reply(choices, prompt_tokens, completion_tokens, seconds)


def _choice(choice: dict[str, Any]) -> Choice:
    logprobs = choice.get("logprobs")
    tokens = (
        tuple([_position(position) for position in logprobs["content"]])
        if logprobs and logprobs.get("content")
        else None
    )
    text = _text(choice["message"]["content"] or "")
    return Choice(text, str(choice.get("finish_reason") or "stop"), tokens)


def _position(position: dict[str, Any]) -> dict[str, float]:
    """Token -> log-probability; of two tokens with the same text, the likelier."""
    likeliest: dict[str, float] = {}
    for token in (position, *(position.get("top_logprobs") or ())):
        name, logprob = str(token["token"]), _logprob(token["logprob"])
        likeliest[name] = max(logprob, likeliest.get(name, logprob))
    return likeliest


def _logprob(value: Any) -> float:
    """Between -9999, vLLM's number for a forbidden token, and 0."""
    logprob = float(value)
    if math.isnan(logprob):
        raise ValueError("a log-probability is not a number")
    return min(max(logprob, FORBIDDEN), 0.0)


def _text(text: str) -> str:
    """The text with U+FFFD for half surrogate pairs (an answer cut inside an emoji): no file can
    contain them."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def refusal(
    status: int, body: bytes, after_s: float, model: str, url: str
) -> Fault | CallError | EngineError:
    """The error for a status other than 200: a retry, a rejected call, or a model that is not
    served."""
    message, code = _error_of(body)
    shown = shorten(message)
    if status in REFUSED:
        long = (
            code in ("context_length_exceeded", "input_tokens", "max_tokens", "input_text")
            or "context length" in message
        )
        return CallRejected(
            "context length" if long else "bad request",
            shown or f"HTTP {status} with an empty body",
        )
    if code == "insufficient_quota":
        return EngineError(f"model '{model}': {url} says that its quota is used up: {shown}")
    if status in RETRYABLE or status >= 500:
        return Fault(f"HTTP {status}", shown, after_s)
    remedy = {
        401: "The key is missing or wrong: set the environment variable that `endpoint.key_env` "
        "names.",
        403: "The key may not use this model: use another key, or ask for access.",
        404: "It does not know this model or address: compare `endpoint.model` and `endpoint.url` "
        "with its /models.",
    }.get(status, "This is not an OpenAI-compatible address: check `endpoint.url`.")
    return EngineError(
        f"model '{model}': {url} answered HTTP {status}{f' ({shown})' if shown else ''}. {remedy}"
    )


def _error_of(body: bytes) -> tuple[str, str]:
    """Message and code (or refused parameter) of an error body, in OpenAI's or vLLM's form; else
    the body as it is."""
    text = body.decode(errors="replace")
    try:
        data = json.loads(text)
        error = data.get("error") or data
        if isinstance(error, str):
            return error, ""
        code = error.get("code")
        message = str(error.get("message") or error.get("detail") or text)
        return message, code if isinstance(code, str) else str(error.get("param") or "")
    except MALFORMED:
        return text, ""


def shorten(text: str) -> str:
    """One line of at most `SHOWN` characters."""
    line = _text(" ".join(text.split()))
    return line if len(line) <= SHOWN else line[: SHOWN - 1] + "…"
