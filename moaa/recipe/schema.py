"""The recipe as a whole. Its parts are in `method` (what is computed) and `serving` (where, how
fast, at what price)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, Self

from pydantic import Field, model_validator

from moaa.recipe import consistency, engine_args, labelling, rounds, secrets
from moaa.recipe.document import Part, Problems
from moaa.recipe.evaluation import PRODUCTION, Benchmarks, Evaluate, EvaluateSampling, Judged
from moaa.recipe.forms import ModelName, RunName
from moaa.recipe.gate import Gate
from moaa.recipe.labelling import Generate, Label, LabellerName
from moaa.recipe.method import (
    Dpo,
    Judge,
    JudgeMember,
    JudgeSampling,
    Member,
    Mixture,
    Sample,
    SampleSampling,
    Sampling,
    Sft,
    Training,
)
from moaa.recipe.promote import Promote
from moaa.recipe.prompts import Prompts, Source
from moaa.recipe.publish import Publish
from moaa.recipe.rounds import Rounds
from moaa.recipe.serving import (
    Calls,
    Cluster,
    Endpoint,
    Engines,
    Images,
    Launcher,
    Model,
    Plan,
    Pool,
    Price,
    Rate,
    Runtime,
    StoreAddress,
)

__all__ = [
    "Benchmarks",
    "Calls",
    "Cluster",
    "Dpo",
    "Endpoint",
    "Engines",
    "Evaluate",
    "EvaluateSampling",
    "Generate",
    "Images",
    "Judge",
    "JudgeMember",
    "JudgeSampling",
    "Label",
    "Launcher",
    "Member",
    "Mixture",
    "Model",
    "Part",
    "Plan",
    "Pool",
    "Price",
    "Problems",
    "Prompts",
    "Rate",
    "Recipe",
    "Runtime",
    "Sample",
    "SampleSampling",
    "Sampling",
    "Sft",
    "Source",
    "StoreAddress",
    "Training",
]


class Recipe(Part):
    """A whole alignment run: the models, the prompts, the mixture, the judge, the trainings."""

    name: RunName
    store: StoreAddress
    models: dict[ModelName, Model] = Field(min_length=1)
    target: str
    trainings: Literal["sft+dpo", "sft"] = "sft+dpo"
    """sft: nothing is sampled, labelled or trained on preferences."""
    prompts: Prompts
    generate: Generate
    sft: Sft = Sft()
    sample: Sample = Sample()
    label: Label
    dpo: Dpo = Dpo()
    evaluate: Evaluate = Evaluate()
    gate: Gate | None = None
    """The rules that a model must pass to be published. Without it nothing is decided."""
    publish: Publish | None = None
    """The model becomes a version in the registry on S3, if the gate promotes it."""
    promote: Promote | None = None
    """Puts the published version into production. Without it a person runs `moaa promote`."""
    rounds: Rounds = Rounds()
    runtime: Runtime = Runtime()
    pools: dict[str, Pool] = Field({})
    plan: Plan = Plan()

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        found = [*self._unknown_models(), *self._unknown_pools(), *self._uneven_batches()]
        found += [
            *self._wrong_tasks(),
            *self._speculating(),
            *secrets.problems(self),
            *secrets.stage_key_problems(self),
        ]
        found += labelling.unknown_names(self.generate, self.label, self.models)
        for labeller in dict.fromkeys((self.label.labeller, self.best_by)):
            found += labelling.problems(self.label, labeller, self.models) if labeller else []
        if (target := self.models.get(self.target)) and target.trust_remote_code:
            found.append(
                (
                    ("models", self.target, "trust_remote_code"),
                    f"{self.target} is the target: trainings run no code from a model's "
                    "repository. Choose a target whose code is in transformers.",
                )
            )
        found += consistency.problems(
            self.gate, self.publish, self.promote, self.evaluate, self.measured
        )
        found += rounds.problems(self)
        found += self.prompts.skipping_nothing(publishes=self.publish is not None)
        if self.prefers:
            found += labelling.without_pairs(self.prompts, self.sample)
        if found:
            raise Problems(found)
        return self

    def _members(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """Yield the models that must write answers, by the address that names them."""
        named: list[tuple[tuple[str | int, ...], str]] = [(("target",), self.target)]
        mixtures: list[tuple[tuple[str, ...], Mixture | Judge]] = [
            (("generate", "mixture"), self.generate.mixture),
            (("label", "judge"), self.label.judge),
        ]
        for where, mixture in mixtures:
            named += [
                ((*where, "proposers", i, "model"), member.model)
                for i, member in enumerate(mixture.proposers)
            ]
            named.append(((*where, "aggregator", "model"), mixture.aggregator.model))
        named += [(("evaluate", *where), name) for where, name in self.evaluate.named_models()]
        yield from named

    def _unknown_models(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        for path, name in self._members():
            if name not in self.models:
                yield path, f"'{name}' is not one of `models` ({', '.join(self.models)})."

    def _wrong_tasks(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        alone = self.generate.writers if self.generate.source == "teacher" else ()
        teachers = [member.model for member in alone]
        named = [*self._members(), *((("generate", "teacher"), name) for name in teachers)]
        for path, name in named:
            if name in self.models and (task := self.models[name].task) != "chat":
                yield (
                    path,
                    f"{name} must write answers, and models.{name}.task is {task}. Name another "
                    "model, or correct its task.",
                )

    def _speculating(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        used = {self.target} | self.generating | self.evaluation_models
        used |= self.label.models_of(self.label.labeller)
        for name in sorted(used & self.models.keys()):
            if engine_args.speculates(self.models[name].engine_args):
                yield (
                    ("models", name, "engine_args"),
                    f"{name} is asked by stages, and {engine_args.SPECULATION}. Leave "
                    "--speculative-config out. The serving chart's `speculativeTokens` is for a "
                    "model that only mixtures online ask.",
                )

    def _unknown_pools(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        named: list[tuple[tuple[str, ...], str | None]] = [
            (("models", name, "pool"), m.pool) for name, m in self.models.items()
        ]
        named.append((("runtime", "launcher", "pool"), self.runtime.launcher.pool))
        for path, name in named:
            if name and name not in self.pools:
                yield (
                    path,
                    f"the pool '{name}' is not one of `pools` "
                    f"({', '.join(self.pools) or 'there are none'}).",
                )

    @property
    def publishes_as(self) -> str | None:
        """Return the name under which the run's models are published; None if they are not."""
        return (self.publish.name or self.name) if self.publish else None

    @property
    def measures_production(self) -> bool:
        """Return whether the version in production is measured, if there is one. A model of the
        recipe with this name is measured instead."""
        named = PRODUCTION in self.evaluate.contestants
        return self.gate is not None and self.publish is not None and not named

    @property
    def prefers(self) -> bool:
        """Return whether a model is trained on preferences."""
        return self.trainings == "sft+dpo"

    @property
    def measured(self) -> tuple[str, ...]:
        """Return the contestants, with the version in production if it is measured, and without
        models that the run does not train."""
        own = (PRODUCTION,) if self.measures_production else ()
        named = (name for name in self.evaluate.contestants if name != "dpo" or self.prefers)
        return (*named, *own)

    @property
    def best_by(self) -> LabellerName | None:
        """Return the labeller that chooses the best answers of the SFT data, if there is one."""
        if self.generate.source != "best":
            return None
        return self.generate.labeller or self.label.labeller

    @property
    def generating(self) -> frozenset[str]:
        """Return the models that write the SFT data, and those that choose the best answers."""
        named = {member.model for member in self.generate.writers}
        if self.generate.mixes:
            named |= self.generate.mixture.models
        return frozenset(named | (self.label.models_of(self.best_by) if self.best_by else set()))

    def _uneven_batches(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        world = self.runtime.launcher.ranks * self.runtime.launcher.nodes
        for stage, training in (("sft", self.sft), ("dpo", self.dpo)):
            at_once = training.micro_batch * world
            if training.global_batch % at_once:
                text = f"it must be a multiple of micro_batch x ranks x nodes = {at_once}."
                yield (
                    (stage, "global_batch"),
                    f"{stage}.global_batch is {training.global_batch}; {text}",
                )

    def judge_of(self, settings: Part) -> Judge:
        """Return the judge of a benchmark with these settings. It compares single pairs, so it
        cannot be adaptive."""
        judge = self.label.judge
        for part in (self.evaluate, settings):
            if isinstance(part, Judged | Evaluate):
                named = self.alone(part.judge_model) if part.judge_model else part.judge
                judge = named or judge
        return judge.model_copy(update={"mode": "exhaustive"})

    @property
    def evaluation_judge(self) -> Judge:
        """The judge of benchmarks that have no judge of their own."""
        return self.judge_of(self.evaluate)

    def alone(self, model: str) -> Judge:
        """Return the judge that is a single model: it assesses by all criteria and decides, with
        the instructions of `label.judge`. At an endpoint its verdict is parsed from its text,
        because not every server has grammars."""
        judge = self.label.judge
        member = JudgeMember(model=model, sampling=judge.aggregator.sampling)
        known = self.models.get(model)  # an unknown name is a mistake that is reported
        verdict = "parsed" if known and known.endpoint else judge.verdict
        changed = {"proposers": (member,), "aggregator": member, "min_proposers": None}
        return judge.model_copy(update={**changed, "criteria": "all", "verdict": verdict})

    @property
    def evaluation_judges(self) -> list[Judge]:
        """The judges of the benchmarks that have one."""
        chosen = self.evaluate.chosen.values()
        return [self.judge_of(settings) for settings in chosen if isinstance(settings, Judged)]

    @property
    def evaluation_models(self) -> frozenset[str]:
        """The models that the evaluation asks: judges, contestants, members of the mixture. The
        target is included only if it is one of these."""
        found = set(self.evaluate.others)
        for judge in self.evaluation_judges:
            found |= judge.models
        if "mixture" in self.evaluate.contestants:
            found |= self.generate.mixture.models
        return frozenset(found)

    def identities(self, names: frozenset[str] | set[str]) -> dict[str, dict[str, object]]:
        """Return the identities of these models, for a stage's fingerprint."""
        return {name: self.models[name].identity() for name in sorted(names)}
