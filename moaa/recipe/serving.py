"""The recipe's fields that decide where, how fast and at what price: a run moves from a laptop to a
cluster, and its finished stages are found again. (Of a model, `identity` says what does decide its
answers.)
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from moaa.recipe.document import Part

_DNS_LABEL = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
_DNS_NAME = r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$"

ANSWER_ARGS = frozenset(
    {
        "--config",
        "--model",
        "--revision",
        "--dtype",
        "--quantization",
        "-q",
        "--max-model-len",
        "--load-format",
        "--lora-modules",
        "--tokenizer",
        "--tokenizer-mode",
        "--tokenizer-revision",
        "--chat-template",
        "--chat-template-content-format",
        "--default-chat-template-kwargs",
        "--reasoning-parser",
        "--hf-config-path",
        "--hf-overrides",
        "--rope-scaling",
        "--rope-theta",
        "--kv-cache-dtype",
        "--generation-config",
        "--override-generation-config",
        "--logits-processors",
        "--logprobs-mode",
    }
)
"""vLLM's arguments that change what a model answers; all others change how fast, or how much at a
time."""
_ARG = re.compile(r"--?[A-Za-z]")


class Endpoint(Part):
    """An OpenAI-compatible server that is already up."""

    url: str
    """Base address, ending before `/chat/completions` (usually `…/v1`)."""
    model: str | None = None
    """The name the server knows the model by; the recipe's name unless given."""
    key_env: str | None = None
    """Name of the environment variable that holds the API key. The key itself never stands in a
    recipe."""


class Price(Part):
    """Dollars per million tokens."""

    prompt: float = Field(ge=0)
    completion: float = Field(ge=0)


class Rate(Part):
    """Tokens per second of one replica under batch load, for `moaa recipe plan`."""

    prompt: float = Field(gt=0)
    completion: float = Field(gt=0)


class Model(Part):
    """A model of the ensemble or the target. `source`: hub id, s3:// prefix, local folder, or
    package:PATH.gguf."""

    source: str
    revision: str | None = None
    dtype: str = "bfloat16"
    max_model_len: int | None = Field(None, ge=16)
    quantization: str | None = None
    system_role: bool = True
    """false where the chat template refuses system messages (Gemma 2): the text then goes before
    the first user message."""
    # below: how it is served, not what it answers
    tensor_parallel: int = Field(1, ge=1)
    replicas: int = Field(1, ge=1)
    pool: str | None = None
    engine_args: tuple[str, ...] = ()
    endpoint: Endpoint | None = None
    price: Price | None = None
    rate: Rate | None = None

    def identity(self) -> dict[str, object]:
        """What decides the model's answers: this, and not how it is served, enters fingerprints.

        The name that a server knows it by (`endpoint.model`) and the arguments among `engine_args`
        that change answers (`ANSWER_ARGS`) are in it where they are given. Of a file that an
        argument names, the name is, not what it holds.
        """
        found: dict[str, object] = self.model_dump(
            mode="json",
            include={"source", "revision", "dtype", "max_model_len", "quantization", "system_role"},
        )
        if self.endpoint and self.endpoint.model:
            found["endpoint_model"] = self.endpoint.model
        if args := _answer_args(self.engine_args):
            found["engine_args"] = args
        return found


def _answer_args(given: Sequence[str]) -> list[list[str]]:
    """Those of `ANSWER_ARGS` that are given, each with its values: `--x=v` and `--x v` are the
    same, as they are to vLLM."""
    found: list[list[str]] = []
    for text in given:
        if _ARG.match(text):
            name, equals, value = text.partition("=")
            name, dot, key = name.partition(".")  # --hf-overrides.KEY gives one of its keys
            found.append([name.replace("_", "-") + dot + key, *([value] if equals else [])])
        elif found:
            found[-1].append(text)
    return [arg for arg in found if arg[0].partition(".")[0] in ANSWER_ARGS]


class Store(Part):
    """Where the run's S3 is; what is not given comes from the environment (AWS_ENDPOINT_URL_S3 and
    so on)."""

    root: str = Field(pattern=r"^s3://[^/]+/?.*$")
    endpoint_url: str | None = None
    region: str | None = None
    access_key_env: str = "AWS_ACCESS_KEY_ID"
    secret_key_env: str = "AWS_SECRET_ACCESS_KEY"


class Engines(Part):
    """How models are served while a stage works."""

    kind: Literal["process", "endpoint", "kubernetes"] = "process"
    """process: vLLM as a child process; endpoint: servers that are up. A model with its own
    `endpoint` is always one."""
    schedule: Literal["auto", "together", "by-turns"] = "auto"
    """together: all models up at once; by-turns: as many as fit, swapped; auto: together if they
    fit."""
    start_timeout_s: float | None = Field(None, gt=0)
    """How long a model may take to its first answer. Unless given: 900 as a process, whose weights
    are there by then; on Kubernetes what its Deployment allows (`progressDeadlineSeconds`, which
    the chart computes from the model's size)."""
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


class Images(Part):
    """The container images, with registry and tag; what is not given is that of this version
    (`moaa/core:0.1.0`)."""

    core: str | None = None
    """Asks, judges, reports and launches; no torch in it."""
    serve: str | None = None
    """Serves by vLLM."""
    train: str | None = None


class Cluster(Part):
    """What the run finds on Kubernetes: a namespace, and in it names of Secrets and of a service
    account."""

    namespace: Annotated[str, Field(pattern=_DNS_LABEL)] | None = None
    """Where the ensemble and the trainings are; unless given, the pod's own, or that of the
    kubeconfig's context."""
    service_account: Annotated[str, Field(pattern=_DNS_NAME)] = "moaa-pipeline"
    s3_secret: Annotated[str, Field(pattern=_DNS_NAME)] = "moaa-s3"
    """Its keys: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, unless it is AWS itself,
    AWS_ENDPOINT_URL_S3, AWS_REGION."""
    env_secret: Annotated[str, Field(pattern=_DNS_NAME)] = "moaa-env"
    """Holds what `runtime.secret_envs` and the endpoints' `key_env` name, under just these names."""
    image_pull_secrets: tuple[Annotated[str, Field(pattern=_DNS_NAME)], ...] = ()
    images: Images = Images()


class Runtime(Part):
    """Where and how fast, never what: nothing here enters a fingerprint."""

    engines: Engines = Engines()
    calls: Calls = Calls()
    launcher: Launcher = Launcher()
    cluster: Cluster = Cluster()
    max_rejected_share: float = Field(0.02, ge=0, le=1)
    """A stage that rejects a larger share of its rows fails, with the table of reasons."""
    secret_envs: tuple[str, ...] = ()
    """Names of environment variables that the stages need besides the store's and the endpoints'
    (HF_TOKEN)."""


class Pool(Part):
    """A node pool: which nodes, and what a pod asks of them."""

    node_selector: dict[str, str] = Field({})
    toleration: str | None = None
    """Key of the nodes' taint."""
    accelerator: str = "nvidia.com/gpu"
    gpus: int = Field(8, ge=0)
    """GPUs of one of its nodes; 0: a pool of CPU nodes."""
    cpus: float = Field(8, gt=0)
    """Requested for each GPU that a pod takes; once for a pod that takes none. The limit is the
    same."""
    memory_gib: float = Field(64, gt=0)
    """As `cpus`."""
    shm_gib: float = Field(16, gt=0)
    """/dev/shm of a pod; part of its memory."""
    gpu_hour_usd: float | None = Field(None, ge=0)


class Plan(Part):
    """Assumptions of `moaa recipe plan`, stated so that they can be argued with."""

    gpu_hour_usd: float = Field(2.0, ge=0)
    turns_per_prompt: float = Field(1.0, gt=0)
    turns: dict[str, Annotated[float, Field(gt=0)]] = Field({})
    """User turns of a conversation by the source's `name`, where they differ from
    `turns_per_prompt`."""
    prompt_tokens: int = Field(200, ge=1)
    """Tokens of one user turn with its system message."""
    answer_tokens: int = Field(500, ge=1)
    """Tokens of one answer, unless `max_tokens` is smaller."""
    assessment_tokens: int = Field(350, ge=1)
    prompts: dict[Literal["sft", "preference", "evaluation"], int] = Field({})
    """Prompts in sources whose size the recipe does not say (no `limit`)."""
    train_tokens_per_gpu_s: float = Field(3000, gt=0)
