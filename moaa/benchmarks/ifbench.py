"""IFBench: prompts with kinds of instructions that models were not trained on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Final

from moaa.artifacts.table import Row
from moaa.benchmarks import harness, nltk_data
from moaa.benchmarks.harness import Doc, Marks
from moaa.benchmarks.instructions import Instructed, checked
from moaa.benchmarks.items import Item
from moaa.benchmarks.reasoning import Reasons
from moaa.benchmarks.rows import DataRow
from moaa.chat.message import Message, opening
from moaa.recipe import reasoning
from moaa.recipe.schema import Source

TAGGED: Final = frozenset({"words:start_verb"})
"""Instructions whose checker needs NLTK's tagger, which no package contains."""


class Ifbench(Reasons[reasoning.Ifbench]):
    """The share of prompts whose instructions are all followed."""

    name: ClassVar[str] = "ifbench"
    title: ClassVar[str] = "IFBench"
    protocol: ClassVar[str] = (
        "Each prompt is asked as it is. Right: every instruction in it is followed (loose: also "
        "without the answer's first line, last line or asterisks), by if-verifiable's checkers."
    )
    published: ClassVar[tuple[Source, ...]] = (
        Source(
            source="hub:allenai/IFBench_test", revision="2e8a48de45ff3bf41242f927254ca81b59ca3ae2"
        ),
    )
    content: ClassVar[str] = "78dc60b58ce80303"
    count: ClassVar[int] = 300
    packages: ClassVar[tuple[str, ...]] = ("if_verifiable", "nltk", "langdetect")
    main: ClassVar[str] = "prompt, loose"
    row: ClassVar[type[DataRow]] = Instructed

    _unchecked = 0
    """How many questions are left out, because nothing here can check them."""

    def prepare(self, docs: Sequence[Doc]) -> None:
        """Load the checkers."""
        harness.installed(self.title, self.packages)
        nltk_data.need(self.title, nltk_data.SENTENCES, nltk_data.STOP_WORDS)
        with nltk_data.without_downloads():
            from if_verifiable.ifbench.instructions_registry import INSTRUCTION_DICT

        self._checkers: dict[str, Any] = INSTRUCTION_DICT
        harness.same_languages()
        checked(self.name, docs, self._checkers)

    def documents(self, rows: Iterable[Row]) -> list[Doc]:
        """Return its questions, without those that cannot be checked here."""
        docs = super().documents(rows)
        harness.installed(self.title, self.packages)
        if nltk_data.has(nltk_data.TAGGER):
            return docs
        kept = [doc for doc in docs if not TAGGED & set(doc["instruction_id_list"])]
        self._unchecked = len(docs) - len(kept)
        return kept

    def identity(self, doc: Doc) -> str:
        """Return its key."""
        return str(doc["key"])

    def messages(self, doc: Doc) -> tuple[Message, ...]:
        """Return the prompt."""
        return tuple(opening(None, doc["prompt"]))

    def marks(self, doc: Doc, text: str) -> Marks:
        """Return strict and loose marks, by prompt and by instruction."""
        from if_verifiable.common import evaluate_instructions

        results, scores = evaluate_instructions(
            text, doc["instruction_id_list"], doc["kwargs"], doc["prompt"], self._checkers
        )
        n = len(doc["instruction_id_list"])
        return {
            "prompt, strict": scores.binary_strict,
            "prompt, loose": scores.binary_loose,
            "instruction, strict": [each.strict_pass for each in results] or [False] * n,
            "instruction, loose": [each.loose_pass for each in results] or [False] * n,
        }

    def incomparable(self, items: Sequence[Item]) -> str:
        """As for other benchmarks, and how many questions cannot be checked here."""
        left_out = (
            f" {self._unchecked} are left out: their checker needs NLTK's tagger (python -m "
            "nltk.downloader averaged_perceptron_tagger_eng)."
            if self._unchecked
            else ""
        )
        return super().incomparable(items) + left_out
