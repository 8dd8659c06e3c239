"""The roles of messages in public data sets, under the names used there. No I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from moaa.prompts.message import Role

_ROLES: Final[dict[str, Role]] = {
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(
        ("assistant", "gpt", "chatgpt", "bot", "chatbot", "model", "ai", "llm", "agent", "bing",
         "bard", "claude", "gpt4", "gpt_4", "response", "output", "answer"),
        "assistant",
    ),
    **dict.fromkeys(("system", "developer", "system_prompt"), "system"),
    **dict.fromkeys(
        ("tool", "tools", "function", "function_call", "function_response", "tool_call",
         "tool_calls", "tool_response", "tool_result", "observation", "environment", "ipython"),
        "tool",
    ),
}  # fmt: skip
"""The names in lower case, with _ for - and blanks."""
KNOWN: Final = (
    "known roles: user, human, prompter; assistant, gpt, bot, model; system, developer; tool"
)
ROLE_KEYS: Final = ("role", "from", "speaker", "author", "sender")
"""Keys that always hold a role."""
TYPE_KEYS: Final = ("type", "message_type")
"""Keys that hold a role in some data sets and something else in others. They count only if they
have a known role next to a text."""
TEXT_KEYS: Final = ("content", "value", "text", "message", "utterance")
"""The keys that hold the text of a message."""


def role_of(said: object) -> Role | None:
    """Return the role of this name, or None if it is not known."""
    return _ROLES.get(_plain(said)) if isinstance(said, str) else None


def said_by(message: Mapping[str, Any], key: str) -> object:
    """Return what a message has under `key`; for `{"author": {"role": …}}` the role."""
    said = message.get(key)
    return said.get("role") if isinstance(said, Mapping) else said


def role_key(message: Mapping[str, Any]) -> str | None:
    """Return the key with the role of a message, or None if it has none."""
    named = (key for key in ROLE_KEYS if message.get(key) is not None)
    with_text = any(message.get(key) is not None for key in TEXT_KEYS)
    typed = (key for key in TYPE_KEYS if with_text and role_of(message.get(key)))
    return next(named, None) or next(typed, None)


def are_names(firsts: Sequence[str]) -> bool:
    """Return whether the first texts of pairs are names of speakers, and not questions.

    A single known role is enough, also as one of two words (`AI Assistant`, `User 1`). So is a set
    of texts that are all repeated.
    """
    if any(map(_like_role, firsts)):
        return True
    return len(firsts) > 2 and min(Counter(firsts).values()) > 1


def _like_role(text: str) -> bool:
    name = _plain(text)
    words = name.split("_")
    known = [word in _ROLES for word in words]
    return name in _ROLES or (
        len(words) == 2 and any(known) and (all(known) or any(map(str.isdigit, words)))
    )


def _plain(role: str) -> str:
    """Return the name without the marks around it; LangChain's `AIMessage` is `ai`."""
    name = role.strip().strip("<|>#: ").lower().replace("-", "_").replace(" ", "_")
    return name.removesuffix("chunk").removesuffix("message").rstrip("_") or name
