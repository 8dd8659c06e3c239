"""What the engine of the tests answers: functions of the request."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import struct
from typing import Any

Body = dict[str, Any]


def pooled(path: str, body: Body) -> Body:
    """A reward model's score, as vLLM gives it: a sigmoid unless the logit is asked for. At
    /pooling, four numbers as base64."""
    seen = json.dumps([body["model"], body["messages"]], sort_keys=True)
    digest = hashlib.sha256(seen.encode()).digest()
    numbers = [byte / 32 - 4 for byte in digest[:4]]
    usage = {"prompt_tokens": sum(len(each["content"].split()) for each in body["messages"])}
    if path == "/pooling":
        data = base64.b64encode(struct.pack("<4f", *numbers)).decode()
        return {"object": "list", "data": [{"index": 0, "data": data}], "usage": usage}
    logit = numbers[0]
    score = logit if body.get("use_activation") is False else 1 / (1 + math.exp(-logit))
    found = {"index": 0, "label": "LABEL_0", "probs": [score], "num_classes": 1}
    return {"object": "list", "data": [found], "usage": usage}


def _limit(body: Body) -> int:
    """The most tokens of an answer, under its older or its newer name."""
    found: int = body["max_tokens"] if "max_tokens" in body else body["max_completion_tokens"]
    return found


def answer(body: Body) -> Body:
    """A completion in vLLM's shape; its text is a function of the request."""
    seen = json.dumps([body["model"], body["messages"], body.get("seed")], sort_keys=True)
    n, limit = body.get("n", 1), _limit(body)
    choices = [
        _choice(body, hashlib.sha256(f"{seen}{index}".encode()).hexdigest(), index)
        for index in range(n)
    ]
    prompt = sum(len(message["content"].split()) for message in body["messages"])
    completion = sum(min(limit, 8) for _ in choices)
    usage = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": body["model"],
        "choices": choices,
        "usage": usage,
    }


def _choice(body: Body, digest: str, index: int) -> Body:
    allowed = (body.get("structured_outputs") or {}).get("choice")
    words = [digest[at : at + 8] for at in range(0, 64, 8)]
    said = (
        allowed[int(digest[:8], 16) % len(allowed)] if allowed else " ".join(words[: _limit(body)])
    )
    logprobs = None
    if body.get("logprobs"):
        p = 0.05 + 0.9 * int(digest[8:12], 16) / 0xFFFF
        first = [
            {"token": word, "logprob": math.log(p if word == said else 1 - p)}
            for word in allowed or [said]
        ]
        masked = [{"token": "the", "logprob": -9999.0}]
        logprobs = {
            "content": [{"token": said, "logprob": math.log(p), "top_logprobs": first + masked}]
        }
    return {
        "index": index,
        "message": {"role": "assistant", "content": said},
        "logprobs": logprobs,
        "finish_reason": "length" if not allowed and _limit(body) < 8 else "stop",
    }


def by_aggregator(body: Body) -> bool:
    """Whether the aggregator of a mixture asks, not a proposer."""
    return "Answers of the models" in body["messages"][0]["content"]
