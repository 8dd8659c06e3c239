"""GSM8K: problems of school mathematics whose answer is one number."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import ClassVar

from moaa.benchmarks import harness
from moaa.benchmarks.harness import Doc, Marks
from moaa.benchmarks.reasoning import Reasons
from moaa.benchmarks.rows import DataRow
from moaa.chat.message import Message
from moaa.recipe import reasoning
from moaa.recipe.schema import Source


class Problem(DataRow):
    """A problem with its published solution."""

    question: str
    answer: str


class Gsm8k(Reasons[reasoning.Gsm8k]):
    """The share of problems with the right number."""

    name: ClassVar[str] = "gsm8k"
    title: ClassVar[str] = "GSM8K"
    protocol: ClassVar[str] = (
        "Each problem is asked without examples, with a chain of thought. Right: the last number "
        "of the answer (flexible), or that after 'The answer is' (strict), is the published one."
    )
    published: ClassVar[tuple[Source, ...]] = (
        Source(
            source="hub:openai/gsm8k",
            config="main",
            split="test",
            revision="e53f048856ff4f594e959d75785d2c2d37b678ee",
        ),
    )
    content: ClassVar[str] = "ae6a977c3224d773"
    count: ClassVar[int] = 1319
    packages: ClassVar[tuple[str, ...]] = ("lm_eval",)
    main: ClassVar[str] = "exact_match, flexible-extract"
    row: ClassVar[type[DataRow]] = Problem

    def prepare(self, docs: Sequence[Doc]) -> None:
        """Load the task of lm-eval."""
        self._task = harness.load(self.settings.task, docs, folder="gsm8k")

    def identity(self, doc: Doc) -> str:
        """Return the start of the question's sha256: the data have no ids."""
        return hashlib.sha256(doc["question"].encode()).hexdigest()[:12]

    @property
    def stops(self) -> tuple[str, ...]:
        """The task's stop texts."""
        return self._task.stops

    def messages(self, doc: Doc) -> tuple[Message, ...]:
        """Return the problem, in the task's form."""
        return self._task.messages(doc)

    def marks(self, doc: Doc, text: str) -> Marks:
        """Return the exact match of the number, by both filters."""
        return self._task.marks(doc, text)

    def differs(self) -> str:
        """Return how the questions are asked differently from most published numbers."""
        return (
            f"Asked as lm-eval's {self.settings.task}, as a chat; most published numbers are of 5 "
            "or 8 examples."
        )
