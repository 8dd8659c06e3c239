"""Conversations as token ids by the model's own chat template, with the loss on the answers and
their end-of-turn only.

Nothing is patched into the template and nothing is guessed from it. A conversation is rendered once
as a whole and once up to each answer; the second must be the beginning of the first. The text from
such a prompt to the next end-of-turn token is exactly what the model writes when it is served with
this template, and exactly what is trained.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any

from moaa.chat.message import Message, without_system
from moaa.errors import RowRejected, TrainError

IGNORED = -100
"""Label of a token without loss."""


@dataclass(frozen=True)
class Template:
    """A tokenizer's chat template, and what rendering short conversations showed about it.

    Create it with `Template.of`.
    """

    tokenizer: Any
    end_of_turn: int
    """The token that ends an assistant's turn."""
    ends_between: int
    """End-of-turn tokens of a user's message: 1 in ChatML, 0 if only answers have one."""
    knows_system: bool
    """False if the template refuses or omits system messages: they are put into the first user
    turn."""

    @classmethod
    def of(cls, tokenizer: Any, model: str) -> Template:
        """Return the template of this tokenizer. Raises TrainError if the template does not show
        where an answer begins and ends."""
        if not tokenizer.chat_template:
            raise TrainError(
                f"The tokenizer of {model} has no chat template. Give the model one "
                "(chat_template.jinja)."
            )
        end = _end_of_turn(tokenizer, model)
        question, answer = _message("user", "Why?"), _message("assistant", "Because.")
        once, twice = (_tokens(tokenizer, [question, answer] * n) for n in (1, 2))
        between = twice.count(end) - once.count(end) - 1
        return cls(tokenizer, end, between, _knows_system(tokenizer))

    @property
    def end_of_turn_text(self) -> str:
        return str(self.tokenizer.convert_ids_to_tokens(self.end_of_turn))

    def conversation(self, messages: Sequence[Message]) -> tuple[list[int], list[int]]:
        """Return token ids and labels. Raises RowRejected if an answer's extent is not exact."""
        messages = self._checked(messages)
        answers = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        if not answers:
            raise RowRejected("no_answer", "the conversation has no assistant message")
        ids, starts = _cut(self.tokenizer, messages, answers)
        labels = [IGNORED] * len(ids)
        ends = [*starts[1:], len(ids)]
        others = [following - at - 1 for at, following in pairwise(answers)]
        for start, until, between in zip(starts, ends, [*others, 0], strict=True):
            end = self._end(ids, start, until, expected=1 + between * self.ends_between)
            labels[start:end] = ids[start:end]
        return ids, labels

    def answers(
        self, messages: Sequence[Message], *texts: str
    ) -> tuple[list[int], list[list[int]]]:
        """Return the token ids of the prompt, and of each answer up to its end-of-turn token."""
        found = []
        prompt: list[int] = []
        for text in texts:
            whole = self._checked([*messages, _message("assistant", text)])
            ids, (start,) = _cut(self.tokenizer, whole, [len(whole) - 1])
            prompt = ids[:start]
            found.append(ids[start : self._end(ids, start, len(ids), expected=1)])
        return prompt, found

    def _end(self, ids: list[int], start: int, until: int, expected: int) -> int:
        """Position after the end-of-turn token of the answer that begins at `start`."""
        span = ids[start:until]
        if span.count(self.end_of_turn) != expected:
            raise RowRejected(
                "end_of_turn",
                f"{span.count(self.end_of_turn)} end-of-turn tokens instead of {expected}",
            )
        return start + span.index(self.end_of_turn) + 1

    def _checked(self, messages: Sequence[Message]) -> list[Message]:
        for message in messages:
            if found := self._control.search(message["content"]):
                raise RowRejected(
                    "control_token_in_text",
                    f"a {message['role']} message contains {found.group()!r}",
                )
            if message["role"] == "assistant" and not message["content"].strip():
                raise RowRejected("empty_answer", "an assistant message is empty")
        return merged_system(messages) if self.merges(messages) else list(messages)

    def merges(self, messages: Sequence[Message]) -> bool:
        """Return whether a system message must be put into the first user turn."""
        return not self.knows_system and messages[0]["role"] == "system"

    @cached_property
    def _control(self) -> re.Pattern[str]:
        """The texts that become control tokens wherever they appear: in a message they could forge
        the end of a turn."""
        special = {
            token.content for token in self.tokenizer.added_tokens_decoder.values() if token.special
        }
        special |= {self.end_of_turn_text, *self.tokenizer.all_special_tokens}
        return re.compile(
            "|".join(re.escape(text) for text in sorted(special, key=len, reverse=True))
        )


def merged_system(messages: Sequence[Message]) -> list[Message]:
    """Return the conversation with its system message put before the first user's text."""
    try:
        return without_system(messages)
    except ValueError:
        raise RowRejected(
            "template_refuses", "the template has no system message, and no user turn follows it"
        ) from None


def _cut(
    tokenizer: Any, messages: list[Message], answers: list[int]
) -> tuple[list[int], list[int]]:
    """Return the token ids of the whole conversation, and where in them each answer begins: right
    after the prompt.

    Some tokenizers join the prompt's last characters with the answer's first. A model that gets the
    prompt cannot do that, so the text is then cut before each answer, and the pieces are tokenized.
    """
    from jinja2 import TemplateError

    try:
        prompts = [_text(tokenizer, messages[:at], prompt=True) for at in answers]
        whole = _text(tokenizer, messages)
    except TemplateError as error:
        raise RowRejected("template_refuses", str(error)) from None
    *beginnings, ids = tokenizer([*prompts, whole], add_special_tokens=False)["input_ids"]
    if all(ids[: len(beginning)] == beginning for beginning in beginnings):
        return ids, [len(beginning) for beginning in beginnings]
    if all(whole.startswith(prompt) for prompt in prompts):
        cuts = [0, *map(len, prompts), len(whole)]
        pieces = tokenizer([whole[a:b] for a, b in pairwise(cuts)], add_special_tokens=False)[
            "input_ids"
        ]
        joined = [token for piece in pieces for token in piece]
        if tokenizer.decode(joined) == tokenizer.decode(ids):
            return joined, list(accumulate(len(piece) for piece in pieces[:-1]))
    raise RowRejected(
        "prompt_differs",
        "the template renders what comes before an answer differently once it is answered",
    )


def _end_of_turn(tokenizer: Any, model: str) -> int:
    """Return the control token that follows an answer's text."""
    question, text = _message("user", "Why?"), "Because"
    try:
        ids, (start,) = _cut(tokenizer, [question, _message("assistant", text)], [1])
    except RowRejected as error:
        raise TrainError(
            f"The loss cannot be put on the answers alone with the chat template of {model}: "
            f"{error.detail}. Use a template that only adds to what it rendered before."
        ) from None
    rest = ids[start:]
    control = [
        i
        for i, token in enumerate(rest)
        if _is_control(tokenizer, token) and text in tokenizer.decode(rest[:i])
    ]
    if not control or not tokenizer.decode(rest[: control[0]]).rstrip().endswith(text):
        raise TrainError(
            f"The chat template of {model} ends an answer with {tokenizer.decode(rest)!r}, in "
            "which no control token follows the answer's text: the model would never learn to "
            "stop. Use a template that ends turns with a special token."
        )
    end = rest[control[0]]
    if rest.count(end) > 1:
        raise TrainError(
            f"The chat template of {model} ends an answer with {rest.count(end)} times "
            f"{tokenizer.convert_ids_to_tokens(end)!r} instead of once. Correct the template."
        )
    return end


def _is_control(tokenizer: Any, token: int) -> bool:
    added = tokenizer.added_tokens_decoder.get(token)
    return added is not None and bool(added.content.strip())


def _knows_system(tokenizer: Any) -> bool:
    from jinja2 import TemplateError

    text = "Answer in one word only."
    try:
        return text in _text(tokenizer, [_message("system", text), _message("user", "Why?")])
    except TemplateError:
        return False


def _text(tokenizer: Any, messages: list[Message], *, prompt: bool = False) -> str:
    return str(
        tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
    )


def _tokens(tokenizer: Any, messages: list[Message]) -> list[int]:
    return list(tokenizer(_text(tokenizer, messages), add_special_tokens=False)["input_ids"])


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}
