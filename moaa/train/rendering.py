"""Which parts of a conversation can be trained on under a chat template: only text, no tokenizer.

Nothing is added to the template and nothing is guessed from it. For each answer the template
renders two texts: what the model is asked with (the prompt), and the conversation up to that
answer. The second must begin with the first. The rest, up to the end of the turn, is what the model
writes when it is served with this template, and this is trained.

Answers that look the same in the whole conversation are trained in it. Each other answer is trained
in its own sequence, which ends with it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from moaa.chat.message import Message, without_system
from moaa.errors import RowRejected, TrainError, without_stop
from moaa.weights import control
from moaa.weights.chat_template import Render

_MARKS: Final = tuple(map(chr, range(0xFDD0, 0xFDF0)))
"""Characters that Unicode reserves for a program's own use: no text has them."""
_QUESTION, _ANSWER, _SYSTEM = "Why?", "Because", "Answer in one word only."


@dataclass(frozen=True, slots=True)
class Span:
    """An answer in a text: from the end of its prompt to the end of its turn."""

    start: int
    end: int
    """The position after the end-of-turn text."""
    cut: bool = False
    """Whether the answer was cut at the token limit: it did not end here."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """A text that is trained on, and the answers in it that have loss."""

    text: str
    """With a `mark` in each control text that a message contains: it is then not a control text."""
    answers: tuple[Span, ...]
    mark: str = ""


@dataclass(frozen=True)
class Rendering:
    """A chat template, and what short conversations showed about it.

    Create it with `Rendering.of`.
    """

    render: Render
    control_texts: frozenset[str]
    """The texts that the tokenizer turns into control tokens."""
    end: str
    """The text that ends an assistant's turn."""
    knows_system: bool
    """False if the template refuses or omits system messages:
    they are put into the first user turn."""

    @classmethod
    def of(cls, render: Render, controls: Collection[str], model: str) -> Rendering:
        """Return what this template does. Raises TrainError if it does not show where an answer
        begins and ends."""
        end = _end_of_turn(render, control.pattern(controls), model)
        return cls(render, frozenset(controls), end, _knows_system(render))

    @cached_property
    def controls(self) -> re.Pattern[str]:
        """Finds the control texts."""
        return control.pattern(self.control_texts)

    def merges(self, messages: Sequence[Message]) -> bool:
        """Return whether a system message must be put into the first user turn."""
        return not self.knows_system and messages[0]["role"] == "system"

    def sequences(
        self, messages: Sequence[Message], cut: Collection[int] = ()
    ) -> tuple[list[Rendered], Counter[str]]:
        """Return the texts to train on, and how many answers are not in them, by reason.

        `cut`: numbers (from 0) of the answers that were cut at the token limit. Raises RowRejected,
        with the reason of the last answer, if none can be trained on.
        """
        messages, mark = self._checked(messages)
        answers = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        if not answers:
            raise RowRejected("no_answer", "the conversation has no assistant message")
        whole = self._text(messages)
        together: list[Span] = []
        alone: list[Rendered] = []
        left_out: Counter[str] = Counter()
        failure: RowRejected | None = None
        for number, at in enumerate(answers):
            try:
                text, span = self._answer(messages[: at + 1], cut=number in cut)
            except RowRejected as error:
                left_out[error.reason] += 1
                failure = error
                continue
            if found := self._same_in(whole, text, span, messages[at]["content"]):
                together.append(found)
            else:
                alone.append(Rendered(text, (span,), mark))
        if failure and not together and not alone:
            raise failure
        both = [Rendered(whole, tuple(together), mark)] if together else []
        return [*alone, *both], left_out

    def answer(self, messages: Sequence[Message], text: str, *, cut: bool = False) -> Rendered:
        """Return the conversation with this answer at its end; only this answer has loss."""
        whole, mark = self._checked([*messages, Message(role="assistant", content=text)])
        rendered, span = self._answer(whole, cut=cut)
        return Rendered(rendered, (span,), mark)

    def _answer(self, messages: Sequence[Message], *, cut: bool) -> tuple[str, Span]:
        """Return the text of a conversation that ends with an answer,
        and where in it the answer is."""
        prompt = self._text(messages[:-1], prompt=True)
        text = self._text(messages)
        if not text.startswith(prompt):
            raise RowRejected(
                "prompt_differs",
                "the template renders what comes before an answer differently once it is answered",
            )
        start = len(prompt)
        if text.count(self.end, start) != 1:
            raise RowRejected(
                "end_of_turn", f"{text.count(self.end, start)} times {self.end!r} instead of once"
            )
        end = text.index(self.end, start) + len(self.end)
        if messages[-1]["content"].strip() not in text[start:end]:
            raise RowRejected("answer_changed", "the template changes the text of an answer")
        return text, Span(start, end, cut)

    def _same_in(self, whole: str, text: str, span: Span, content: str) -> Span | None:
        """Return where the answer is in the whole conversation, if it has the same prompt and end
        there.

        A template may leave out an empty thought in earlier answers.
        """
        end = whole.find(self.end, span.start) + len(self.end)
        there = whole[span.start : end]
        if (
            whole.startswith(text[: span.start])
            and text[span.start : span.end].endswith(there)
            and content.strip() in there
        ):
            return Span(span.start, end, span.cut)
        return None

    def _checked(self, messages: Sequence[Message]) -> tuple[list[Message], str]:
        """Return the messages for the template, and the mark in their control texts, if any."""
        for message in messages:
            if message["role"] == "assistant" and not message["content"].strip():
                raise RowRejected("empty_answer", "an assistant message is empty")
        found = merged_system(messages) if self.merges(messages) else list(messages)
        if not any(self.controls.search(message["content"]) for message in found):
            return found, ""
        text = "".join(message["content"] for message in found)
        mark = next((each for each in _MARKS if each not in text), "")
        if not mark:
            raise RowRejected(
                "control_token_in_text", "a message has a control text, and no mark is left"
            )
        return [
            Message(role=each["role"], content=self._marked(each["content"], mark))
            for each in found
        ], mark

    def _marked(self, text: str, mark: str) -> str:
        """Return the text with a mark after the first character of each control text in it."""
        parts, at = [], 0
        while found := self.controls.search(text, at):
            following = found.start() + 1
            if found.end() == following:
                raise RowRejected(
                    "control_token_in_text", f"a message contains {found.group()!r}, one character"
                )
            parts += [text[at:following], mark]
            at = following
        return "".join([*parts, text[at:]])

    def _text(self, messages: Sequence[Message], *, prompt: bool = False) -> str:
        from jinja2 import TemplateError

        try:
            return self.render(messages, prompt=prompt)
        except TemplateError as error:
            raise RowRejected("template_refuses", str(error)) from None


def merged_system(messages: Sequence[Message]) -> list[Message]:
    """Return the conversation with its system message put before the first user's text."""
    try:
        return without_system(messages)
    except ValueError:
        raise RowRejected(
            "template_refuses", "the template has no system message, and no user turn follows it"
        ) from None


def conversation(*, turns: int, system: bool, answered: bool = True) -> list[Message]:
    """Return a short conversation of this kind; the last turn has no answer unless `answered`."""
    messages = [Message(role="system", content=_SYSTEM)] if system else []
    for _ in range(turns):
        messages.append(Message(role="user", content=_QUESTION))
        messages.append(Message(role="assistant", content=_ANSWER))
    return messages if answered else messages[:-1]


def _end_of_turn(render: Render, controls: re.Pattern[str], model: str) -> str:
    """Return the control text that follows an answer's text."""
    from jinja2 import TemplateError

    asked = conversation(turns=1, system=False, answered=False)
    try:
        prompt = render(asked, prompt=True)
        text = render(conversation(turns=1, system=False))
    except TemplateError as error:
        raise TrainError(
            f"The chat template of {model} refuses a question and its answer: "
            f"{without_stop(error)}. Use another template."
        ) from None
    if not text.startswith(prompt):
        raise TrainError(
            f"The loss cannot be put on the answers alone with the chat template of {model}: it "
            "renders what comes before an answer differently once it is answered "
            f"({prompt[-60:]!r} is not the beginning of {text[-80:]!r}). If it opens a thought, "
            "give the target the engine argument --default-chat-template-kwargs "
            "'{\"enable_thinking\": false}'. Otherwise use a template that only adds to what it "
            "rendered before."
        )
    rest = text[len(prompt) :]
    found = controls.search(rest, rest.find(_ANSWER) + len(_ANSWER)) if _ANSWER in rest else None
    if found is None or not rest[: found.start()].rstrip().endswith(_ANSWER):
        raise TrainError(
            f"The chat template of {model} ends an answer with {rest!r}, in which no control token "
            "follows the answer's text: the model would never learn to stop. Use a template that "
            "ends turns with a special token."
        )
    end = found.group()
    if rest.count(end) > 1:
        raise TrainError(
            f"The chat template of {model} ends an answer with {rest.count(end)} times {end!r} "
            "instead of once. Correct the template."
        )
    return end


def _knows_system(render: Render) -> bool:
    """Return whether the system message is in the text of every kind
    of conversation that has one."""
    from jinja2 import TemplateError

    for turns, answered in ((1, False), (1, True), (2, False), (2, True)):
        try:
            render(conversation(turns=turns, system=False, answered=answered), prompt=not answered)
        except TemplateError:
            continue  # refused without a system message too
        told = conversation(turns=turns, system=True, answered=answered)
        try:
            if _SYSTEM not in render(told, prompt=not answered):
                return False
        except TemplateError:
            return False
    return True
