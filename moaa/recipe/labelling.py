"""The recipe's fields that decide whose answers are trained on: `generate` and `label`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from pydantic import Field

from moaa.recipe.document import Part
from moaa.recipe.method import CutAnswers, Judge, JudgeMember, Member, Mixture, Sample
from moaa.recipe.prompts import Prompts
from moaa.recipe.serving import Model

LabellerName = Literal["mixture", "judge", "reward", "armorm", "endpoint", "random"]
TASKS: dict[LabellerName, Literal["chat", "reward", "embed"]] = {
    "judge": "chat",
    "endpoint": "chat",
    "reward": "reward",
    "armorm": "embed",
}
"""The labellers that ask one model, and the task that it must have (`models.*.task`)."""


class Generate(Part):
    """SFT data: every prompt answered by a mixture of agents (paper, stage 1)."""

    source: Literal["mixture", "teacher", "random", "all", "best", "original"] = "mixture"
    """mixture: the aggregator's answer (paper). teacher: one model's answer. random: one
    proposer's, drawn for each conversation. all: each proposer's, so the data are several times as
    large. best: the best of the proposals and the aggregator's answer, by `labeller`. original: the
    data set's own answers."""
    mixture: Mixture
    teacher: str | None = None
    """For source teacher: the name of a proposer, or a model, which is then asked like the
    aggregator (its persona, its sampling). Default: the aggregator's model."""
    labeller: LabellerName | None = None
    """For source best. Its model and judge are those of `label`. Default: `label.labeller`."""
    cut_answers: CutAnswers = "reject"
    """reject: a conversation with an answer that was cut at `max_tokens` is left out of the SFT
    data. keep: it stays, and the end of a cut answer is not learned."""

    @property
    def writers(self) -> tuple[Member, ...]:
        """Return the members that may write an answer alone: the teacher, or the proposers."""
        mixture = self.mixture
        if self.source == "teacher":
            named = next((m for m in mixture.proposers if m.label == self.teacher), None)
            changed = {"model": self.teacher or mixture.aggregator.model, "name": ""}
            return (named or mixture.aggregator.model_copy(update=changed),)
        return mixture.proposers if self.source in ("random", "all") else ()

    @property
    def mixes(self) -> bool:
        """Return whether the whole mixture is asked."""
        return self.source in ("mixture", "best")


class Label(Part):
    """Preference pairs: a labeller ranks all answers to a prompt; the best is chosen, the worst
    rejected (paper, stage 2)."""

    labeller: LabellerName = "mixture"
    """mixture: `judge` compares all pairs (paper). judge: one model does. reward: a reward model
    scores each answer. armorm: ArmoRM scores each answer. endpoint: one model of an
    OpenAI-compatible server compares. random: a random order, fixed for each prompt."""
    model: str | None = None
    """The model of the labellers judge, reward, armorm and endpoint; the others do not use it.
    Default for judge: the aggregator's model of `judge`."""
    judge: Judge
    """The mixture of judges. The labellers judge and endpoint use its instructions and its
    aggregator's sampling too. It also judges the evaluation unless that has its own judge."""
    min_margin: float = Field(0.0, ge=0)
    """Drop prompts whose best and worst answers are closer than this, in soft wins from 0 to n-1. 0
    keeps all, as in the paper."""
    cut_answers: CutAnswers = "reject"
    """reject: an answer that was cut at `max_tokens` may be the rejected one of a pair, but not the
    chosen one. keep: it may be either. Its end is never learned."""

    def model_of(self, labeller: LabellerName) -> str | None:
        """Return the model that this labeller asks, if it asks a single model."""
        if labeller not in TASKS:
            return None
        return self.model or (self.judge.aggregator.model if labeller == "judge" else None)

    def judge_of(self, labeller: LabellerName) -> Judge | None:
        """Return the judge that compares pairs for this labeller; None if it gives scores.

        A single model assesses by all criteria and decides. A server that is not our engine may not
        support grammars, so its verdict is parsed.
        """
        if labeller == "mixture":
            return self.judge
        if TASKS.get(labeller) != "chat" or not (model := self.model_of(labeller)):
            return None
        alone = JudgeMember(model=model, sampling=self.judge.aggregator.sampling)
        verdict = "parsed" if labeller == "endpoint" else self.judge.verdict
        changed = {"proposers": (alone,), "aggregator": alone, "min_proposers": None}
        return self.judge.model_copy(update={**changed, "criteria": "all", "verdict": verdict})

    def models_of(self, labeller: LabellerName) -> frozenset[str]:
        """Return all models that this labeller asks."""
        if judge := self.judge_of(labeller):
            return judge.models
        model = self.model_of(labeller)
        return frozenset({model} if model else ())


Problem = tuple[tuple[str | int, ...], str]
"""The address of a field, and what is wrong with it."""


def unknown_names(
    generate: Generate, label: Label, models: Mapping[str, Model]
) -> Iterator[Problem]:
    """Yield the teacher and the labeller's model if there is no such model, used or not."""
    proposers = [member.label for member in generate.mixture.proposers]
    if (name := generate.teacher) and name not in (*models, *proposers):
        yield (
            ("generate", "teacher"),
            f"'{name}' is not one of `models` ({', '.join(models)}), nor a proposer "
            f"({', '.join(proposers)}).",
        )
    if (name := label.model) and name not in models:
        yield ("label", "model"), f"'{name}' is not one of `models` ({', '.join(models)})."


def problems(
    label: Label, labeller: LabellerName, models: Mapping[str, Model]
) -> Iterator[Problem]:
    """Yield the problems of the model of a labeller that asks a single model."""
    if labeller not in TASKS:
        return
    where, task, name = ("label", "model"), TASKS[labeller], label.model_of(labeller)
    if name is None:
        able = [each for each, model in models.items() if model.task == task]
        yield (
            where,
            f"the labeller '{labeller}' asks one model. Name it: label.model, one of "
            f"{', '.join(able) or f'`models` with task: {task} (there is none yet)'}.",
        )
    elif (model := models.get(name)) is None:
        return  # reported already
    elif model.task != task:
        yield (
            where,
            f"the labeller '{labeller}' needs a model with task: {task}, and models.{name}.task "
            f"is {model.task}. Name another model, or correct its task.",
        )
    elif labeller == "endpoint" and not model.endpoint:
        yield (
            where,
            f"the labeller 'endpoint' needs a model with an `endpoint`, and {name} has none. Give "
            f"models.{name}.endpoint.url, or use the labeller 'judge'.",
        )


def without_pairs(prompts: Prompts, sample: Sample) -> Iterator[Problem]:
    """Yield why there would be no preferences to train on."""
    if not prompts.preference:
        yield (
            ("prompts", "preference"),
            "DPO needs prompts: name a source, or set `trainings: sft`.",
        )
    if sample.sampling.n < 2:
        yield (
            ("sample", "sampling", "n"),
            "sample.sampling.n must be at least 2: a preference needs two answers.",
        )
