"""The recipe's fields about evaluation: who is measured, by which benchmarks, and who judges."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from moaa.recipe.document import Part
from moaa.recipe.forms import Once
from moaa.recipe.method import Judge, Sampling, Temperature
from moaa.recipe.reasoning import Gsm8k, HumanEval, Ifbench, Ifeval, MmluPro, Questions

OF_RUN: Final = ("base", "sft", "dpo", "mixture")
"""Contestants that every run has; any other name is one of `models`."""
BASE: Final = "base"
"""The contestant that is the target before the training."""
PRODUCTION: Final = "production"
"""The contestant that only a run that publishes has: the version in production."""
HEAD_TO_HEAD: Final = "head_to_head"
"""The benchmark of the win rates: every run's own, on its held-out prompts."""

Path = tuple[str | int, ...]


def _refuse_two_judges(judge: Judge | None, model: str | None) -> None:
    if judge and model:
        raise ValueError("give `judge` or `judge_model`, not both")


class EvaluateSampling(Sampling):
    """How the compared models are sampled: `Sampling` with another default."""

    temperature: Temperature = 0.0


class Judged(Part):
    """A benchmark whose answers are judged. Without `judge` and `judge_model` the judge is
    `evaluate.judge`, else `label.judge`."""

    judge: Judge | None = None
    """A mixture of judges for this benchmark."""
    judge_model: str | None = None
    """One of `models`, which judges alone; with an `endpoint` any server of the OpenAI protocol."""

    @model_validator(mode="after")
    def _one_judge(self) -> Self:
        _refuse_two_judges(self.judge, self.judge_model)
        return self


class Published(Questions, Judged):
    """A benchmark with published questions whose answers are judged."""


class JudgesMeasured(Published):
    """A benchmark of judges: pairs of answers whose better one is known."""

    judges: Annotated[tuple[Literal["mixture", "members", "all-criteria"], ...], Once] = Field(
        ("mixture", "members", "all-criteria"), min_length=1
    )
    """Which judges are measured. mixture: the judge itself. members: each of its models alone.
    all-criteria: the mixture without the choice of criteria."""
    injected: float = Field(0.1, ge=0, le=1)
    """The share of pairs that are judged a second time, with a text in the worse answer that asks
    the judge to choose it."""


class JudgeBench(JudgesMeasured):
    """JudgeBench: 620 pairs of answers, one right and one wrong."""


class MtBench(Published):
    """MT-Bench: 80 questions of two turns, rated from 1 to 10."""

    max_tokens: int = Field(1024, ge=1)
    """The token limit of each answer."""


class RewardBench(JudgesMeasured):
    """RewardBench: pairs in four sections (v1), or the best of four answers and ties (v2)."""

    version: Literal["v1", "v2"] = "v1"
    ties_pairs: int = Field(12, ge=1)
    """v2: for a prompt with ties, judge at most this many pairs of a right and a wrong answer, or
    more if they are needed to connect all of its answers."""


class Ppe(JudgesMeasured):
    """PPE: about 16,000 pairs with the votes of people,
    and pairs with one right answer. Set `limit`."""

    sets: Annotated[
        tuple[Literal["human", "mmlu-pro", "math", "gpqa", "ifeval", "mbpp-plus"], ...], Once
    ] = Field(("human",), min_length=1)
    """human: the votes. The others: pairs of a right and a wrong answer to these benchmarks."""


class AlpacaEval(Published):
    """AlpacaEval 2: 805 instructions, against the published answers of gpt-4-1106-preview."""


class ArenaHard(Published):
    """Arena-Hard: 500 hard prompts, against a baseline's published answers. A judge of one model
    with `verdict: parsed` gets the published prompt with its five verdicts."""

    version: Literal["v0.1", "v2.0"] = "v0.1"
    """v0.1: against gpt-4-0314. v2.0: its hard prompts, against o3-mini."""


class HeadToHead(Judged):
    """Every pair of contestants on the held-out prompts (`prompts.evaluation`), in both orders."""


class Benchmarks(Part):
    """The benchmarks of the run. `NAME: {}` adds one with its defaults; `head_to_head: null`
    removes the one that is on by default."""

    head_to_head: HeadToHead | None = HeadToHead()
    mt_bench: MtBench | None = None
    alpaca_eval: AlpacaEval | None = None
    arena_hard: ArenaHard | None = None
    judge_bench: JudgeBench | None = None
    reward_bench: RewardBench | None = None
    ppe: Ppe | None = None
    gsm8k: Gsm8k | None = None
    ifeval: Ifeval | None = None
    ifbench: Ifbench | None = None
    mmlu_pro: MmluPro | None = None
    humaneval: HumanEval | None = None


class Evaluate(Part):
    """How the models of the run are measured: contestants, benchmarks, judge."""

    judge: Judge | None = None
    """The mixture that judges. Default: `label.judge`."""
    judge_model: str | None = None
    """One of `models`, which judges alone, instead of `judge`."""
    sampling: EvaluateSampling = EvaluateSampling()
    """How contestants answer held-out prompts, and questions of benchmarks
    that have no own sampling."""
    contestants: Annotated[tuple[str, ...], Once] = Field(("base", "sft", "dpo"), min_length=1)
    """Who is measured: `base` (the target before the run), `sft`, `dpo`, `mixture` (the answers of
    `generate.mixture` itself), and names of `models`."""
    benchmarks: Benchmarks = Benchmarks()

    @model_serializer(mode="wrap")
    def _without_unused(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out newer fields with their default values,
        so that fingerprints stay as they were."""
        found: dict[str, Any] = dump(self)
        for name in ("contestants", "benchmarks", "judge_model"):
            if getattr(self, name) == type(self).model_fields[name].default:
                found.pop(name, None)
        return found

    @model_validator(mode="after")
    def _one_judge(self) -> Self:
        _refuse_two_judges(self.judge, self.judge_model)
        return self

    @property
    def chosen(self) -> dict[str, Part]:
        """The settings of the chosen benchmarks, by name."""
        settings = {name: getattr(self.benchmarks, name) for name in Benchmarks.model_fields}
        return {name: each for name, each in settings.items() if each is not None}

    @property
    def others(self) -> tuple[str, ...]:
        """The contestants that are models of the recipe."""
        return tuple(name for name in self.contestants if name not in OF_RUN)

    def named_models(self) -> Iterator[tuple[Path, str]]:
        """Yield each model that the evaluation uses, with its address below `evaluate`."""
        for i, name in enumerate(self.contestants):
            if name not in OF_RUN:
                yield ("contestants", i), name
        if self.judge:
            yield from _members(("judge",), self.judge)
        if self.judge_model:
            yield ("judge_model",), self.judge_model
        for benchmark, settings in self.chosen.items():
            if isinstance(settings, Judged):
                where = ("benchmarks", benchmark)
                if settings.judge:
                    yield from _members((*where, "judge"), settings.judge)
                if settings.judge_model:
                    yield (*where, "judge_model"), settings.judge_model


def _members(where: Path, judge: Judge) -> Iterator[tuple[Path, str]]:
    for i, member in enumerate(judge.proposers):
        yield (*where, "proposers", i, "model"), member.model
    yield (*where, "aggregator", "model"), judge.aggregator.model
