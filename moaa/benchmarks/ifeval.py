"""IFEval: prompts with instructions that a program can check (words, format, language)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final

from moaa.benchmarks import harness, nltk_data
from moaa.benchmarks.harness import Doc, Marks
from moaa.benchmarks.instructions import Instructed, checked
from moaa.benchmarks.reasoning import Reasons
from moaa.benchmarks.rows import DataRow
from moaa.chat.message import Message
from moaa.recipe import reasoning
from moaa.recipe.schema import Source

METRICS: Final = {
    "prompt, strict": "prompt_level_strict_acc",
    "prompt, loose": "prompt_level_loose_acc",
    "instruction, strict": "inst_level_strict_acc",
    "instruction, loose": "inst_level_loose_acc",
}
"""Our names for lm-eval's metrics: the same as IFBench's."""


class Ifeval(Reasons[reasoning.Ifeval]):
    """The share of prompts whose instructions are all followed."""

    name: ClassVar[str] = "ifeval"
    title: ClassVar[str] = "IFEval"
    protocol: ClassVar[str] = (
        "Each prompt is asked as it is. Right: every instruction in it is followed (strict), or is "
        "without the answer's first line, last line or asterisks (loose)."
    )
    published: ClassVar[tuple[Source, ...]] = (
        Source(source="hub:google/IFEval", revision="966cd89545d6b6acfd7638bc708b98261ca58e84"),
    )
    content: ClassVar[str] = "b6cbaac3a9744e04"
    count: ClassVar[int] = 541
    packages: ClassVar[tuple[str, ...]] = ("lm_eval", "nltk", "langdetect")
    main: ClassVar[str] = "prompt, strict"
    row: ClassVar[type[DataRow]] = Instructed

    def prepare(self, docs: Sequence[Doc]) -> None:
        """Load lm-eval's checkers."""
        harness.installed(self.title, self.packages)
        nltk_data.need(self.title, nltk_data.SENTENCES)
        self._task = harness.load("ifeval", docs, folder="ifeval")
        harness.same_languages()
        harness.same_letters()
        checked(self.name, docs, harness.ifeval_checkers())

    def identity(self, doc: Doc) -> str:
        """Return its key."""
        return str(doc["key"])

    def messages(self, doc: Doc) -> tuple[Message, ...]:
        """Return the prompt."""
        return self._task.messages(doc)

    def marks(self, doc: Doc, text: str) -> Marks:
        """Return strict and loose marks, by prompt and by instruction."""
        found = self._task.marks(doc, text)
        return {name: found[theirs] for name, theirs in METRICS.items()}
