"""Conversations as token ids by the model's own chat template, with the loss on the answers and their end-of-turn only.

Nothing is patched into the template and nothing is guessed from it: a conversation is rendered once as a whole and once
up to each answer, and the second must be a prefix of the first, token by token. What lies between such a prompt and the
next end-of-turn token is exactly what the model will write when it is served with this template; it is what is trained.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from moaa.chat.message import Message
from moaa.errors import RowRejected, TrainError

IGNORED = -100
"""Label of a token that bears no loss."""


@dataclass(frozen=True)
class Template:
    """A tokenizer's chat template and what was found out about it by rendering probes. Make it with `Template.of`."""

    tokenizer: Any
    end_of_turn: int
    """The token that ends an assistant's turn."""
    ends_between: int
    """End-of-turn tokens that a user's message brings along (1 in ChatML, 0 where only answers are ended)."""
    knows_system: bool
    """False: the template refuses system messages or leaves them out, so they are merged into the first user turn."""

    @classmethod
    def of(cls, tokenizer: Any, model: str) -> Template:
        """Raises TrainError where no answer's extent can be told from the template."""
        if not tokenizer.chat_template:
            raise TrainError(f"The tokenizer of {model} has no chat template. Give the model one (chat_template.jinja).")
        end = _end_of_turn(tokenizer, model)
        question, answer = _said("user", "Why?"), _said("assistant", "Because.")
        once, twice = (_tokens(tokenizer, [question, answer] * n) for n in (1, 2))
        between = twice.count(end) - once.count(end) - 1
        return cls(tokenizer, end, between, _knows_system(tokenizer))

    @property
    def end_of_turn_text(self) -> str:
        return self.tokenizer.convert_ids_to_tokens(self.end_of_turn)

    def conversation(self, messages: Sequence[Message]) -> tuple[list[int], list[int]]:
        """Token ids and labels. Raises RowRejected where the answers cannot be told apart exactly."""
        messages = self._checked(messages)
        answers = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        if not answers:
            raise RowRejected("no_answer", "the conversation has no assistant message")
        *prompts, ids = self._render(messages, answers)
        labels = [IGNORED] * len(ids)
        for prompt, at, following in zip(prompts, answers, [*answers[1:], None], strict=True):
            until = len(ids) if following is None else len(prompts[answers.index(following)])
            others = 0 if following is None else following - at - 1
            end = self._end(ids, prompt, until, expected=1 + others * self.ends_between)
            labels[len(prompt) : end] = ids[len(prompt) : end]
        return ids, labels

    def answers(self, messages: Sequence[Message], *texts: str) -> tuple[list[int], list[list[int]]]:
        """Token ids of the prompt, and of each answer to it up to its end-of-turn token."""
        found = []
        prompt: list[int] = []
        for text in texts:
            whole = self._checked([*messages, _said("assistant", text)])
            prompt, ids = self._render(whole, [len(whole) - 1])
            found.append(ids[len(prompt) : self._end(ids, prompt, len(ids), expected=1)])
        return prompt, found

    def _end(self, ids: list[int], prompt: list[int], until: int, expected: int) -> int:
        """Position after the end-of-turn token of the answer to `prompt`."""
        if ids[: len(prompt)] != prompt:
            raise RowRejected("prompt_is_no_prefix", "the tokens before an answer differ from those the model is asked with")
        span = ids[len(prompt) : until]
        if span.count(self.end_of_turn) != expected:
            raise RowRejected("end_of_turn", f"{span.count(self.end_of_turn)} end-of-turn tokens where {expected} belong")
        return len(prompt) + span.index(self.end_of_turn) + 1

    def _render(self, messages: list[Message], answers: list[int]) -> list[list[int]]:
        """Token ids of the prompt before each answer, then of the whole conversation."""
        from jinja2 import TemplateError

        try:
            texts = [_text(self.tokenizer, messages[:at], prompt=True) for at in answers] + [_text(self.tokenizer, messages)]
        except TemplateError as error:
            raise RowRejected("template_refuses", str(error)) from None
        return self.tokenizer(texts, add_special_tokens=False)["input_ids"]

    def _checked(self, messages: Sequence[Message]) -> list[Message]:
        for message in messages:
            if found := self._control.search(message["content"]):
                raise RowRejected("control_token_in_text", f"a {message['role']} message contains {found.group()!r}")
            if message["role"] == "assistant" and not message["content"].strip():
                raise RowRejected("empty_answer", "an assistant message is empty")
        return merged_system(messages) if self.merges(messages) else list(messages)

    def merges(self, messages: Sequence[Message]) -> bool:
        """Whether these messages have a system message that must be merged into the first user turn."""
        return not self.knows_system and messages[0]["role"] == "system"

    @cached_property
    def _control(self) -> re.Pattern[str]:
        """The texts that become control tokens wherever they stand: in a message they would forge the end of a turn."""
        special = {token.content for token in self.tokenizer.added_tokens_decoder.values() if token.special}
        special |= {self.end_of_turn_text, *self.tokenizer.all_special_tokens}
        return re.compile("|".join(re.escape(text) for text in sorted(special, key=len, reverse=True)))


def merged_system(messages: Sequence[Message]) -> list[Message]:
    """The same conversation with its system message put before the first user's text."""
    system, *others = messages
    if not others or others[0]["role"] != "user":
        raise RowRejected("template_refuses", "the template knows no system message, and no user turn follows it")
    return [_said("user", f"{system['content']}\n\n{others[0]['content']}"), *others[1:]]


def _end_of_turn(tokenizer: Any, model: str) -> int:
    """The control token that follows an answer's text."""
    question, text = _said("user", "Why?"), "Because"
    prompt, ids = (
        tokenizer(t, add_special_tokens=False)["input_ids"]
        for t in (_text(tokenizer, [question], prompt=True), _text(tokenizer, [question, _said("assistant", text)]))
    )
    if ids[: len(prompt)] != prompt:
        raise TrainError(
            f"The chat template of {model} renders a question differently once it is answered: {tokenizer.decode(prompt)!r} "
            f"does not begin {tokenizer.decode(ids)!r}. The loss cannot be put on the answers: use a template with a generation "
            "prompt."
        )
    rest = ids[len(prompt) :]
    control = [i for i, token in enumerate(rest) if _is_control(tokenizer, token)]
    if not control or tokenizer.decode(rest[: control[0]]).strip() != text:
        raise TrainError(
            f"The chat template of {model} ends an answer with {tokenizer.decode(rest)!r}, in which no control token follows the "
            "answer's text: the model would never learn to stop. Use a template that ends turns with a special token."
        )
    end = rest[control[0]]
    if rest.count(end) > 1:
        raise TrainError(
            f"The chat template of {model} ends an answer with {rest.count(end)} times {tokenizer.convert_ids_to_tokens(end)!r}: "
            "one end-of-turn token belongs there. Remove the surplus from the template."
        )
    return end


def _is_control(tokenizer: Any, token: int) -> bool:
    added = tokenizer.added_tokens_decoder.get(token)
    return added is not None and bool(added.content.strip())


def _knows_system(tokenizer: Any) -> bool:
    from jinja2 import TemplateError

    told = "Answer in one word only."
    try:
        return told in _text(tokenizer, [_said("system", told), _said("user", "Why?")])
    except TemplateError:
        return False


def _text(tokenizer: Any, messages: list[Message], *, prompt: bool = False) -> str:
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)


def _tokens(tokenizer: Any, messages: list[Message]) -> list[int]:
    return tokenizer(_text(tokenizer, messages), add_special_tokens=False)["input_ids"]


def _said(role: str, content: str) -> Message:
    return {"role": role, "content": content}
