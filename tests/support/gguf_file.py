"""A small GGUF file without weights."""

from __future__ import annotations

from pathlib import Path


def odd_gguf(path: Path) -> Path:
    """A GGUF file, written by llama.cpp's own library: control tokens of no known form."""
    from gguf import GGUFWriter, TokenType

    tokens = {
        "@@user:": TokenType.CONTROL,
        "@@end": TokenType.USER_DEFINED,
        "@@spare": TokenType.CONTROL,
        "<table>": TokenType.USER_DEFINED,
        "user": TokenType.NORMAL,
    }
    writer = GGUFWriter(path, "llama")
    writer.add_token_list(list(tokens))
    writer.add_token_types(list(tokens.values()))
    writer.add_token_scores([0.5] * len(tokens))
    writer.add_eos_token_id(1)
    writer.add_bool("tokenizer.ggml.add_bos_token", False)
    writer.add_chat_template(
        "{% for m in messages %}{{ '@@' + m.role + ':' + m.content + eos_token }}{% endfor %}"
    )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path
