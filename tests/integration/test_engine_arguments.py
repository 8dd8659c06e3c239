"""Every argument of vLLM is decided: refused, restricted, for the recipe's own files, or harmless.

A later version may bring one that runs code or reads a file. It fails these tests until somebody
has looked at what it does.
"""

from __future__ import annotations

import argparse
import warnings
from dataclasses import fields
from typing import Any, Final

import pytest

from moaa.recipe import engine_rules
from moaa.recipe.engine_args import speculates

TAKE_A_NAME: Final = {
    "a model, as `source` does": """
        model tokenizer hf-config-path generation-config spec-model speculative-config
        lora-modules default-mm-loras
    """,
    "a revision, a key of a table that only a refused plugin can extend, or a fixed word": """
        revision code-revision tokenizer-revision config-format load-format tokenizer-mode
        model-impl quantization attention-backend mamba-backend mm-encoder-attn-backend
        mm-encoder-attn-dtype moe-backend linear-backend sparse-indexer-topk-backend
        all2all-backend data-parallel-backend tool-call-parser reasoning-parser spec-method
        kv-cache-dtype eplb-config kernel-config attention-config ir-op-priority
        reasoning-config expert-placement-strategy dcp-comm-backend mm-processor-device
        device-ids numa-bind-cpus numa-bind-nodes mm-processor-cache-type gdn-prefill-backend
        kda-prefill-backend kda-decode-backend
    """,
    "a folder into which models are downloaded, below folders of their names": """
        download-dir
    """,
    "what a model's own configuration says; its code runs with trust_remote_code only": """
        hf-overrides override-generation-config quantization-config default-chat-template-kwargs
        pooler-config
    """,
    "what pictures and films are read with: conversations of moaa have none": """
        media-io-kwargs mm-processor-kwargs limit-mm-per-prompt allowed-media-domains
    """,
    "a word in replies, logs or metrics": """
        served-model-name response-role fingerprint-mode fingerprint-value log-level
        uvicorn-log-level disable-access-log-for-endpoints show-hidden-metrics-for-version
        collect-detailed-traces custom-histogram-buckets per-request-spec-decode-metrics
    """,
}
"""Harmless, although they take a name, a path or an object: what that is."""

PLAIN: Final = """
    api-server-count chat-template-content-format return-tokens-as-token-ids
    enable-auto-tool-choice exclude-tools-when-tool-choice-none tool-strict-level max-log-len
    enable-prompt-tokens-details enable-per-request-metrics enable-server-load-tracking
    enable-force-include-usage sse-keep-alive-interval enable-tokenizer-info-endpoint
    enable-log-outputs enable-log-deltas cohere-is-reasoning-model cohere-format
    anthropic-disabled-thinking-effort log-error-stack tokens-only enable-scale-out
    dp-supervisor-probe-interval-s dp-supervisor-probe-timeout-s
    dp-supervisor-probe-failure-threshold disable-uvicorn-access-log enable-request-id-headers
    disable-fastapi-docs h11-max-incomplete-event-size h11-max-header-count enable-offline-docs
    enable-flash-late-interaction runner convert dtype seed max-model-len
    allow-deprecated-quantization enforce-eager enable-return-routed-experts
    return-sampling-mask max-logprobs logprobs-mode use-fp64-gumbel enable-trace-replay
    disable-sliding-window disable-cascade-attn skip-tokenizer-init enable-sleep-mode
    sleep-mode-offload-cudagraph sleep-preserve-parameter-names enable-cumem-allocator
    enable-nccl-comm-suspend renderer-num-workers safetensors-load-strategy
    safetensors-prefetch-num-threads safetensors-prefetch-block-size ignore-patterns
    use-tqdm-on-load pt-load-map-location mamba-ssu-algorithm
    enable-mamba-cache-stochastic-rounding mamba-cache-philox-rounds pipeline-parallel-size
    distributed-timeout-seconds cpu-distributed-timeout-seconds numa-bind tensor-parallel-size
    decode-context-parallel-size dcp-q-replicate dcp-kv-cache-interleave-size
    cp-kv-cache-interleave-size prefill-context-parallel-size data-parallel-size
    data-parallel-size-local enable-hc-sp enable-expert-parallel enable-batch-sharded-sampling
    enable-ep-weight-filter enable-dbo enable-shm-tensor-arena ubatch-size enable-elastic-ep
    elastic-ep-max-dp-size dbo-decode-token-threshold dp-sync-interval
    dbo-prefill-token-threshold disable-nccl-for-dp-synchronization enable-eplb
    max-parallel-loading-workers ray-workers-use-nsight disable-custom-all-reduce
    enable-fault-tolerance fault-tolerance-config block-size gpu-memory-utilization
    kv-cache-memory-bytes num-gpu-blocks-override enable-prefix-caching prefix-caching-hash-algo
    prefix-cache-retention-interval kv-cache-dtype-skip-layers kv-sharing-fast-prefill
    swa-bounded-replay mamba-cache-dtype mamba-ssm-cache-dtype mamba-block-size
    prefix-match-unit mamba-cache-mode enable-mamba-shared-prefix-checkpoint
    replayssm-buffer-len use-replayssm kv-offloading-size kv-offloading-backend offload-backend
    cpu-offload-gb cpu-offload-params offload-group-size offload-num-in-group
    offload-prefetch-step offload-params language-model-only mm-processor-cache-gb
    mm-hasher-algorithm mm-shm-cache-max-object-size-mb mm-encoder-only mm-encoder-tp-mode
    mm-encoder-fp8-scale-save-margin interleave-mm-strings skip-mm-profiling video-pruning-rate
    video-pruning-method mm-tensor-ipc mm-ipc-gpu-memory-gb mm-device-do-normalize enable-lora
    max-loras max-lora-rank lora-dtype enable-tower-connector-lora max-cpu-loras
    fully-sharded-loras lora-target-modules specialize-active-lora enable-mixed-moe-lora-format
    enable-moe-shared-loras max-lora-cls-labels kv-cache-metrics kv-cache-metrics-sample
    cudagraph-metrics enable-layerwise-nvtx-tracing enable-mfu-metrics
    enable-logging-iteration-details jit-monitor-mode jit-monitor-verbose max-num-batched-tokens
    max-num-scheduled-tokens max-num-seqs max-num-active-seqs max-num-queued-reqs
    max-num-queued-tokens long-prefill-token-threshold long-prefill-token-threshold-adaptive
    scheduling-policy enable-chunked-prefill disable-chunked-mm-input scheduler-reserve-full-isl
    watermark prefill-schedule-interval disable-hybrid-kv-cache-manager async-scheduling
    stream-interval cudagraph-capture-sizes max-cudagraph-capture-size
    enable-flashinfer-autotune spec-tokens watermark-config diffusion-config engram-config
    aux-output-config optimization-level performance-mode disable-log-stats
    aggregate-engine-logging fail-on-environ-validation shutdown-timeout enable-log-requests
"""
"""Numbers, switches and choices of a fixed list."""

RESTRICTED: Final = {*engine_rules.RESTRICTED, engine_rules.EXECUTOR}


@pytest.fixture(scope="module")
def actions() -> list[argparse.Action]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch's own use of torch.jit
        from vllm.entrypoints.launchers.cli_args import make_arg_parser
        from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser: Any = make_arg_parser(FlexibleArgumentParser())
    return [each for each in parser._actions if each.option_strings]


def harmless() -> set[str]:
    words = " ".join([*TAKE_A_NAME.values(), PLAIN]).split()
    assert len(words) == len(set(words))
    return {f"--{word}" for word in words}


def name_of(action: argparse.Action) -> str:
    return next(each for each in action.option_strings if each.startswith("--"))


def test_every_argument_of_vllm_is_decided(actions: list[argparse.Action]) -> None:
    decided = {*engine_rules.REFUSED, *RESTRICTED, *engine_rules.FILES, *harmless(), "--help"}
    given = {name_of(each) for each in actions}
    assert given - decided == set(), "decide what these may do (moaa/recipe/engine_rules.py)"
    assert decided - given == set(), "vLLM has these no more"


def test_no_other_name_of_an_argument_passes(actions: list[argparse.Action]) -> None:
    for action in actions:
        name = name_of(action)
        for each in action.option_strings:
            if not each.startswith("--no-"):
                found = list(engine_rules.refused([each, "x.y"]))
                assert bool(found) == (name in {*engine_rules.REFUSED, *RESTRICTED}), each


def test_the_keys_that_a_recipe_may_use_are_vllms() -> None:
    from vllm.config import CompilationConfig, StructuredOutputsConfig

    for name, config in (
        ("--compilation-config", CompilationConfig),
        ("--structured-outputs-config", StructuredOutputsConfig),
    ):
        allowed, _ = engine_rules.RESTRICTED[name]
        assert allowed <= {field.name for field in fields(config)}


def test_all_that_turns_speculation_on_is_known(actions: list[argparse.Action]) -> None:
    found = {
        name_of(each) for each in actions if name_of(each).startswith(("--spec-", "--speculative"))
    }
    assert all(speculates([name, "x"]) for name in found)
