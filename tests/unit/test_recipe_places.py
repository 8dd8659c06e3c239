"""How many requests and conversations are in progress, by the recipe and the device."""

from __future__ import annotations

import pytest

from moaa.engines.deployment import places_of
from moaa.engines.endpoint import endpoint
from moaa.plan.sentences import assumptions
from moaa.recipe.load import load_file
from moaa.recipe.places import Places, max_num_seqs, places, window
from moaa.recipe.schema import Calls, Engines, Model, Runtime
from tests.support.paths import ROOT


@pytest.mark.parametrize(
    ("args", "limit"),
    [
        ([], None),
        (["--max-num-seqs", "7"], 7),
        (["--max-num-seqs=7", "--seed", "3"], 7),
        (["--max_num_seqs=7"], 7),
        (["--max-num-seqs", "7", "--max-num-seqs=9"], 9),  # vLLM takes the last one
        (["--max-num-seqs"], None),
        (["--max-num-seqs", "many"], None),
        (["--max-num-batched-tokens=7"], None),
    ],
)
def test_the_engines_own_limit_is_read_from_its_arguments(
    args: list[str], limit: int | None
) -> None:
    assert max_num_seqs(args) == limit


def test_a_gpu_is_not_starved_by_what_suits_two_cores() -> None:
    assert places(Runtime(), "cuda") == Places(256, 1024, follows=True)
    assert places(Runtime(), "cpu") == Places(64, 64, follows=False)
    assert places(Runtime(), "endpoint") == Places(64, 64, follows=True)


def test_an_engines_limit_is_the_number_of_its_requests() -> None:
    assert places(Runtime(), "cuda", 512) == Places(512, 512, follows=True)
    assert places(Runtime(), "cpu", 32) == Places(32, 32, follows=False)


@pytest.mark.parametrize("device", ["cuda", "cpu", "endpoint"])
def test_the_recipes_own_number_is_taken_as_it_is(device: str) -> None:
    runtime = Runtime(calls=Calls(in_flight=5), engines=Engines(max_num_seqs=9))
    assert places(runtime, device, 9) == Places(5, 5, follows=False)  # type: ignore[arg-type]


def test_enough_conversations_keep_all_replicas_busy() -> None:
    assert window(Runtime(), 0) == 256
    assert window(Runtime(), 64) == 256
    assert window(Runtime(), 3 * 1024) == 4 * 3 * 1024
    assert window(Runtime(calls=Calls(window=3)), 3 * 1024) == 3


def deployment(args: list[str], **limits: str) -> dict[str, object]:
    container = {"args": args, "resources": {"limits": limits}}
    return {"spec": {"template": {"spec": {"containers": [container]}}}}


def test_a_deployment_tells_its_engines_limit() -> None:
    """One of an earlier chart has 64, and gets no more."""
    gpu = {"nvidia.com/gpu": "1", "memory": "64Gi"}
    assert places_of(Runtime(), deployment([], **gpu)) == Places(256, 1024, follows=True)
    earlier = deployment(["--max-num-seqs=64"], **gpu)
    assert places_of(Runtime(), earlier) == Places(64, 64, follows=True)
    assert places_of(Runtime(), deployment([], memory="8Gi")).most == 64
    assert places_of(Runtime(), None).most == 64


def test_an_endpoint_has_its_places() -> None:
    model = Model(source="m", endpoint={"url": "http://127.0.0.1:1/v1"})
    assert endpoint("m", model, Runtime()).places == Places(64, 64, follows=True)


@pytest.mark.parametrize(
    ("runtime", "said"),
    [
        ({}, "256 on GPUs at first, up to 1,024 while none waits and none is preempted, 64 on CPU"),
        ({"engines": Engines(max_num_seqs=512)}, "512 at our engines (runtime.engines.max_num_seq"),
        ({"calls": Calls(in_flight=7)}, "at each server: 7 (runtime.calls.in_flight); 4 conversa"),
        ({"calls": Calls(window=9)}, "9 conversations in progress (runtime.calls.window)"),
    ],
)
def test_the_plan_says_what_it_assumes(runtime: dict[str, object], said: str) -> None:
    recipe = load_file(ROOT / "pipelines" / "recipes" / "paper-llama.yaml").recipe
    asked = recipe.model_copy(update={"runtime": recipe.runtime.model_copy(update=runtime)})
    assert said in "\n".join(assumptions(asked, []))
