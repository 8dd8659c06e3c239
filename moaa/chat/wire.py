"""The OpenAI chat protocol: request bodies, replies and refusals. No I/O."""

from __future__ import annotations

import json
import re
from typing import Any

from moaa.chat.choices import read_choice
from moaa.chat.fault import MALFORMED, Denied, Fault, shorten
from moaa.chat.form import USUAL, Form
from moaa.chat.message import FILTERED, Call, Choice, Reply, count
from moaa.errors import CallError, CallRejected, EngineError

RETRYABLE = frozenset({408, 409, 424, 425, 429})
"""The statuses, besides 5xx, after which the same request may succeed."""
BUSY = 429
ALIVE = frozenset({409, 424, 425})
"""Statuses that concern only this request (TGI sends 424 when one generation failed)."""
DENIED = frozenset({403, 451})
"""The server denies the request: this prompt, or every request with this key."""
REFUSED = frozenset({400, 413, 422})
"""The request itself is refused; a retry changes nothing."""
BODY_SHOWN = 4_000
"""How many bytes of a body are searched for a message."""


def request_body(call: Call, model: str, form: Form = USUAL) -> bytes:
    """Return the JSON of a request to a server that knows the model by this name, in the form that
    it accepts."""
    fields = {"model": model, **form.of(request_fields(call))}
    return json.dumps(fields, separators=(",", ":")).encode()


def request_fields(call: Call) -> dict[str, Any]:
    """Return the fields of a request except the model's name. Every field of `Sampling` is among
    them, so that a server's own defaults do not apply."""
    sampling = call.sampling
    body: dict[str, Any] = {
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
    return body


def parse_reply(call: Call, body: bytes, seconds: float) -> Reply:
    """Return the reply in a body of status 200. Raises `Fault` if it is not a valid answer,
    `CallRejected` if the server ignored `n` or its filter stopped the answer."""
    try:
        data = json.loads(body)
        error = data.get("error")
        choices = () if error else tuple([_read(choice, call) for choice in data["choices"]])
        usage = data.get("usage") or {}
        prompt_tokens = count(usage.get("prompt_tokens"))
        completion_tokens = count(usage.get("completion_tokens"))
    except MALFORMED:
        shown = shorten(body[:BODY_SHOWN].decode(errors="replace"))
        raise _garbled("with " + (repr(shown) if shown else "an empty body")) from None
    if error:
        raise Fault("error in the answer", shorten(_error_of(body)[0]), alive=True)
    if not choices:
        raise _garbled("without any choice")
    if len(choices) < call.sampling.n:
        raise CallRejected(
            "too few answers",
            f"asked for n={call.sampling.n}, got {len(choices)}: this server ignores `n`",
        )
    choices = choices[: call.sampling.n]
    if all(choice.missing == FILTERED for choice in choices):
        raise CallRejected(FILTERED, "the server's filter stopped the answer")
    if call.choices and not all(choice.text.strip() for choice in choices):
        detail = f"no text, though it may be only one of {len(call.choices)} fixed answers"
        if any(choice.cut for choice in choices):
            raise CallRejected("empty answer", f"{detail}: max_tokens was used up before")
        raise Fault("empty answer", detail, alive=True)
    return Reply(choices, prompt_tokens, completion_tokens, seconds)


def _read(choice: dict[str, Any], call: Call) -> Choice:
    return read_choice(choice, logprobs=call.logprobs)


def _garbled(what: str) -> Fault:
    return Fault("garbled answer", f"the server answered 200 {what}", alive=True)


def refusal(
    status: int, body: bytes, after_s: float, call: Call, url: str
) -> Fault | Denied | CallError | EngineError:
    """Return the error for a status other than 200: a retry, a rejected call, a denial that may
    concern the call or the model, or a model that is not served."""
    message, code = _error_of(body)
    shown, model = shorten(message), call.model
    if status in REFUSED:
        if "content_filter" in code or "content_policy" in code:
            return CallRejected(FILTERED, shown)
        if call.messages[0]["role"] == "system" and _ABOUT_ROLES.search(message):
            return CallRejected(
                "system role refused",
                f"{shown}. If the model has no system role, set models.{model}.system_role: false",
            )
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
        busy = status == BUSY or after_s > 0
        if after_s >= 1:
            shown = f"{shown} (asks to wait {after_s:.0f} s)".lstrip()
        return Fault(f"HTTP {status}", shown, after_s, alive=status in ALIVE, busy=busy)
    remedy = _REMEDIES.get(
        status, "This is not an OpenAI-compatible address: check `endpoint.url`."
    )
    said = f" ({shown})" if shown else ""
    error = EngineError(f"model '{model}': {url} answered HTTP {status}{said}. {remedy}")
    if status in DENIED:
        return Denied(CallRejected(f"denied (HTTP {status})", shown), error)
    return error


_ABOUT_ROLES = re.compile(r"\broles?\b|system (message|prompt)", re.IGNORECASE)
"""What templates and servers say that do not know the system role."""
_REMEDIES = {
    401: "The key is missing or wrong: set the environment variable that `endpoint.key_env` names; "
    "for leased engines VLLM_API_KEY, from the Secret `runtime.cluster.engines_secret`.",
    402: "The account has no credit left: add some, or use another key.",
    403: "The key may not use this model: use another key, or ask for access.",
    404: "It does not know this model or address: compare `endpoint.model` and `endpoint.url` with "
    "its /models.",
    407: "The proxy wants a name and password: put them into HTTPS_PROXY or HTTP_PROXY.",
    451: "It may not answer for legal reasons, whatever is asked: use another server.",
}


def _error_of(body: bytes) -> tuple[str, str]:
    """Return message and code (or refused parameter) of an error body in OpenAI's or vLLM's form;
    else the body itself."""
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
