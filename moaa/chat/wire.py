"""The OpenAI chat protocol: a `Call` as a request body, a response body as a `Reply`, a refusal as
an error. No I/O."""

from __future__ import annotations

import json
from typing import Any

from moaa.chat.message import Call, Choice, Reply
from moaa.errors import CallError, CallRejected, EngineError

HEALABLE = frozenset({408, 409, 425, 429})
"""Besides 5xx: the statuses after which the same request may be answered."""
REFUSED = frozenset({400, 413, 422})
"""The request itself is refused; asking again changes nothing."""
SHOWN = 300
"""Characters of a server's own words that are shown."""


class Fault(Exception):
    """This attempt failed; another may not. `after_s`: the server asked to wait so long."""

    def __init__(self, reason: str, detail: str, after_s: float = 0.0) -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail
        self.after_s = after_s


def request_body(call: Call, model: str) -> bytes:
    """The JSON of a request. All of `Sampling` is said, so that a server's own defaults never stand
    in for it."""
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
    """What a server answered with status 200. Raises `Fault` where it is no answer, `CallRejected`
    where `n` was ignored."""
    try:
        data = json.loads(body)
        choices = tuple([_choice(choice) for choice in data["choices"]])
        usage = data.get("usage") or {}
        prompt_tokens, completion_tokens = (
            usage.get("prompt_tokens") or 0,
            usage.get("completion_tokens") or 0,
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        shown = shorten(body.decode(errors="replace"))
        raise Fault(
            "garbled answer",
            f"the server answered 200 with {shown!r}" if shown else "an empty body",
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
    return Choice(
        _text(choice["message"]["content"] or ""), choice.get("finish_reason") or "stop", tokens
    )


def _position(position: dict[str, Any]) -> dict[str, float]:
    """Token -> log-probability; of two tokens that read the same, the likelier."""
    likeliest = {position["token"]: position["logprob"]}
    for token in position.get("top_logprobs") or ():
        name, logprob = token["token"], token["logprob"]
        if logprob > likeliest.get(name, -1e30):
            likeliest[name] = logprob
    return likeliest


def _text(text: str) -> str:
    """Half a surrogate pair (an answer cut inside an emoji) is no text that any file could hold: it
    becomes U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def refusal(
    status: int, body: bytes, after_s: float, model: str, url: str
) -> Fault | CallError | EngineError:
    """What a status other than 200 means: worth another attempt, a rejected call, or a model that
    is not served."""
    message, code = _error_of(body)
    shown = shorten(message)
    if status in REFUSED:
        long = (
            code in ("context_length_exceeded", "input_tokens", "max_tokens", "input_text")
            or "context length" in message
        )
        return CallRejected(
            "context length" if long else "bad request", shown or f"HTTP {status} without a word"
        )
    if code == "insufficient_quota":
        return EngineError(f"model '{model}': {url} says that its quota is used up: {shown}")
    if status in HEALABLE or status >= 500:
        return Fault(f"HTTP {status}", shown, after_s)
    remedy = {
        401: "The key is missing or wrong: set the environment variable that `endpoint.key_env` "
        "names.",
        403: "The key may not use this model: use another one, or have it admitted.",
        404: "It does not know this model or address: compare `endpoint.model` and `endpoint.url` "
        "with its /models.",
    }.get(status, "This is no OpenAI-compatible address: check `endpoint.url`.")
    return EngineError(
        f"model '{model}': {url} answered HTTP {status}{f' ({shown})' if shown else ''}. {remedy}"
    )


def _error_of(body: bytes) -> tuple[str, str]:
    """Message and code (or refused parameter) of an error body: OpenAI's and vLLM's shapes, else
    the body as it is."""
    text = body.decode(errors="replace")
    try:
        data = json.loads(text)
        error = data.get("error") or data
        if isinstance(error, str):
            return error, ""
        code = error.get("code")
        return str(error.get("message") or error.get("detail") or text), code if isinstance(
            code, str
        ) else str(error.get("param") or "")
    except (ValueError, AttributeError):
        return text, ""


def shorten(text: str) -> str:
    """One line of at most `SHOWN` characters."""
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else line[: SHOWN - 1] + "…"
