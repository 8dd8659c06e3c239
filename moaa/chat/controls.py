"""Control tokens as text: keeps a text that is passed to a model from starting a turn of its own.

A tokenizer turns `<|im_end|>` inside a message into the token that ends the message. So the text of
prompts and models is neutralised before it becomes part of another model's prompt: an invisible
character after the first one. The text stays readable, and is no longer a control token. Plain
words (`USER:`) are left alone: a model reads them as it reads any text.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from typing import Final

WORD_JOINER: Final = "\u2060"
"""Invisible, without width, and not a place to break a line."""
_SHAPES: Final = (
    r"<[|｜][^<>|｜\s\u2060]{1,64}[|｜]?>",  # <|im_start|>, <｜User｜>, <|turn>
    r"<[^<>|｜\s\u2060/]{1,64}[|｜]>",  # <turn|>
    r"\[\|[^\[\]|\s\u2060]{1,64}\|\]",  # [|user|] (EXAONE)
    r"</?(?:seed|mm|minimax|ifm|atem|longcat)[:_|][a-z_]{1,32}>",  # <seed:bos>, <longcat_user>
    r"<(?:reserved|extra_id|SPECIAL|TOKENS_UNUSED|unused)_?[0-9]{1,4}>",  # Baichuan, Nemotron
    r"\[UNUSED_TOKEN_[0-9]{1,4}\]",  # InternLM 2
    r"\]~!b\[|\]~b\]|\[e~\[",  # MiniMax M2
)
_TEXTS: Final = frozenset(
    {"<s>", "</s>", "<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>", "[EOS]", "[BOS]"}
    | {f"[{end}{name}]" for end in ("", "/") for name in ("INST", "SYSTEM_PROMPT", "THINK")}
    | {f"[{end}{name}]" for end in ("", "/") for name in ("AVAILABLE_TOOLS", "TOOL_RESULTS")}
    | {"[TOOL_CALLS]", "[TOOL_CONTENT]", "[ARGS]", "[CALL_ID]", "[gMASK]", "<sop>", "<eop>"}
    | {f"<{end}{name}>" for end in ("", "/") for name in ("think", "tool_call", "tool_response")}
    | {"<beginning_of_sentence>", "<end_of_sentence>", "<BOS_TOKEN>", "<EOS_TOKEN>", "｜DSML｜"}
    | {"<eoh>", "<eoa>", "<_user>", "<_bot>", "<_system>", "<_end>", "◁think▷", "◁/think▷"}
    | {"[MODEL_SETTINGS]", "[/MODEL_SETTINGS]"}
    | {"<start_of_image>", "<end_of_image>", "<end_of_utterance>", "<fake_token_around_image>"}
)
"""Control tokens of well-known models that do not match `_SHAPES`."""


class Controls:
    """The control texts that a run knows: those of well-known models, and `more` of its own."""

    def __init__(self, more: Iterable[str] = ()) -> None:
        # A joiner cannot break a single character.
        longer = {each for each in more if len(each) > 1}
        texts = sorted(_TEXTS | longer, key=len, reverse=True)
        self._pattern = re.compile("|".join([*map(re.escape, texts), *_SHAPES]))

    def neutralised(self, text: str) -> str:
        """Return the text with a word joiner after the first character of each control text."""
        while (found := self._pattern.sub(lambda each: _broken(each[0]), text)) != text:
            text = found  # once more: two of them may share a character
        return text

    def count(self, text: str) -> int:
        """Return how many control texts are in the text."""
        return sum(1 for _ in self._pattern.finditer(text))

    def covers(self, text: str) -> bool:
        """Return whether the whole text is one control text."""
        return self._pattern.fullmatch(text) is not None


KNOWN: Final = Controls()
"""The control texts of well-known models only."""


def code(*texts: str) -> str:
    """Return the code for tags around these texts:
    a hash of all of them, so no text can contain it."""
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:8]


def fenced(tag: str, text: str, mark: str) -> str:
    """Return the text between tags with this mark. If the text contains the mark by chance, the
    mark in it is broken."""
    return between(tag, text.replace(mark, _broken(mark)), mark)


def between(tag: str, fenced: str, mark: str) -> str:
    """Return texts that already are fenced by this mark, between tags of their own."""
    return f"<{tag} {mark}>\n{fenced}\n</{tag} {mark}>"


def _broken(text: str) -> str:
    return f"{text[0]}{WORD_JOINER}{text[1:]}"
