"""vLLM's arguments that a recipe may not use, or may use only in part.

A recipe may come from somebody else. It does not decide who can reach an engine, which code runs in
it, or which files of this machine it reads.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Final

from moaa.recipe.engine_args import ANSWER_ARGS, is_template, named

_OPENS = "it changes who can reach the server; moaa decides that"
_KEY = "keys belong into the environment, not into a command line"
_CODE = "it runs code that the recipe names"
_HIDES = "a file can hold any other argument; write the arguments themselves"
_SENDS = "it sends data to another address"
_TRUSTS = "it lets a request bring its own template, tensors, files or weights"

REFUSED: Final[dict[str, str]] = {
    **dict.fromkeys(
        (
            "--host",
            "--port",
            "--uds",
            "--grpc",
            "--grpc-port",
            "--headless",
            "--root-path",
            "--ssl-keyfile",
            "--ssl-certfile",
            "--ssl-ca-certs",
            "--ssl-cert-reqs",
            "--ssl-ciphers",
            "--enable-ssl-refresh",
            "--allowed-origins",
            "--allowed-methods",
            "--allowed-headers",
            "--allow-credentials",
            "--data-parallel-address",
            "--data-parallel-rpc-port",
            "--data-parallel-supervisor-port",
            "--data-parallel-external-lb",
            "--data-parallel-hybrid-lb",
            "--data-parallel-multi-port-external-lb",
            "--data-parallel-rank",
            "--data-parallel-start-rank",
            "--master-addr",
            "--master-port",
            "--nnodes",
            "--node-rank",
            "--profiler-config",
        ),
        _OPENS,
    ),
    "--api-key": _KEY,
    "--hf-token": _KEY,
    **dict.fromkeys(
        (
            "--middleware",
            "--reasoning-parser-plugin",
            "--tool-parser-plugin",
            "--io-processor-plugin",
            "--worker-cls",
            "--worker-extension-cls",
            "--scheduler-cls",
            "--logging-config",
            "--log-config-file",
            "--kv-transfer-config",
            "--ec-transfer-config",
            "--ec-manager-config",
            "--logits-processors",
            "--model-class-overrides",
        ),
        _CODE,
    ),
    "--trust-remote-code": "use the field trust_remote_code: true, which the plan, "
    "preflight and the report show",
    "--config": _HIDES,
    "--additional-config": "what it does depends on a plugin of vLLM",
    "--mm-encoder-fp8-scale-save-path": "it writes to a file that the recipe names",
    **dict.fromkeys(
        ("--kv-events-config", "--otlp-traces-endpoint", "--tool-server"),
        _SENDS,
    ),
    **dict.fromkeys(
        (
            "--allowed-local-media-path",
            "--trust-request-chat-template",
            "--trust-request-mm-kwargs",
            "--enable-prompt-embeds",
            "--enable-mm-embeds",
            "--weight-transfer-config",
        ),
        _TRUSTS,
    ),
}
"""Arguments that a recipe may not use, and why. The list was made from vLLM 0.32's own."""

_SHORT: Final = {
    "-n": "--nnodes",
    "-r": "--node-rank",
    "-cc": "--compilation-config",
    "-c": "--compilation-config",  # its parser takes this for -cc
    "-dpa": "--data-parallel-address",
    "-dpp": "--data-parallel-rpc-port",
    "-dpe": "--data-parallel-external-lb",
    "-dph": "--data-parallel-hybrid-lb",
    "-dpm": "--data-parallel-multi-port-external-lb",
    "-dpn": "--data-parallel-rank",
    "-dpr": "--data-parallel-start-rank",
}
"""Short names of arguments that are refused or restricted."""

RESTRICTED: Final[dict[str, tuple[frozenset[str], str]]] = {
    "--compilation-config": (
        frozenset(
            ("mode", "custom_ops", "splitting_ops", "compile_sizes", "compile_mm_encoder",
             "compile_ranges_endpoints", "cudagraph_mode", "cudagraph_num_of_warmups",
             "cudagraph_capture_sizes", "max_cudagraph_capture_size", "cudagraph_copy_inputs",
             "cudagraph_specialize_lora", "cudagraph_mm_encoder", "use_inductor_graph_partition",
             "pass_config", "dynamic_shapes_config", "fast_moe_cold_start")
        ),
        "it can name code, a compiler or a folder",
    ),
    "--structured-outputs-config": (
        frozenset(
            ("backend", "disable_any_whitespace", "disable_additional_properties",
             "reasoning_parser", "enable_in_reasoning")
        ),
        "it can name code",
    ),
    "--model-loader-extra-config": (
        frozenset(
            ("enable_multithread_load", "num_threads", "concurrency", "memory_limit", "distributed")
        ),
        "it can name an address, a key or a file",
    ),
}  # fmt: skip
"""Arguments of which a recipe may use only these keys, and what the others can do."""
EXECUTORS: Final = ("mp", "uni", "ray", "external_launcher")
EXECUTOR: Final = "--distributed-executor-backend"

FILES: Final = ("--chat-template", "--mm-encoder-fp8-scale-path")
"""Arguments that name a file whose content reaches prompts or logs: it must be one that the recipe
may read (`moaa.recipe.files`). All others that take a path name a model, as `source` does."""


def refused(given: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield each argument that a recipe may not use, and the reason.

    vLLM accepts a shortened argument (`--hos`) for the whole one, and so does this function.
    """
    for name, values in named(given):
        asked, _, key = name.partition(".")
        whole = _whole(asked)
        shown = asked if asked == whole else f"{asked} (short for {whole})"
        if whole in REFUSED:
            yield shown, REFUSED[whole]
        elif whole in RESTRICTED:
            allowed, why = RESTRICTED[whole]
            for each in sorted(_keys(key, values) - allowed):
                yield f"{shown} with {each}", f"{why}. Allowed are {', '.join(sorted(allowed))}"
        elif whole == EXECUTOR and " ".join(values) not in EXECUTORS:
            yield shown, f"it can name code. Allowed are {', '.join(EXECUTORS)}"


def files(given: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield each of `FILES` that is given, with the file. A template's own text is no file."""
    for name, values in named(given):
        value = " ".join(values)
        if _whole(name) in FILES and not is_template(value):
            yield name, value


def _whole(asked: str) -> str:
    """Return the restricted argument that this one stands for; itself if it is another one."""
    restricted = (*REFUSED, *RESTRICTED, EXECUTOR, *FILES)
    if asked in restricted or asked in ANSWER_ARGS:
        return asked
    if not asked.startswith("--"):
        glued = next((each for each in ("-n", "-r") if asked.startswith(each)), "")  # -n2
        return _SHORT.get(asked) or _SHORT.get(glued, asked)
    return next((each for each in restricted if each.startswith(asked)), asked)


def _keys(key: str, values: Sequence[str]) -> set[str]:
    """Return the keys that `--name.KEY value` or `--name {"KEY": …}` gives."""
    if key:
        return {key.partition(".")[0].rstrip("+").replace("-", "_")}
    try:
        found = json.loads(" ".join(values))
    except ValueError:
        found = None
    return set(found) if isinstance(found, dict) else {"a value that is no JSON object"}
