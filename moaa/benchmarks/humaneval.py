"""HumanEval: functions of Python, written by the model and run against their tests."""

from __future__ import annotations

import re
import textwrap
from typing import ClassVar, Final

from moaa.artifacts.table import Row
from moaa.benchmarks.benchmark import Match
from moaa.benchmarks.harness import Doc, Marks
from moaa.benchmarks.reasoning import Reasons, row_of
from moaa.benchmarks.rows import DataRow
from moaa.chat.message import Ask, Message, opening
from moaa.errors import RowRejected
from moaa.recipe import reasoning
from moaa.recipe.schema import Source

INSTRUCTION: Final = (
    "Complete this Python function. Answer with the whole function and the imports that it needs, "
    "in one block of code.\n\n```python\n{prompt}```"
)
_FUTURE: Final = re.compile(r"^from __future__ import [\w, ]+$", re.MULTILINE)
_BLOCK: Final = re.compile(r"```[^\n]*\n(.*?)(?:```|\Z)", re.DOTALL)


class Function(DataRow):
    """A function to write, with its tests."""

    task_id: str
    prompt: str
    test: str
    entry_point: str


class HumanEval(Reasons[reasoning.HumanEval]):
    """The share of functions that pass their tests (pass@1)."""

    name: ClassVar[str] = "humaneval"
    title: ClassVar[str] = "HumanEval"
    protocol: ClassVar[str] = (
        "The model writes the whole function. Right: its program passes the published tests, in a "
        "pod without network, token, or anything to write, within 10 s."
    )
    published: ClassVar[tuple[Source, ...]] = (
        Source(
            source="hub:openai/openai_humaneval",
            split="test",
            revision="7dce6050a7d6d172f3cc5c32aa97f52fa1a2e544",
        ),
    )
    content: ClassVar[str] = "749f7401d50fb900"
    count: ClassVar[int] = 164
    main: ClassVar[str] = "pass@1"
    row: ClassVar[type[DataRow]] = Function
    runs_programs: ClassVar[bool] = True
    schema: ClassVar[int] = 2

    def identity(self, doc: Doc) -> str:
        """Return its number: `HumanEval/0`."""
        return str(doc["task_id"])

    def messages(self, doc: Doc) -> tuple[Message, ...]:
        """Return the function's head with its description, and the task."""
        return tuple(opening(None, INSTRUCTION.format(prompt=doc["prompt"])))

    def marks(self, doc: Doc, text: str) -> Marks:
        """Never called: an answer is run, not read."""
        raise NotImplementedError

    async def judge_match(self, match: Match, ask: Ask) -> Row:
        """Return whether the answer's program passed; if not, why."""
        (answer,) = match.answers[0]
        if match.run_program is None:
            raise RowRejected("not run", "there is no pod for programs of models here")
        outcome = await match.run_program(program(match.item.given, answer.text))
        return row_of({self.main: float(outcome == "passed")}, outcome)

    def differs(self) -> str:
        """Return that most published numbers are of completions, not of answers in a chat."""
        return "Asked as a chat for the whole function; most published numbers are of completions."


def program(doc: Doc, text: str) -> str:
    """Return a program that exits without an error if the answer passes the tests.

    The prompt comes first. It has imports and helpers, and a function head that the answer's
    function replaces. An answer without the function is taken as the rest of the prompt's function.
    Before the prompt is only what Python allows nowhere else: imports from `__future__`.
    """
    code = code_of(text, doc["entry_point"])
    future = "".join(f"{line}\n" for line in _FUTURE.findall(code))
    code = _FUTURE.sub("", code)
    return f"{future}{doc['prompt']}\n{code}\n\n{doc['test']}\n\ncheck({doc['entry_point']})\n"


def code_of(text: str, function: str) -> str:
    """Return the code of an answer: the last block that defines the function, else the first block,
    else the whole text. A block in a list is indented as a whole: the function is not."""
    blocks = _BLOCK.findall(text)
    defines = re.compile(rf"^\s*(async\s+)?def\s+{re.escape(function)}\b", re.MULTILINE)
    found: list[str] = [block for block in blocks if defines.search(block)]
    if found:
        return textwrap.dedent(found[-1])
    return str(blocks[0]) if blocks else text
