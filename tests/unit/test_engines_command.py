"""What a server is started with, and what an error shows of its log."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

import pytest

from moaa.engines import server
from moaa.engines.server import TAIL, Spec, command, tail
from moaa.recipe.schema import Engines, Model


def spec(
    kind: Literal["cuda", "cpu"],
    devices: tuple[str, ...],
    source: str = "org/name",
    **model: object,
) -> Spec:
    return Spec(
        "smol",
        source,
        Model.model_validate({"source": source, **model}),
        Engines(kv_cache_gib=1.5),
        kind,
        devices,
    )


def value(args: list[str], flag: str) -> str:
    return args[args.index(flag) + 1]


@pytest.mark.parametrize(
    ("task", "added"),
    [
        ("chat", []),
        ("reward", ["--runner", "pooling", "--convert", "classify"]),
        (
            "embed",
            [
                *("--runner", "pooling", "--convert", "embed"),
                *("--pooler-config", '{"pooling_type":"LAST","use_activation":false}'),
            ],
        ),
    ],
)
def test_what_a_model_does_decides_how_it_is_served(task: str, added: list[str]) -> None:
    chat, _ = command(spec("cuda", ("0",)), 1)
    args, _ = command(spec("cuda", ("0",), task=task, engine_args=("--seed", "1")), 1)
    assert args == [*chat, *added, "--seed", "1"]


def test_on_cpu(tmp_path: Path) -> None:
    args, env = command(
        spec("cpu", ("0", "1"), str(tmp_path), max_model_len=4096, tensor_parallel=8), 8123
    )
    assert args[:5] == [
        sys.executable,
        "-m",
        "vllm.entrypoints.openai.api_server",
        "--model",
        str(tmp_path),
    ]
    assert "--no-enable-chunked-prefill" in args  # a seeded request kills the CPU engine without it
    assert "--enforce-eager" in args
    assert value(args, "--generation-config") == "vllm"
    assert value(args, "--kv-cache-memory-bytes") == str(1536 << 20)
    assert value(args, "--max-model-len") == "4096"
    assert (value(args, "--host"), value(args, "--port"), value(args, "--served-model-name")) == (
        "127.0.0.1",
        "8123",
        "smol",
    )
    assert "--tensor-parallel-size" not in args
    assert value(args, "--max-num-seqs") == "64"
    assert env["VLLM_CPU_OMP_THREADS_BIND"] == "0,1"
    assert env["VLLM_CPU_NUM_OF_RESERVED_CPU"] == "0"
    assert env["TORCHDYNAMO_DISABLE"] == "1"  # there may be no C++ compiler
    assert env["HF_HUB_OFFLINE"] == "1"


def test_openmp_is_preloaded_only_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert "LD_PRELOAD" not in command(spec("cpu", ("0",)), 1)[1]
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libiomp5.so").touch()
    monkeypatch.setenv("LD_PRELOAD", "/lib/other.so")
    assert (
        command(spec("cpu", ("0",)), 1)[1]["LD_PRELOAD"]
        == f"{tmp_path}/lib/libiomp5.so /lib/other.so"
    )
    assert "LD_PRELOAD" not in command(spec("cuda", ("0",)), 1)[1]


def test_on_gpus() -> None:
    args, env = command(
        spec(
            "cuda",
            ("2", "3"),
            revision="abc",
            quantization="fp8",
            tensor_parallel=2,
            engine_args=("--seed", "1"),
        ),
        8123,
    )
    assert args[:3] == [str(Path(sys.executable).with_name("vllm")), "serve", "org/name"]
    assert value(args, "--tensor-parallel-size") == "2"
    assert (
        value(args, "--revision"),
        value(args, "--tokenizer-revision"),
        value(args, "--quantization"),
    ) == (
        "abc",
        "abc",
        "fp8",
    )
    assert args[-2:] == ["--seed", "1"]
    assert "--max-num-seqs" not in args, "vLLM's own limit stands"
    assert env["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert "HF_HUB_OFFLINE" not in env  # a hub model has to be fetched
    assert not {"--no-enable-chunked-prefill", "--enforce-eager", "--kv-cache-memory-bytes"} & set(
        args
    )


def test_tail_keeps_the_cause() -> None:
    frames = [f"frame {n}" for n in range(50)]
    assert tail(frames) == frames[-TAIL:]
    assert tail(["INFO: fine", "ValueError: too small", *frames]) == [
        "ValueError: too small",
        "…",
        *frames[-TAIL:],
    ]
    assert tail(["ValueError: too small"]) == ["ValueError: too small"]


def test_ports_are_not_given_twice() -> None:
    held = [server._free_port() for _ in range(50)]
    try:
        assert len({port for _, port in held}) == 50
    finally:
        for socket, _ in held:
            socket.close()
