"""Preflight on the machine that runs the stages: engines, models, packages, cores and disks."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import Any

import pytest

from moaa.engines import devices
from moaa.engines.devices import Hardware
from moaa.errors import EngineError, TrainError
from moaa.preflight.finding import Finding
from moaa.recipe.schema import Launcher
from moaa.stages.table import STAGES_ENV
from tests.support.engine_server import EngineServer
from tests.support.preflighting import wrong


def fixes(found: list[Finding], check: str) -> list[str]:
    return [finding.fix for finding in found if finding.check == check and not finding.ok]


@pytest.fixture
def endpoint():
    with EngineServer("smollm2") as server:
        yield f"models.smollm2.endpoint={{url: '{server.url}'}}"


def test_an_endpoint_without_a_system_role_is_found_before_a_row_is_paid(look) -> None:
    with EngineServer("smollm2") as server:

        def has_system(body: dict[str, Any]) -> bool:
            return bool(body["messages"][0]["role"] == "system")

        server.refuse, server.refusal = has_system, "System role not supported"
        endpoint = f"models.smollm2.endpoint={{url: '{server.url}'}}"
        (detail,) = wrong(look(endpoint), "endpoint")
        assert "set models.smollm2.system_role: false" in detail
        assert wrong(look(endpoint, "models.smollm2.system_role=false"), "endpoint") == []


def test_an_endpoint_that_thinks_first_is_right_with_a_system_message_too(look) -> None:
    """Before, one token was enough for the first question and too few for the second one."""
    with EngineServer("smollm2") as server:
        server.refuse = lambda body: bool(body["max_tokens"] == 1)
        server.refusal = "max_tokens or model output limit was reached"
        endpoint = f"models.smollm2.endpoint={{url: '{server.url}'}}"
        assert wrong(look(endpoint), "endpoint") == []
        assert any(body["messages"][0]["role"] == "system" for body in server.requests)


def test_a_run_on_endpoints_needs_an_engine_for_what_it_trains(
    look, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert wrong(look(endpoint), "engine") == []
    monkeypatch.setattr(devices, "_installed", lambda name: False)
    found = look(endpoint)
    assert ["no engine can be started" in detail for detail in wrong(found, "engine")] == [True]
    (fix,) = fixes(found, "engine")
    assert "the models that the run trains always need it" in fix
    monkeypatch.setenv(STAGES_ENV, "preflight,prompts,generate,sft")
    assert wrong(look(endpoint), "engine") == [], "it ends before anything trained is served"
    assert len(wrong(look(), "engine")) == 1, "without an endpoint, generate needs an engine"


def test_a_model_wants_more_gpus_than_there_are(
    look, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "hardware", lambda: Hardware("cuda", ("0", "1")))
    assert wrong(look(endpoint, "models.smollm2.tensor_parallel=2"), "engine") == []
    (detail,) = wrong(look(endpoint, "models.smollm2.tensor_parallel=4"), "engine")
    assert "'smollm2' needs 4 GPUs (tensor_parallel), but 2 are visible" in detail


@pytest.mark.parametrize(("local", "in_pods"), [(True, False), (False, False), (False, True)])
def test_engines_of_kind_endpoint_cannot_serve_what_the_run_trains(
    look, endpoint: str, local: bool, in_pods: bool
) -> None:
    found = look(endpoint, "runtime.engines.kind=endpoint", local=local, in_pods=in_pods)
    ((detail,), (fix,)) = wrong(found, "engine"), fixes(found, "engine")
    assert "sample and evaluate must serve the models that the run trains" in detail
    assert fix.startswith("set runtime.engines.kind to 'process'")


def test_engines_of_kind_endpoint_do_for_a_run_that_ends_before(
    look, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(STAGES_ENV, "preflight,prompts,generate")
    assert wrong(look(endpoint, "runtime.engines.kind=endpoint"), "engine") == []
    (detail,) = wrong(look("runtime.engines.kind=endpoint"), "engine")
    assert "'endpoint', but these models have no `endpoint`: smollm2" in detail


@pytest.mark.parametrize(
    "source", ["/models/nowhere", "./nowhere", "/models/nowhere.gguf", "~/no/such/model"]
)
def test_a_model_that_is_not_there(look, source: str) -> None:
    (detail,) = wrong(look(f"models.smollm2.source={source}"), "model")
    assert f"model source '{source}': there is no config.json in" in detail
    assert wrong(look(f"models.smollm2.source={source}", local=False), "model") == [], (
        "each stage has a pod of its own"
    )
    elsewhere = ("runtime.engines.kind=kubernetes", "runtime.launcher.kind=trainer")
    assert wrong(look(f"models.smollm2.source={source}", *elsewhere), "model") == [], (
        "only other pods load it"
    )


def test_a_target_with_an_endpoint_is_trained_from_its_source(
    look, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(wrong(look(endpoint, "models.smollm2.source=/models/nowhere"), "model")) == 1
    monkeypatch.setenv(STAGES_ENV, "preflight,prompts,generate")
    assert wrong(look(endpoint, "models.smollm2.source=/models/nowhere"), "model") == []


def test_a_package_that_other_images_must_hold(look) -> None:
    """Preflight's own task runs in the core image, which serves and trains nothing."""
    absent = "models.smollm2.source=package:none/such.gguf"
    said = (
        "smollm2: package:none/such.gguf is not in this image; "
        "the images that serve and train need it"
    )
    runner = ("runtime.engines.kind=kubernetes", "runtime.launcher.kind=trainer")
    for seen in (look(absent, local=False), look(absent, *runner)):
        assert [(each.word, each.detail) for each in seen if each.check == "model"] == [("?", said)]
    (detail,) = wrong(look(absent), "model")
    assert "package:none/such.gguf is not in " in detail
    assert "(MOAA_PACKAGES), nor in a package of" in detail


def test_models_that_are_there(look, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").touch()
    (tmp_path / "model.gguf").touch()
    for name in ("model", "model.gguf"):
        found = [
            finding
            for finding in look(f"models.smollm2.source={tmp_path}/{name}")
            if finding.check == "model"
        ]
        assert [(finding.ok, finding.detail) for finding in found] == [
            (True, f"smollm2: {tmp_path}/{name} exists")
        ]
    (detail,) = wrong(
        look(f"models.smollm2.source={tmp_path}/model.gguf", "models.smollm2.revision=abc"), "model"
    )
    assert "only hub models have revisions" in detail
    at_commit = look(f"models.smollm2.revision={'a' * 40}")
    assert not [finding for finding in at_commit if finding.check == "model"], (
        "nothing was looked at: it is a commit of the hub"
    )


BATCH = ("sft.global_batch=40", "dpo.global_batch=40")


def numbers(found: list[Finding]) -> list[str]:
    """What is wrong with the launcher's numbers; whether torch is installed is another matter."""
    return [detail for detail in wrong(found, "training") if detail.startswith("runtime.launcher")]


@pytest.mark.parametrize(
    ("device", "gpus", "ranks", "said"),
    [
        ("cpu", "", 4, ""),
        ("auto", "0,1", 4, "runtime.launcher.ranks is 4, but this machine has 2 GPUs"),
    ],
)
def test_too_many_ranks_are_a_finding_of_runs_that_train_here(
    look, monkeypatch: pytest.MonkeyPatch, device: str, gpus: str, ranks: int, said: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    sets = (*BATCH, f"runtime.launcher.device={device}", f"runtime.launcher.ranks={ranks}")
    assert [detail.split(". ")[0] for detail in numbers(look(*sets))] == ([said] if said else [])
    assert numbers(look(*sets, local=False)) == []
    assert numbers(look(*sets, "runtime.launcher.kind=job")) == []
    monkeypatch.setenv(STAGES_ENV, "preflight,prompts,generate")
    assert numbers(look(*sets)) == []


@pytest.mark.parametrize("changed", [{"ranks": 5}, {"nodes": 2}])
def test_what_the_launcher_refuses_preflight_finds_in_the_same_words(look, changed) -> None:
    from moaa.train import process

    sets = [f"runtime.launcher.{name}={value}" for name, value in changed.items()]
    (detail,) = numbers(look(*BATCH, *sets))
    launcher = Launcher(**changed)

    def check() -> None:
        process.check_nodes(launcher)
        process.check_ranks(launcher.ranks, launcher.device)

    with pytest.raises(TrainError) as caught:
        check()
    assert str(caught.value) == detail


def test_the_engine_error_is_the_one_that_sample_would_end_with(
    look, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "_installed", lambda name: False)
    with pytest.raises(EngineError) as caught:
        devices.hardware()
    assert wrong(look(), "engine") == [str(caught.value)]


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, int]:
    """GiB free by the name of a folder, all of them disks of their own; every other place has
    plenty."""
    gib: dict[str, int] = {}
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "tmp"))
    monkeypatch.setenv("MOAA_CACHE", str(tmp_path / "cache" / "not" / "made" / "yet"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in ("tmp", "cache", "hub"):
        (tmp_path / name).mkdir()

    class Usage:
        def __init__(self, folder: Path) -> None:
            self.free = gib.get(Path(folder).name, 1000) << 30

    monkeypatch.setattr("shutil.disk_usage", Usage)
    real = Path.stat

    def stat(path: Path, **more: bool) -> os.stat_result:
        """Each folder is a disk of its own."""
        found = real(path, **more)
        return os.stat_result((*found[:2], zlib.crc32(path.name.encode()), *found[3:]))

    monkeypatch.setattr(Path, "stat", stat)
    return gib


@pytest.mark.parametrize(
    ("name", "gib", "source", "right"),
    [
        ("tmp", 4, "some/model", False),
        ("cache", 4, "some/model", False),
        ("hub", 4, "some/model", False),
        ("hub", 5, "some/model-8B", True),
        ("tmp", 14, "some/model-8B", False),
        ("tmp", 15, "some/model-8B", True),
        ("cache", 14, "some/model-8B", False),
    ],
)
def test_room_on_each_disk(
    look, free: dict[str, int], name: str, gib: int, source: str, right: bool
) -> None:
    free[name] = gib
    found = look(f"models.smollm2.source={source}")
    assert [f"{gib} GiB free for" in detail for detail in wrong(found, "disk")] == (
        [] if right else [True]
    )


def test_room_where_others_serve_and_train(look, free: dict[str, int]) -> None:
    free |= {"cache": 1, "hub": 1, "tmp": 6}
    assert wrong(look("models.smollm2.source=some/model-8B", local=False), "disk") == []
    free |= {"cache": 6, "hub": 6}
    assert (
        wrong(look("models.smollm2.source=some/model-8B", "runtime.launcher.kind=job"), "disk")
        == []
    )


def test_checkpoints_that_will_not_fit_are_announced(look, free: dict[str, int]) -> None:
    free["tmp"] = 100
    (said,) = (
        finding
        for finding in look("models.smollm2.source=some/model-8B")
        if "/tmp)" in finding.detail
    )
    assert said.ok
    assert "checkpoints of about 105 GiB may not fit" in said.detail
