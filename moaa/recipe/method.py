"""The recipe's fields that decide *what* is computed.

They are in the fingerprints of the stages that use them. Defaults are the paper's, if it has one.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from moaa.recipe.document import Part, Problems
from moaa.recipe.forms import Text

Temperature = Annotated[float, Field(ge=0, le=2)]
TopP = Annotated[float, Field(gt=0, le=1)]
MaxTokens = Annotated[int, Field(ge=1)]
Answers = Annotated[int, Field(ge=1, le=64)]
GREEDY = 1e-5
"""Below this temperature vLLM takes the likeliest token each time."""
CutAnswers = Literal["reject", "keep"]


class Sampling(Part):
    """How a model is sampled. Defaults: the MoA reference code's."""

    temperature: Temperature = 0.7
    top_p: TopP = 1.0
    max_tokens: MaxTokens = 2048
    n: Answers = 1
    seed: int | None = None
    stop: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _several_answers_differ(self) -> Self:
        if self.n > 1 and self.temperature < GREEDY:
            raise ValueError(
                f"n is {self.n} at temperature {self.temperature:g}, where every answer is the "
                "same: vLLM refuses such requests. Set a temperature above 0, or n to 1"
            )
        return self


class Member(Part):
    """A proposer or an aggregator: a model, an optional persona, a sampling.

    `sampling.n` > 1 gives n proposals (Self-MoA).
    """

    model: str
    name: str = ""
    """The name in reports and errors, unique in a mixture. Default: the model's name."""
    system: str | None = None
    """The persona: a system message, before the conversation's own."""
    sampling: Sampling = Sampling()

    @property
    def label(self) -> str:
        """The member's name, else its model's."""
        return self.name or self.model


class Mixture(Part):
    """Proposers and an aggregator."""

    proposers: tuple[Member, ...] = Field(min_length=1)
    aggregator: Member
    layers: int = Field(2, ge=2, le=8)
    """The number of layers, including the aggregator's own: 2 is one layer of proposers, then the
    aggregator (paper)."""
    min_proposers: int | None = Field(None, ge=1)
    """A conversation with fewer proposals is rejected. Default: all but one, at least one."""
    instruction: Text | None = None
    """The Aggregate-and-Synthesize instruction: text or `file:PATH`. Default: the built-in one."""
    references: Literal["fenced", "plain"] = "fenced"
    """How a model sees the proposals. fenced: each between tags with a code that no proposal can
    contain. plain: only as `1. …`, `2. …` (paper); a proposal with a list in it may then look like
    several."""

    @model_serializer(mode="wrap")
    def _without_unused(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out a newer field unless it is set, so that fingerprints stay as they were."""
        found: dict[str, Any] = dump(self)
        if found.get("references") == "fenced":
            del found["references"]
        return found

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        labels = [member.label for member in self.proposers]
        double = sorted({label for label in labels if labels.count(label) > 1})
        if double:
            said = f"{double} have the same name; give each its own `name`, or one of them "
            raise Problems([(("proposers",), f"{said}`sampling.n`.")])
        if self.min_proposers is not None and self.min_proposers > self.proposals:
            raise ValueError(
                f"min_proposers is {self.min_proposers}, but a layer has {self.proposals} proposals"
            )
        return self

    @property
    def proposals(self) -> int:
        """The number of proposals of one layer if none fails."""
        return sum(member.sampling.n for member in self.proposers)

    @property
    def quorum(self) -> int:
        """How many proposals a layer needs."""
        return self.min_proposers if self.min_proposers is not None else max(1, self.proposals - 1)

    @property
    def models(self) -> frozenset[str]:
        """The models of the proposers and the aggregator."""
        return frozenset(m.model for m in (*self.proposers, self.aggregator))


class JudgeSampling(Sampling):
    """How a judge is sampled: `Sampling` with other defaults."""

    temperature: Temperature = 0.0
    max_tokens: MaxTokens = 512


class JudgeMember(Member):
    """A judge: a `Member` that is sampled at temperature 0."""

    sampling: JudgeSampling = JudgeSampling()


class Judge(Part):
    """The mixture that judges: proposers assess by criteria, the aggregator decides (paper)."""

    proposers: tuple[JudgeMember, ...] = Field(min_length=1)
    aggregator: JudgeMember
    verdict: Literal["soft", "parsed"] = "soft"
    """soft: from the log-probabilities of the verdict's letter, under a grammar. parsed: from a
    text that ends in [[A]] or [[B]]; criteria are parsed too, for servers without grammars."""
    criteria: Literal["per-pair", "per-order", "per-prompt", "all"] = "per-pair"
    """per-pair: chosen once for both orders. per-order: chosen for each order. per-prompt: chosen
    once for all pairs of a prompt, from its first two answers (cheaper ablation). all: all eight,
    none is chosen (ablation)."""
    mode: Literal["exhaustive", "adaptive"] = "exhaustive"
    """exhaustive: all pairs of a prompt's answers are compared in both orders. adaptive: only the
    comparisons that the best and the worst answer depend on, with fewer than half of the calls."""
    confidence: float = Field(0.915, gt=0.5, lt=1)
    """adaptive: stop when, with this probability, the comparisons that were not made would not
    change the best and the worst answer."""
    max_calls_share: float = Field(0.8, gt=0, le=1)
    """adaptive: the most calls for one prompt, as a share of the exhaustive judge's. When they are
    used up, the prompt keeps its likeliest best and worst answer."""
    min_proposers: int | None = Field(None, ge=1)
    criteria_instruction: Text | None = None
    """Text or `file:PATH` with `$query`, `$answer_a`, `$answer_b`, `$criteria` (all eight). The
    query and each answer have their own tags. Default: the built-in text."""
    assess_instruction: Text | None = None
    """The same placeholders; `$criteria` are those that were chosen."""
    verdict_instruction: Text | None = None
    """The same, and `$assessments`."""

    @model_serializer(mode="wrap")
    def _without_unused(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out fields of only the adaptive judge, so that fingerprints stay as they were."""
        found: dict[str, Any] = dump(self)
        if self.mode == "exhaustive":
            for name in ("mode", "confidence", "max_calls_share"):
                found.pop(name, None)
        return found

    @model_validator(mode="after")
    def _members_fit(self) -> Self:
        labels = [member.label for member in self.proposers]
        double = sorted({label for label in labels if labels.count(label) > 1})
        if double:
            said = f"{double} have the same name; give each its own `name`."
            raise Problems([(("proposers",), said)])
        if self.min_proposers is not None and self.min_proposers > len(self.proposers):
            raise ValueError(
                f"min_proposers is {self.min_proposers}, but there are {len(self.proposers)} "
                "proposers"
            )
        return self

    @property
    def quorum(self) -> int:
        """How many assessments an order needs."""
        return (
            self.min_proposers
            if self.min_proposers is not None
            else max(1, len(self.proposers) - 1)
        )

    @property
    def models(self) -> frozenset[str]:
        """The models of the proposers and the aggregator."""
        return frozenset(m.model for m in (*self.proposers, self.aggregator))


class Training(Part):
    """The fields of both SFT and DPO. The optimizer is AdamW, under DeepSpeed."""

    learning_rate: float = Field(gt=0)
    epochs: float = Field(gt=0, le=1000)
    global_batch: int = Field(128, ge=1)
    """Per optimizer step, over all ranks: rows (SFT),
    packed sequences (SFT with packing) or pairs (DPO)."""
    micro_batch: int = Field(1, ge=1)
    """Per rank and forward pass. Gradient accumulation makes up the rest of `global_batch`."""
    max_length: int = Field(4096, ge=16)
    scheduler: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    warmup: float = Field(0.1, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    zero_stage: Literal[0, 1, 2, 3] = 3
    gradient_checkpointing: bool = True
    seed: int = Field(42, ge=0, le=2**32 - 1)
    max_steps: int | None = Field(None, ge=1)
    validation: float = Field(0.0, ge=0, le=0.5)
    """Share of the rows that is held out: never trained on, and measured before the training, after
    each epoch and at its end. All rows with the same first question are held out together."""
    keep: Literal["last", "best"] = "last"
    """Which weights become the model. best: those with the lowest loss on the held-out rows, over
    all measurements."""

    @model_validator(mode="after")
    def _the_best_is_measured(self) -> Self:
        if self.keep == "best" and not self.validation:
            raise ValueError(
                "keep is 'best', but no rows are held out to measure it: set `validation`, to "
                "0.02 for example"
            )
        return self

    @model_serializer(mode="wrap")
    def _without_unused(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out newer fields unless they are set, so that fingerprints stay as they were."""
        found: dict[str, Any] = dump(self)
        for name, default in (("validation", 0.0), ("keep", "last")):
            if found.get(name) == default:
                found.pop(name, None)
        return found


class Sft(Training):
    """Supervised fine-tuning on the mixture's answers, with loss on assistant tokens only.

    Defaults: the paper's for Llama-3.1-8B.
    """

    learning_rate: float = Field(8e-6, gt=0)
    epochs: float = Field(6, gt=0, le=1000)
    packing: bool = True
    """Put several conversations into one sequence of `max_length` tokens; attention does not cross
    from one to another."""


class Dpo(Training):
    """DPO on the labelled pairs, with the SFT model as the reference. Defaults:
    the paper's for Llama-3.1-8B."""

    learning_rate: float = Field(8e-7, gt=0)
    epochs: float = Field(5, gt=0, le=1000)
    beta: float = Field(0.01, gt=0)


class SampleSampling(Sampling):
    """How the SFT model is sampled for preferences: `Sampling` with other defaults (paper: 5 at
    temperature 0.8)."""

    temperature: Temperature = 0.8
    top_p: TopP = 0.95
    n: Answers = 5


class Sample(Part):
    """Answers of the SFT model itself, n for each prompt."""

    sampling: SampleSampling = SampleSampling()
