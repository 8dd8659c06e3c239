"""Finds texts that are a whole conversation, with the answers in it."""

from __future__ import annotations

import re

_CHAT_TEMPLATE = re.compile(
    r"\s*(?:<s>|<bos>|<\|begin_of_text\|>|<\|endoftext\|>)?\s*"
    r"(\[INST\]|<\|im_start\|>|<\|(?:system|user|prompter)\|>|<start_of_turn>|"
    r"<\|start_header_id\|>|<｜User｜>)"
)
"""How chat templates of public models start a conversation."""
_ASKS = re.compile(r"\W{0,8}((?:human|user|prompter)\b\W{0,3}?:|#{1,4} *(?:instruction|input)\b)",
                   re.I)  # fmt: skip
_ANSWERS = re.compile(r"(?:^|\W)(?:assistant|gpt|chatgpt|bot|ai|model|response)\W{0,3}?:", re.I)
_ALPACA = re.compile(r"\s*Below is an instruction that describes a task")


def opening_of_transcript(text: str) -> str | None:
    """Return the start of the text if it is a whole conversation of user and assistant, else None.

    Both sides must be marked, the user's at the very beginning: a question that only quotes a
    conversation does not count.
    """
    if found := _CHAT_TEMPLATE.match(text):
        return found[1]
    asks = _ASKS.match(text) or _ALPACA.match(text)
    if asks and _ANSWERS.search(text, asks.end()):
        return asks[0].strip()
    return None
