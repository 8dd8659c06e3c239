"""The recipe's fields that decide where, how fast and at what price, not what is computed.

A run may move from a laptop to a cluster: its finished stages are found again. The exceptions are
in `Model.identity`: the fields of a model that decide its answers.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from moaa.recipe import engine_args, engine_rules, urls
from moaa.recipe.document import Part, Problems
from moaa.recipe.forms import Account, Bucket, DnsLabel, DnsName
from moaa.recipe.trackers import Tracker


class Endpoint(Part):
    """An OpenAI-compatible server that is already up."""

    url: str
    """Base address, without `/chat/completions`: usually `…/v1`."""
    model: str | None = None
    """The model's name on the server. Default: its name in the recipe."""
    key_env: str | None = None
    """Name of the environment variable with the API key; never the key itself."""
    allow_http: bool = False
    """Send the key over plain http too. By default a key needs https, an address of this machine,
    or a service of the cluster (`….svc`)."""

    @model_validator(mode="after")
    def _key_stays_private(self) -> Self:
        if problem := urls.problem_of(self.url):
            raise Problems([(("url",), f"the address {problem}.")])
        if self.key_env and not self.allow_http and not urls.may_carry_key(self.url):
            raise Problems(
                [
                    (
                        ("url",),
                        f"{urls.origin(self.url)} would get the key in {self.key_env} over plain "
                        "http, where others can read it. Use https, or set allow_http: true.",
                    )
                ]
            )
        return self


class Price(Part):
    """Dollars per million tokens."""

    prompt: float = Field(ge=0)
    completion: float = Field(ge=0)


class Rate(Part):
    """Tokens per second of one replica at full load, for `moaa recipe plan`."""

    prompt: float = Field(gt=0)
    completion: float = Field(gt=0)


class Model(Part):
    """A model of the ensemble or the target. `source`:
    hub id, s3:// prefix, local folder, or package:PATH.gguf."""

    source: str
    revision: str | None = None
    dtype: str = "bfloat16"
    max_model_len: int | None = Field(None, ge=16)
    quantization: str | None = None
    system_role: bool = True
    """false if the chat template refuses system messages (Gemma 2): their text is then put before
    the first user message."""
    task: Literal["chat", "reward", "embed"] = "chat"
    """chat: it writes answers. reward: it scores them (a sequence classification model). embed: it
    gives the vector of the last token (ArmoRM's body). The last two are for labellers."""
    licence: str | None = None
    """Its licence, by its name in moaa/registry/licences.yaml,
    if the model's name does not show it."""
    # The following fields decide how it is served, not what it answers.
    tensor_parallel: int = Field(1, ge=1)
    replicas: int = Field(1, ge=1)
    pool: str | None = None
    engine_args: tuple[str, ...] = ()
    """More arguments for vLLM. Arguments that open its server, run code or hold keys are
    refused, and a file outside of the recipe's folder."""
    trust_remote_code: bool = False
    """Run the Python code in the model's repository. It can do everything that the engine's process
    can: pin the code with `revision`."""
    endpoint: Endpoint | None = None
    price: Price | None = None
    rate: Rate | None = None

    @model_validator(mode="after")
    def _arguments_are_allowed(self) -> Self:
        found = [
            (("engine_args",), f"{name} is not allowed: {why}.")
            for name, why in engine_rules.refused(self.engine_args)
        ]
        if found:
            raise Problems(found)
        return self

    @property
    def arguments(self) -> list[str]:
        """Return all arguments for vLLM in the recipe."""
        return [*self.engine_args, *(["--trust-remote-code"] if self.trust_remote_code else [])]

    @property
    def published_name(self) -> str:
        """Return the name by which others know the model: that of its endpoint, or its source."""
        return (self.endpoint and self.endpoint.model) or self.source

    def identity(self) -> dict[str, object]:
        """Return the fields that decide the model's answers: they are in fingerprints.

        `task`, `endpoint.model`, `engine_args` that change answers (`ANSWER_ARGS`) and
        `trust_remote_code` are included if they are given. For a file in an argument only its name
        is included, not the content.
        """
        found: dict[str, object] = self.model_dump(
            mode="json",
            include={"source", "revision", "dtype", "max_model_len", "quantization", "system_role"},
        )
        if self.task != "chat":
            found["task"] = self.task
        if self.endpoint and self.endpoint.model:
            found["endpoint_model"] = self.endpoint.model
        if args := engine_args.answer_args(self.engine_args):
            found["engine_args"] = args
        if self.trust_remote_code:
            found["trust_remote_code"] = True
        return found


class StoreAddress(Part):
    """The run's S3. The environment gives what is missing (AWS_ENDPOINT_URL_S3, AWS_REGION)."""

    root: Bucket
    endpoint_url: str | None = None
    region: str | None = None
    access_key_env: str = "AWS_ACCESS_KEY_ID"
    secret_key_env: str = "AWS_SECRET_ACCESS_KEY"
    session_token_env: str | None = None
    """Name of the variable with the token of keys that expire after some hours. Default:
    AWS_SESSION_TOKEN, if the two keys have their usual names."""
    expected_owner: Account | None = None
    """AWS account that must own the bucket. Calls to a bucket of another account are refused."""

    @model_validator(mode="after")
    def _address_holds_no_key(self) -> Self:
        problem = urls.problem_of(self.endpoint_url) if self.endpoint_url else None
        if problem:
            raise Problems([(("endpoint_url",), f"store.endpoint_url {problem}.")])
        return self


class Engines(Part):
    """How models are served while a stage runs."""

    kind: Literal["process", "endpoint", "kubernetes"] = "process"
    """process: vLLM as a child process. endpoint: servers that are already up. kubernetes: the
    Deployments of the serving chart. A model with its own `endpoint` always uses that."""
    schedule: Literal["auto", "together", "by-turns"] = "auto"
    """together: all models run at once. by-turns: as many as fit, the others wait. auto: together
    if all fit."""
    start_timeout_s: float | None = Field(None, gt=0)
    """How long a model may take until it answers. Default: 900 for a process (without the download
    of its weights); on Kubernetes the `progressDeadlineSeconds` of its Deployment, which the chart
    computes from the model's size."""
    max_restarts: int = Field(3, ge=0)
    kv_cache_gib: float = Field(2.0, gt=0)
    """KV cache of one engine on a CPU."""
    max_num_seqs: int | None = Field(None, ge=1)
    """Requests that an engine works on at the same time. Default: vLLM's own limit on GPUs (256 or
    1024), 64 on CPUs."""


class Calls(Part):
    """Limits of the chat client."""

    in_flight: int | None = Field(None, ge=1)
    """Requests in flight at each server. Default: as many as its engine works on. On GPUs that is
    `engines.max_num_seqs`, or 256 at first and up to 1024; fewer while the engine's queue or its
    preemptions grow. On CPUs and at an `endpoint` it is 64."""
    window: int | None = Field(None, ge=1)
    """Conversations in progress at the same time. Default: four for each request that the servers
    of a model accept, at least 256."""
    timeout_s: float = Field(600, gt=0)
    """The longest time of one request. A server without an answer for twice as long is restarted,
    or its model fails."""
    retries: int = Field(6, ge=0)
    """How many times a call is tried again after a failure that may pass,
    or after a garbled answer."""


class Launcher(Part):
    """How training is started."""

    kind: Literal["process", "trainer", "job"] = "process"
    ranks: int = Field(8, ge=1)
    """Ranks per node: GPUs, or CPU processes."""
    nodes: int = Field(1, ge=1)
    device: Literal["auto", "cuda", "cpu"] = "auto"
    pool: str | None = None
    checkpoint_minutes: float = Field(30, gt=0)
    """Minutes between checkpoints in the store. An interrupted training resumes
    from the newest one."""


class Images(Part):
    """The container images, with registry and tag. Default:
    those of this version (`moaa/core:0.1.0`)."""

    core: str | None = None
    """The image that asks, judges, reports and starts trainings. It has no torch."""
    serve: str | None = None
    """The image that serves models with vLLM."""
    train: str | None = None


class Cluster(Part):
    """What the run uses on Kubernetes: a namespace, and names of Secrets and a service account."""

    namespace: DnsLabel | None = None
    """Namespace of the ensemble and the trainings. Default: the pod's own, or that of the
    kubeconfig's context."""
    service_account: DnsName = "moaa-pipeline"
    s3_secret: DnsName | None = "moaa-s3"
    """Secret with the keys AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and, unless the S3 is AWS,
    AWS_ENDPOINT_URL_S3 and AWS_REGION. null: pods get no keys; the identity of their service
    account opens the store (IRSA, EKS Pod Identity)."""
    engines_secret: DnsName = "moaa-engines"
    """Secret of the moaa-serving chart with the engines' API key, VLLM_API_KEY.
    It may be missing."""
    env_secret: DnsName = "moaa-env"
    """Secret with the variables in `runtime.secret_envs` and in the endpoints' `key_env`."""
    image_pull_secrets: tuple[DnsName, ...] = ()
    images: Images = Images()


class Runtime(Part):
    """Where and how fast the run computes, never what: none of these fields is in a fingerprint."""

    engines: Engines = Engines()
    calls: Calls = Calls()
    launcher: Launcher = Launcher()
    cluster: Cluster = Cluster()
    max_rejected_share: float = Field(0.02, ge=0, le=1)
    """A stage that rejects a larger share of its rows fails as soon as that is certain, with a
    table of the reasons. If only a part of a row is lost (one verdict of twenty), that part
    counts."""
    secret_envs: tuple[str, ...] = ()
    """Names of more environment variables that the stages need (HF_TOKEN)."""
    trackers: tuple[Tracker, ...] = ()
    """Trackers that get each stage's numbers, besides the report. Default: none."""


class Pool(Part):
    """A node pool: which nodes, and what a pod requests from them."""

    node_selector: dict[str, str] = Field({})
    toleration: str | None = None
    """The key of the taint of these nodes."""
    accelerator: str = "nvidia.com/gpu"
    gpus: int = Field(8, ge=0)
    """GPUs of one node; 0: a pool of CPU nodes."""
    cpus: float = Field(8, gt=0)
    """Request and limit for each GPU of a pod; once for a pod without GPUs."""
    memory_gib: float = Field(64, gt=0)
    """In the same way as `cpus`."""
    shm_gib: float = Field(16, gt=0)
    """Size of /dev/shm in a pod; it is part of the memory."""
    gpu_hour_usd: float | None = Field(None, ge=0)


class Plan(Part):
    """The assumptions of `moaa recipe plan`. Change them if you have better values."""

    gpu_hour_usd: float = Field(2.0, ge=0)
    turns_per_prompt: float = Field(1.0, gt=0, le=1000)
    turns: dict[str, Annotated[float, Field(gt=0, le=1000)]] = Field({})
    """User turns of a conversation by the source's `name`, if not `turns_per_prompt`."""
    prompt_tokens: int = Field(200, ge=1)
    """Tokens of one user turn with its system message."""
    answer_tokens: int = Field(500, ge=1)
    """Tokens of one answer, unless `max_tokens` is smaller."""
    assessment_tokens: int = Field(350, ge=1)
    adaptive_share: float = Field(0.45, gt=0, le=1)
    """Calls of an adaptive judge, as a share of the exhaustive one's.
    The report shows the real share."""
    prompts: dict[Literal["sft", "preference", "evaluation"], int] = Field({})
    """Number of prompts in sources without a `limit`."""
    train_tokens_per_gpu_s: float = Field(3000, gt=0)
