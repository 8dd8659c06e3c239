"""The recipe's fields, their defaults (the paper's where it states them) and what may stand in them.

Two kinds of fields: what decides *what* is computed (it enters a stage's fingerprint), and `runtime`, `pools`, `plan`
and the serving fields of a model, which decide where, how fast and at what price (it does not: a run moves from a
laptop to a cluster, and its finished stages are found again).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Problems(ValueError):
    """What is wrong between fields: (address below the part, sentence) for each, so that all are shown, each at its line."""

    def __init__(self, found: list[tuple[tuple[str | int, ...], str]]) -> None:
        super().__init__("; ".join(text for _, text in found))
        self.found = found


class Part(BaseModel):
    """Base of all recipe fields: immutable, and unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)


class Sampling(Part):
    """How a model is sampled. Defaults: the MoA reference code's."""

    temperature: float = Field(0.7, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int = Field(2048, ge=1)
    n: int = Field(1, ge=1, le=64)
    seed: int | None = None
    stop: tuple[str, ...] = ()


class Member(Part):
    """A proposer or an aggregator: a model, an optional persona, a sampling. `sampling.n` > 1 gives n proposals (Self-MoA)."""

    model: str
    name: str = ""
    """Shown in reports and prompts of errors; the model's name unless given. Unique within a mixture."""
    system: str | None = None
    """The persona: put before the conversation's own system message."""
    sampling: Sampling = Sampling()

    @property
    def label(self) -> str:
        return self.name or self.model


class Mixture(Part):
    """Proposers and an aggregator. `layers` counts the aggregator's: 2 = one layer of proposers, then the aggregator (paper)."""

    proposers: tuple[Member, ...] = Field(min_length=1)
    aggregator: Member
    layers: int = Field(2, ge=2, le=8)
    min_proposers: int | None = Field(None, ge=1)
    """Fewer proposals than this reject the conversation. Default: all but one (at least one)."""
    instruction: str | None = None
    """The Aggregate-and-Synthesize instruction; the built-in text unless given. In a recipe: text, or `file:PATH`."""

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        labels = [member.label for member in self.proposers]
        double = sorted({label for label in labels if labels.count(label) > 1})
        if double:
            raise ValueError(f"proposers {double} have the same name; give each its own `name`, or one of them `sampling.n`")
        if self.min_proposers is not None and self.min_proposers > self.proposals:
            raise ValueError(f"min_proposers is {self.min_proposers}, but a layer has {self.proposals} proposals")
        return self

    @property
    def proposals(self) -> int:
        """Proposals of one layer when none fails."""
        return sum(member.sampling.n for member in self.proposers)

    @property
    def quorum(self) -> int:
        return self.min_proposers if self.min_proposers is not None else max(1, self.proposals - 1)

    @property
    def models(self) -> frozenset[str]:
        return frozenset(m.model for m in (*self.proposers, self.aggregator))


_JUDGE = Sampling(temperature=0, max_tokens=512)


class JudgeMember(Member):
    """A judge: a `Member` that is sampled at temperature 0."""

    sampling: Sampling = _JUDGE


class Judge(Part):
    """The mixture that judges: proposers assess on three criteria, the aggregator decides (paper, MoA as judge)."""

    proposers: tuple[JudgeMember, ...] = Field(min_length=1)
    aggregator: JudgeMember
    verdict: Literal["soft", "parsed"] = "soft"
    """soft: the verdict token's log-probabilities under a grammar; parsed: text that must end in [[A]] or [[B]]."""
    criteria: Literal["per-pair", "per-order", "all"] = "per-pair"
    """per-pair: picked once, used for both orders; per-order: picked for each; all: no filtering, all eight (ablation)."""
    min_proposers: int | None = Field(None, ge=1)
    criteria_instruction: str | None = None
    assess_instruction: str | None = None
    verdict_instruction: str | None = None

    @model_validator(mode="after")
    def _members_fit(self) -> Self:
        labels = [member.label for member in self.proposers]
        double = sorted({label for label in labels if labels.count(label) > 1})
        if double:
            raise ValueError(f"proposers {double} have the same name; give each its own `name`")
        if self.min_proposers is not None and self.min_proposers > len(self.proposers):
            raise ValueError(f"min_proposers is {self.min_proposers}, but there are {len(self.proposers)} proposers")
        return self

    @property
    def quorum(self) -> int:
        return self.min_proposers if self.min_proposers is not None else max(1, len(self.proposers) - 1)

    @property
    def models(self) -> frozenset[str]:
        return frozenset(m.model for m in (*self.proposers, self.aggregator))


class Endpoint(Part):
    """An OpenAI-compatible server that is already up."""

    url: str
    """Base address, ending before `/chat/completions` (usually `…/v1`)."""
    model: str | None = None
    """The name the server knows the model by; the recipe's name unless given."""
    key_env: str | None = None
    """Name of the environment variable that holds the API key. The key itself never stands in a recipe."""


class Price(Part):
    """Dollars per million tokens."""

    prompt: float = Field(ge=0)
    completion: float = Field(ge=0)


class Rate(Part):
    """Tokens per second of one replica under batch load, for `moaa recipe plan`."""

    prompt: float = Field(gt=0)
    completion: float = Field(gt=0)


class Model(Part):
    """A model of the ensemble or the target. `source`: hub id, s3:// prefix, local folder, or package:PATH.gguf."""

    source: str
    revision: str | None = None
    dtype: str = "bfloat16"
    max_model_len: int | None = Field(None, ge=16)
    quantization: str | None = None
    # below: how it is served, not what it answers
    tensor_parallel: int = Field(1, ge=1)
    replicas: int = Field(1, ge=1)
    pool: str | None = None
    engine_args: tuple[str, ...] = ()
    endpoint: Endpoint | None = None
    price: Price | None = None
    rate: Rate | None = None

    def identity(self) -> dict[str, object]:
        """What decides the model's answers: this, and not how it is served, enters fingerprints."""
        return self.model_dump(mode="json", include={"source", "revision", "dtype", "max_model_len", "quantization"})


class Source(Part):
    """Where prompts come from: `hub:NAME`, an s3:// address, a local JSONL/JSON/Parquet file, or `package:PATH`."""

    source: str
    name: str = ""
    split: str = "train"
    field: str | None = None
    """Column with the prompt (text), the turns (list of texts) or the messages (list of role and content); found if not given."""
    offset: int = Field(0, ge=0)
    limit: int | None = Field(None, ge=1)
    shuffle_seed: int | None = None
    """Shuffle with this seed before offset and limit."""
    turns: int | None = Field(None, ge=1)
    """Keep only the first so many user turns of a conversation."""


class Prompts(Part):
    """Three sets of prompts. What is near to an evaluation prompt is removed from the other two, which may share prompts."""

    sft: tuple[Source, ...] = Field(min_length=1)
    preference: tuple[Source, ...] = Field(min_length=1)
    evaluation: tuple[Source, ...] = Field(min_length=1)
    near_duplicate: float = Field(0.9, gt=0, le=1)
    """Jaccard similarity of word 5-grams from which two prompts count as the same; 1 removes exact duplicates only."""
    decontaminate_ngram: int = Field(13, ge=3)
    """A prompt that shares a run of so many words with an evaluation prompt is removed."""
    max_characters: int = Field(60_000, ge=1)
    """Longer prompts (all turns together) are rejected."""


class Generate(Part):
    """SFT data: every prompt answered by a mixture of agents (paper, stage 1)."""

    mixture: Mixture


class Training(Part):
    """What SFT and DPO have in common. Optimizer: AdamW under DeepSpeed."""

    learning_rate: float = Field(gt=0)
    epochs: float = Field(gt=0)
    global_batch: int = Field(128, ge=1)
    """Rows (SFT without packing), packed sequences (SFT with packing) or pairs (DPO) per optimizer step, over all ranks."""
    micro_batch: int = Field(1, ge=1)
    """Per rank and forward pass; gradient accumulation follows from it, the ranks and `global_batch`."""
    max_length: int = Field(4096, ge=16)
    scheduler: Literal["cosine", "linear", "constant_with_warmup"] = "cosine"
    warmup: float = Field(0.1, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    zero_stage: Literal[0, 1, 2, 3] = 3
    gradient_checkpointing: bool = True
    seed: int = 42
    max_steps: int | None = Field(None, ge=1)


class Sft(Training):
    """Supervised fine-tuning on the mixture's answers; loss on assistant tokens only. Defaults: the paper's for Llama-3.1-8B."""

    learning_rate: float = Field(8e-6, gt=0)
    epochs: float = Field(6, gt=0)
    packing: bool = True
    """Several conversations in one sequence of `max_length` tokens; they do not see each other."""


class Dpo(Training):
    """DPO on the labelled pairs, with the SFT model as the reference. Defaults: the paper's for Llama-3.1-8B."""

    learning_rate: float = Field(8e-7, gt=0)
    epochs: float = Field(5, gt=0)
    beta: float = Field(0.01, gt=0)


class Sample(Part):
    """Answers of the SFT model itself, n a prompt (paper: 5 at temperature 0.8)."""

    sampling: Sampling = Sampling(temperature=0.8, top_p=0.95, max_tokens=2048, n=5)


class Label(Part):
    """Preference pairs: all answers of a prompt compared by a mixture of judges, the best against the worst (paper, stage 2)."""

    judge: Judge
    min_margin: float = Field(0.0, ge=0)
    """Prompts whose best and worst answer are closer than this are dropped (0 keeps all, as the paper).
    Scale: soft wins, from 0 to n-1."""


class Evaluate(Part):
    """Pairwise win rates against the base model on held-out prompts, both orders."""

    judge: Judge | None = None
    """`label.judge` unless given."""
    sampling: Sampling = Sampling(temperature=0.0, max_tokens=2048)


class Store(Part):
    """Where the run's S3 is; what is not given comes from the environment (AWS_ENDPOINT_URL_S3 and so on)."""

    root: str = Field(pattern=r"^s3://[^/]+/?.*$")
    endpoint_url: str | None = None
    region: str | None = None
    access_key_env: str = "AWS_ACCESS_KEY_ID"
    secret_key_env: str = "AWS_SECRET_ACCESS_KEY"


class Engines(Part):
    """How models are served while a stage works."""

    kind: Literal["process", "endpoint", "kubernetes"] = "process"
    """process: vLLM as a child process; endpoint: servers that are up. A model with its own `endpoint` is always one."""
    schedule: Literal["auto", "together", "by-turns"] = "auto"
    """together: all models up at once; by-turns: as many as fit, swapped; auto: together if they fit."""
    start_timeout_s: float = Field(900, gt=0)
    max_restarts: int = Field(3, ge=0)
    kv_cache_gib: float = Field(2.0, gt=0)
    """KV cache of one engine on a CPU."""
    max_num_seqs: int = Field(64, ge=1)


class Calls(Part):
    """Limits of the chat client."""

    in_flight: int = Field(64, ge=1)
    """Requests in flight per endpoint."""
    window: int = Field(256, ge=1)
    """Conversations worked on at the same time."""
    timeout_s: float = Field(600, gt=0)
    retries: int = Field(6, ge=0)


class Launcher(Part):
    """How training is started."""

    kind: Literal["process", "trainer", "job"] = "process"
    ranks: int = Field(8, ge=1)
    """Ranks per node: GPUs, or CPU processes."""
    nodes: int = Field(1, ge=1)
    device: Literal["auto", "cuda", "cpu"] = "auto"
    pool: str | None = None
    checkpoint_minutes: float = Field(30, gt=0)
    """A checkpoint goes to the store so often; an interrupted training resumes from the newest."""


class Runtime(Part):
    """Where and how fast, never what: nothing here enters a fingerprint."""

    engines: Engines = Engines()
    calls: Calls = Calls()
    launcher: Launcher = Launcher()
    max_rejected_share: float = Field(0.02, ge=0, le=1)
    """A stage that rejects a larger share of its rows fails, with the table of reasons."""
    secret_envs: tuple[str, ...] = ()
    """Names of environment variables that the stages need besides the store's and the endpoints' (HF_TOKEN)."""


class Pool(Part):
    """A GPU node pool."""

    node_selector: dict[str, str] = {}
    toleration: str | None = None
    accelerator: str = "nvidia.com/gpu"
    gpus: int = Field(8, ge=0)
    shm_gib: float = Field(16, gt=0)
    gpu_hour_usd: float | None = Field(None, ge=0)


class Plan(Part):
    """Assumptions of `moaa recipe plan`, stated so that they can be argued with."""

    gpu_hour_usd: float = Field(2.0, ge=0)
    turns_per_prompt: float = Field(1.0, gt=0)
    turns: dict[str, Annotated[float, Field(gt=0)]] = {}
    """User turns of a conversation by the source's `name`, where they differ from `turns_per_prompt`."""
    prompt_tokens: int = Field(200, ge=1)
    """Tokens of one user turn with its system message."""
    answer_tokens: int = Field(500, ge=1)
    """Tokens of one answer, unless `max_tokens` is smaller."""
    assessment_tokens: int = Field(350, ge=1)
    prompts: dict[Literal["sft", "preference", "evaluation"], int] = {}
    """Prompts in sources whose size the recipe does not say (no `limit`)."""
    train_tokens_per_gpu_s: float = Field(3000, gt=0)


class Recipe(Part):
    """A whole alignment run: who proposes, who aggregates, who judges, what is trained and with which numbers."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$")]
    store: Store
    models: dict[str, Model] = Field(min_length=1)
    target: str
    prompts: Prompts
    generate: Generate
    sft: Sft = Sft()
    sample: Sample = Sample()
    label: Label
    dpo: Dpo = Dpo()
    evaluate: Evaluate = Evaluate()
    runtime: Runtime = Runtime()
    pools: dict[str, Pool] = {}
    plan: Plan = Plan()

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        found = [*self._unknown_models(), *self._unknown_pools(), *self._uneven_batches()]
        if self.sample.sampling.n < 2:
            found.append((("sample", "sampling", "n"), "sample.sampling.n must be at least 2: a preference needs two answers."))
        if found:
            raise Problems(found)
        return self

    def _unknown_models(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        named: list[tuple[tuple[str | int, ...], str]] = [(("target",), self.target)]
        mixtures: list[tuple[tuple[str, ...], Mixture | Judge]] = [
            (("generate", "mixture"), self.generate.mixture),
            (("label", "judge"), self.label.judge),
        ]
        if self.evaluate.judge:
            mixtures.append((("evaluate", "judge"), self.evaluate.judge))
        for where, mixture in mixtures:
            named += [((*where, "proposers", i, "model"), member.model) for i, member in enumerate(mixture.proposers)]
            named.append(((*where, "aggregator", "model"), mixture.aggregator.model))
        for path, name in named:
            if name not in self.models:
                yield path, f"'{name}' is not one of `models` ({', '.join(self.models)})."

    def _unknown_pools(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        named: list[tuple[tuple[str, ...], str | None]] = [(("models", name, "pool"), m.pool) for name, m in self.models.items()]
        named.append((("runtime", "launcher", "pool"), self.runtime.launcher.pool))
        for path, name in named:
            if name and name not in self.pools:
                yield path, f"the pool '{name}' is not one of `pools` ({', '.join(self.pools) or 'there are none'})."

    def _uneven_batches(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        world = self.runtime.launcher.ranks * self.runtime.launcher.nodes
        for stage, training in (("sft", self.sft), ("dpo", self.dpo)):
            at_once = training.micro_batch * world
            if training.global_batch % at_once:
                text = f"it must be a multiple of micro_batch x ranks x nodes = {at_once}."
                yield (stage, "global_batch"), f"{stage}.global_batch is {training.global_batch}; {text}"

    @property
    def evaluation_judge(self) -> Judge:
        return self.evaluate.judge or self.label.judge

    def identities(self, names: frozenset[str] | set[str]) -> dict[str, dict[str, object]]:
        """The identities of these models, for a stage's fingerprint."""
        return {name: self.models[name].identity() for name in sorted(names)}
