"""Conversations as token ids by the model's own chat template, with loss only on the answers and
their end of turn.

`rendering` says which text is trained; here it becomes tokens, as the engine's tokenizer makes
them. A text without control texts in its messages gets exactly the engine's ids. Text in messages
never becomes a control token.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any

from moaa.chat.message import Message
from moaa.errors import RowRejected, TrainError
from moaa.train.rendering import Rendered, Rendering
from moaa.weights import control

IGNORED = -100
"""Label of a token without loss."""

Tokens = tuple[list[int], list[int]]
"""Token ids and labels of one sequence."""


@dataclass(frozen=True)
class Template:
    """A tokenizer, and what its chat template does with conversations.
    Create it with `Template.of`."""

    tokenizer: Any
    rendering: Rendering

    @classmethod
    def of(
        cls,
        tokenizer: Any,
        model: str,
        text: str = "",
        variables: Mapping[str, Any] | None = None,
    ) -> Template:
        """Return the template of this tokenizer, or the one in `text`, with these variables.

        Raises TrainError if the template does not show where an answer begins and ends.
        """
        if text:
            tokenizer.chat_template = text
        if not tokenizer.chat_template:
            raise TrainError(
                f"The tokenizer of {model} has no chat template. Give the model one "
                "(chat_template.jinja)."
            )

        def render(messages: Sequence[Message], *, prompt: bool = False) -> str:
            return str(
                tokenizer.apply_chat_template(
                    list(messages), tokenize=False, add_generation_prompt=prompt, **variables or {}
                )
            )

        added = [(each.content, each.special) for each in tokenizer.added_tokens_decoder.values()]
        added += [(text, True) for text in tokenizer.all_special_tokens]
        controls = control.rendered_controls(added, tokenizer.get_chat_template(), render)
        return cls(tokenizer, Rendering.of(render, controls, model))

    @property
    def end_of_turn(self) -> int:
        """The token that ends an assistant's turn."""
        return int(self.tokenizer.convert_tokens_to_ids(self.rendering.end))

    def merges(self, messages: Sequence[Message]) -> bool:
        """Return whether a system message must be put into the first user turn."""
        return self.rendering.merges(messages)

    def sequences(
        self, messages: Sequence[Message], cut: Collection[int] = ()
    ) -> tuple[list[Tokens], Counter[str]]:
        """Return the sequences to train on, and how many answers are in none, by reason.

        `cut`: numbers (from 0) of the answers that were cut at the token limit: no loss teaches the
        model to stop there. Raises RowRejected if no answer can be trained on.
        """
        rendered, left_out = self.rendering.sequences(messages, cut)
        return [self._labelled(each) for each in rendered], left_out

    def answers(
        self, messages: Sequence[Message], texts: Sequence[str], cut: Sequence[bool] = ()
    ) -> tuple[list[int], list[list[int]]]:
        """Return the token ids of the prompt, and of each answer up to its end-of-turn token; an
        answer that was cut has no such token."""
        found = []
        prompt: list[int] = []
        for text, was_cut in zip(texts, cut or [False] * len(texts), strict=True):
            rendered = self.rendering.answer(messages, text, cut=was_cut)
            ids, (start,) = self._cut(rendered)
            prompt = ids[:start]
            end = self._end(ids, start)
            found.append(ids[start : self._without_end(ids, start, end) if was_cut else end])
        return prompt, found

    def has_control_text(self, texts: Iterable[str]) -> bool:
        """Return whether one of the texts has the text of a control token, which stays text."""
        return any(self.rendering.controls.search(text) for text in texts)

    def _labelled(self, rendered: Rendered) -> Tokens:
        ids, starts = self._cut(rendered)
        labels = [IGNORED] * len(ids)
        for start, span in zip(starts, rendered.answers, strict=True):
            end = self._end(ids, start)
            if span.cut:
                end = self._without_end(ids, start, end)
            labels[start:end] = ids[start:end]
        return ids, labels

    def _end(self, ids: list[int], start: int) -> int:
        """Return the position after the end-of-turn token of the answer that begins at `start`."""
        return ids.index(self.end_of_turn, start) + 1

    def _without_end(self, ids: list[int], start: int, end: int) -> int:
        """Return the position after the answer's own text: without its end of turn, and without the
        white space that the template puts before that."""
        end -= 1
        while end > start and not self.tokenizer.decode([ids[end - 1]]).strip():
            end -= 1
        return end

    def _cut(self, rendered: Rendered) -> tuple[list[int], list[int]]:
        """Return the token ids of the text, and where in them each answer begins: right after its
        prompt.

        Some tokenizers join the prompt's last characters with the answer's first. A model that gets
        the prompt cannot do that, so the text is then cut before each answer, and the pieces are
        tokenized.
        """
        text, mark = rendered.text, rendered.mark
        starts = [span.start for span in rendered.answers]
        *beginnings, ids = self._ids([*(text[:start] for start in starts), text], mark)
        if all(ids[: len(beginning)] == beginning for beginning in beginnings):
            found = ids, [len(beginning) for beginning in beginnings]
        else:
            cuts = [0, *starts, len(text)]
            pieces = self._ids([text[a:b] for a, b in pairwise(cuts)], mark)
            joined = [token for piece in pieces for token in piece]
            if self.tokenizer.decode(joined) != self.tokenizer.decode(ids):
                raise RowRejected(
                    "prompt_differs", "the tokenizer changes what comes before an answer"
                )
            found = joined, list(accumulate(len(piece) for piece in pieces[:-1]))
        self._check(found[0], rendered)
        return found

    def _ids(self, texts: list[str], mark: str) -> list[list[int]]:
        """Return the token ids of the texts, without those of the mark."""
        if not mark:
            found: list[list[int]] = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
            return found
        return [self._ids_around(text, mark) for text in texts]

    def _ids_around(self, text: str, mark: str) -> list[int]:
        """Return the token ids of a text, without those of the mark.

        The text is tokenized with its marks, so that each piece keeps its place. If the tokenizer
        joins a mark with its neighbours, the pieces are tokenized one by one.
        """
        if self.tokenizer.is_fast:
            found = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
            covered = [text[a:b] for a, b in found["offset_mapping"]]
            if all(each == mark or mark not in each for each in covered):
                ids = zip(found["input_ids"], covered, strict=True)
                return [token for token, each in ids if each != mark]
        pieces = self.tokenizer(text.split(mark), add_special_tokens=False)["input_ids"]
        return [token for piece in pieces for token in piece]

    def _check(self, ids: list[int], rendered: Rendered) -> None:
        """Check the ids. Raises RowRejected if a message's text became a control token, or if the
        text has changed."""
        wanted = Counter(
            self._control_ids[text] for text in self.rendering.controls.findall(rendered.text)
        )
        # Any character that the tokenizer does not know becomes the unknown token.
        known = {*self._control_ids.values()} - {self.tokenizer.unk_token_id}
        found = Counter(token for token in ids if token in known)
        if found != Counter({token: n for token, n in wanted.items() if token in known}):
            raise RowRejected(
                "control_token_in_text", "the text of a message would become a control token"
            )
        if rendered.mark:
            plain = rendered.text.replace(rendered.mark, "")
            whole = self.tokenizer(plain, add_special_tokens=False)["input_ids"]
            if self.tokenizer.decode(ids) != self.tokenizer.decode(whole):
                raise RowRejected(
                    "control_token_in_text", "a control text cannot be kept as plain text"
                )

    @cached_property
    def _control_ids(self) -> dict[str, int]:
        """The tokens of the control texts."""
        return {
            text: self.tokenizer.convert_tokens_to_ids(text)
            for text in self.rendering.control_texts
        }
