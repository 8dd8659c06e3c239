"""A benchmark that a program marks, for tests: lm-eval's tasks take seconds to import."""

from __future__ import annotations

from typing import ClassVar

from moaa.benchmarks.harness import Doc, Marks
from moaa.benchmarks.reasoning import Reasons
from moaa.benchmarks.rows import DataRow
from moaa.chat.message import Message
from moaa.recipe.reasoning import Gsm8k


class Word(DataRow):
    """What to say."""

    question: str


class Spelling(Reasons[Gsm8k]):
    """Whether an answer is in capitals, and which of its words are."""

    name: ClassVar[str] = "gsm8k"
    title: ClassVar[str] = "Spelling"
    protocol: ClassVar[str] = "Answers in capitals are right."
    main: ClassVar[str] = "capitals"
    row: ClassVar[type[DataRow]] = Word
    count: ClassVar[int] = 2
    content: ClassVar[str] = ""

    def identity(self, doc: Doc) -> str:
        """The question."""
        return str(doc["question"])

    def messages(self, doc: Doc) -> tuple[Message, ...]:
        """The question."""
        return (Message(role="user", content=doc["question"]),)

    def marks(self, doc: Doc, text: str) -> Marks:
        """Of the text, and of each word."""
        return {"capitals": float(text.isupper()), "words": [w.isupper() for w in text.split()]}
