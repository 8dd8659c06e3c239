"""The head of a GGUF file, with its tokenizer. No weights are read.

The format is llama.cpp's (`docs/gguf.md` of ggml): magic, version, two counts, then the pairs of
key and typed value.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

from moaa.errors import RecipeError
from moaa.weights.chat_template import ChatTemplate

CONTROL: Final = 3
USER_DEFINED: Final = 4
"""Types of tokens that a tokenizer finds in a text as a whole."""
_NUMBERS: Final = ("B", "b", "H", "h", "I", "i", "f", "?", None, None, "Q", "q", "d")
_STRING: Final = 8
_ARRAY: Final = 9
_LONGEST: Final = 1 << 27
"""The most bytes of a text and items of a list: more than any tokenizer has."""
NAMED: Final = {
    "bos": "bos",
    "eos": "eos",
    "unknown": "unk",
    "padding": "pad",
    "seperator": "sep",
    "cls": "cls",
    "mask": "mask",
}
"""The file's names of the tokens that a chat template may use (llama.cpp's spelling)."""


def template_of(
    path: Path, arguments: Mapping[str, Any] | None = None, text: str = ""
) -> ChatTemplate:
    """Return the chat template of a GGUF file, with the added tokens of its tokenizer; `text`
    replaces it if given.

    Raises RecipeError if the file cannot be read, or has no template.
    """
    head = metadata(path)
    texts, types = head.get("tokenizer.ggml.tokens"), head.get("tokenizer.ggml.token_type")
    if not isinstance(texts, list) or not all(isinstance(each, str) for each in texts):
        texts = []
    if not isinstance(types, list):
        types = []
    tokens = {
        f"{name}_token": texts[number]
        for key, name in NAMED.items()
        if (number := head.get(f"tokenizer.ggml.{key}_token_id", -1)) in range(len(texts))
    }
    added = tuple(
        (token, kind == CONTROL)
        for token, kind in zip(texts, types, strict=False)
        if kind in (CONTROL, USER_DEFINED)
    )
    found = text or head.get("tokenizer.chat_template")
    if not isinstance(found, str) or not found:
        raise RecipeError(f"{path} has no chat template. Give one: engine_args --chat-template.")
    return ChatTemplate(found, tokens, added, arguments or {})


def metadata(path: Path) -> Mapping[str, Any]:
    """Return the file's pairs of key and value. Raises RecipeError if it is not a GGUF file."""
    try:
        with path.open("rb") as file:
            magic, version, _, pairs = struct.unpack("<4sIQQ", file.read(24))
            if magic != b"GGUF" or version < 2:
                raise ValueError("its first bytes are not those of a GGUF file")
            return {_text(file): _value(file, _number(file, "I")) for _ in range(pairs)}
    except (OSError, ValueError, struct.error, IndexError, RecursionError) as error:
        raise RecipeError(f"{path} is not a readable GGUF file: {error}") from None


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == _STRING:
        return _text(file)
    if kind == _ARRAY:
        of, length = _number(file, "I"), _bounded(_number(file, "Q"))
        if of in (_STRING, _ARRAY):
            return [_value(file, of) for _ in range(length)]
        form = _NUMBERS[of]
        return list(
            struct.unpack(f"<{length}{form}", file.read(length * struct.calcsize(f"<{form}")))
        )
    return _number(file, _NUMBERS[kind] or "")


def _text(file: BinaryIO) -> str:
    return file.read(_bounded(_number(file, "Q"))).decode(errors="replace")


def _number(file: BinaryIO, form: str) -> Any:
    return struct.unpack(f"<{form}", file.read(struct.calcsize(f"<{form}")))[0]


def _bounded(length: int) -> int:
    if length > _LONGEST:
        raise ValueError(f"a length is {length}")
    return length
