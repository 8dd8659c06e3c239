"""A prompt, and how it is read from a row of a data set in any common form. No I/O."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from moaa.errors import RowRejected
from moaa.masking import Masker
from moaa.prompts.overlap import normalized
from moaa.prompts.shapes import answers_of, user_side
from moaa.recipe.schema import Source


@dataclass(frozen=True, slots=True)
class PromptRow:
    """The user's side of a conversation.

    `id`: the first 16 hex digits of the sha256 of the normalized turns, and of the system message
    if there is one. The same question under another persona is another prompt.
    """

    id: str
    source: str
    system: str | None
    turns: tuple[str, ...]
    problem: str = ""
    """Why no prompt could be read from the row, which then has no turns."""
    reason: str = ""
    """The problem in one or two words, for counting."""
    left_out: tuple[str, ...] = ()
    """Parts of the user's side that are not in the prompt."""
    answers: tuple[str, ...] | None = None
    """The data set's own answers to the turns, one each, if they are wanted."""
    skip_trained: bool = False
    """Whether it is left out if production was trained on it, or on a prompt near to it."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields of a row of a table of prompts."""
        return {
            "id": self.id,
            "source": self.source,
            "system": self.system,
            "turns": list(self.turns),
            **({} if self.answers is None else {"answers": list(self.answers)}),
        }

    def masked(self) -> tuple[PromptRow, Counter[str]]:
        """Return the row without personal data and keys, and how many of each were replaced. The id
        stays: the same question is the same prompt."""
        mask = Masker()
        row = replace(
            self,
            system=self.system and mask(self.system),
            turns=tuple(mask(turn) for turn in self.turns),
            answers=self.answers and tuple(mask(answer) for answer in self.answers),
        )
        return row, mask.found

    @property
    def text(self) -> str:
        """All turns as one text."""
        return "\n\n".join(self.turns)


def read_prompt(row: object, source: Source, *, answers: bool = False) -> PromptRow:
    """Return the prompt of one row, from the column `source.field` or one of a usual name.

    Only the first `source.turns` user turns are kept (the mixture writes new answers), with the
    data set's answers to them if they are wanted. A row without a prompt is returned with its
    `problem`, and `build` rejects it.
    """
    name = source.name or source.source
    try:
        system, found, left_out = user_side(row, source.field)
    except RowRejected as error:
        text = json.dumps(row, sort_keys=True, default=str)
        return PromptRow(
            digest_of([text]), name, None, (), problem=error.detail, reason=error.reason
        )
    turns = found[: source.turns]
    texts = [normalized(turn) for turn in turns]
    identity = digest_of([normalized(system), texts] if system else texts)
    own = tuple(answers_of(row, source.field)[: len(turns)]) if answers else None
    return PromptRow(
        identity,
        name,
        system,
        tuple(turns),
        left_out=left_out,
        answers=own,
        skip_trained=source.skip_trained,
    )


def digest_of(texts: list[Any]) -> str:
    """Return the first 16 hex digits of the sha256 of these texts."""
    joined = json.dumps(texts, ensure_ascii=True)
    return hashlib.sha256(joined.encode()).hexdigest()[:16]
