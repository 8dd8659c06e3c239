"""Tasks of lm-eval: their prompts, examples, filters and metrics. moaa sends the calls itself.

    task = load("gsm8k_cot_zeroshot", docs, folder="gsm8k")
    task.messages(doc)           what a model is asked
    task.marks(doc, text)        {"exact_match, flexible-extract": 1.0, …}

lm-eval is the optional extra `evaluate`; it is imported when a task is loaded. Its models and its
cache are not used: the cache returns one model's answers for the next model.
"""

from __future__ import annotations

import importlib.util
import logging
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from moaa.chat.message import Message
from moaa.errors import RecipeError
from moaa.packages import install_command

if TYPE_CHECKING:
    from _typeshed import SupportsLenAndGetItem
    from lm_eval.api.task import ConfigurableTask

Doc = Mapping[str, Any]
Drawn = TypeVar("Drawn")
Marks = Mapping[str, float | list[bool]]
"""What each metric says about one answer: 0 to 1, or several verdicts."""

EXTRA: Final = "moaa[evaluate]"
SEED: Final = 1234
"""lm-eval's own seed for drawing examples."""


@dataclass(frozen=True, slots=True)
class HarnessTask:
    """A task of lm-eval with our documents."""

    task: ConfigurableTask
    shots: int
    """How many solved examples come before each question."""

    def messages(self, doc: Doc) -> tuple[Message, ...]:
        """Return the conversation of one document. Each example is a turn of its own."""
        self.task.set_fewshot_seed(SEED)  # the same examples in every call
        found = self.task.fewshot_context(
            dict(doc),
            self.shots,
            apply_chat_template=True,
            fewshot_as_multiturn=True,
            chat_template=lambda messages, add_generation_prompt: messages,
        )
        return tuple(Message(role=each["role"], content=each["content"]) for each in found)

    @property
    def stops(self) -> tuple[str, ...]:
        """The texts at which an answer ends."""
        return tuple(self.task.config.generation_kwargs.get("until") or ())

    def marks(self, doc: Doc, text: str) -> Marks:
        """Return what the task's metrics say about one answer, by `metric, filter`.

        A filter finds the answer in the text: `strict-match` needs the requested form,
        `flexible-extract` takes the last number. A metric of several verdicts gives a list.
        """
        from lm_eval.api.instance import Instance

        cut = min([text.find(stop) for stop in self.stops if stop in text], default=len(text))
        instance = Instance("generate_until", dict(doc), (), 0, resps=[text[:cut]])
        found: dict[str, float | list[bool]] = {}
        for each in self.task._filters:
            each.apply([instance])
            marks = self.task.process_results(dict(doc), [instance.filtered_resps[each.name]])
            for metric, value in marks.items():
                name = metric if each.name == "none" else f"{metric}, {each.name}"
                found[name] = list(value) if isinstance(value, list) else float(value)
        return found


def load(
    name: str,
    docs: Sequence[Doc],
    *,
    folder: str,
    examples: Sequence[Doc] = (),
    shots: int | None = None,
) -> HarnessTask:
    """Return the task of this name, below `lm_eval/tasks/{folder}`, with these documents.

    `shots` solved examples come before each question (default: the task's own number), from
    `examples` or from the task itself. Raises RecipeError if lm-eval is not installed, has no such
    task, or if an endpoint cannot run the task correctly.
    """
    try:
        import datasets
        import lm_eval
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise RecipeError(
            f"task '{name}' needs the package {error.name}: {install_command(EXTRA)}"
        ) from None
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    path = Path(str(lm_eval.__file__)).parent / "tasks" / folder
    manager = TaskManager(include_defaults=False, include_path=str(path))
    # For a name outside the folder all 14,000 tasks would be read, which takes seconds.
    entry = manager.task_index.get(name) or TaskManager().task_index.get(name)
    config = (entry.cfg if entry else None) or {}
    if refused := why_not(config):
        raise RecipeError(f"task '{name}' cannot be played: {refused}")
    if name not in manager.task_index:
        raise RecipeError(
            f"lm-eval has no task '{name}' in {folder}. It has {', '.join(manager.all_subtasks)}."
        )
    shots = config.get("num_fewshot") or 0 if shots is None else shots
    own = "samples" in (config.get("fewshot_config") or {})
    if shots > len(examples) and not own:
        raise RecipeError(
            f"task '{name}' shows {shots} solved examples, but its data hold {len(examples)}. Add "
            "them to its data, or choose fewer examples."
        )
    splits = {config["test_split"]: datasets.Dataset.from_list([dict(doc) for doc in docs])}
    given: dict[str, Any] = {}
    if examples:
        solved = datasets.Dataset.from_list([dict(doc) for doc in examples])
        splits[config.get("fewshot_split") or config["training_split"]] = solved
    else:
        given = {"training_split": None, "fewshot_split": None}
        given |= {} if own else {"fewshot_config": None}
    # In a group of one, only the members can get other data than the hub's.
    ours = {"task": name, "custom_dataset": lambda **_: splits, **given}
    found = manager.load({"group": "moaa", "task": [ours]})["tasks"][name]
    return HarnessTask(found, shots)


def why_not(config: Mapping[str, Any]) -> str:
    """Return why a chat endpoint cannot run a task correctly,
    by its configuration; else nothing."""
    kind = config.get("output_type", "generate_until")
    if kind != "generate_until":
        return (
            f"it is scored by the log-probabilities of given answers ({kind}), which a chat "
            "endpoint does not give. Take a task that generates its answers."
        )
    if config.get("gen_prefix"):
        return (
            "it begins the model's answer (gen_prefix). A chat endpoint drops that beginning, and "
            "the score would be near 0. Take a task without it."
        )
    if config.get("unsafe_code"):
        return "its metric runs code that the model wrote, on this machine. Take `humaneval`."
    return ""


def installed(benchmark: str, packages: Iterable[str]) -> None:
    """Check that the extra `evaluate` is installed. Raises RecipeError, with the remedy."""
    if name := missing(packages):
        raise RecipeError(f"{benchmark} needs the package {name}: {install_command(EXTRA)}")


def missing(packages: Iterable[str]) -> str:
    """Return the first of these packages that is not installed; empty if all are."""
    return next((name for name in packages if importlib.util.find_spec(name) is None), "")


class FirstDraws(random.Random):
    """Replaces `random` in a checker: it always makes the same choice."""

    def choice(self, seq: SupportsLenAndGetItem[Drawn]) -> Drawn:
        """Return `e` for the letters, else the first element."""
        return seq[4 % len(seq)]

    def randint(self, a: int, b: int) -> int:
        """Return the smallest number."""
        return a


def same_languages() -> None:
    """Make langdetect find the same language for a text each time: it uses random samples."""
    from langdetect import DetectorFactory

    DetectorFactory.seed = 0


def ifeval_checkers() -> Mapping[str, Any]:
    """Return IFEval's checkers, by the name of their instruction."""
    from lm_eval.tasks.ifeval.instructions_registry import INSTRUCTION_DICT

    found: Mapping[str, Any] = INSTRUCTION_DICT
    return found


def same_letters() -> None:
    """Make IFEval's letter checker use the same letter each time.

    It draws a letter at random where the prompt names a sign (`#`, `!`), so the verdicts on prompts
    1122 and 1129 changed from run to run.
    """
    from lm_eval.tasks.ifeval import instructions

    instructions.random = FirstDraws(0)
