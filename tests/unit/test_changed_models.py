"""Weights, tokenizers and templates that change are not taken for the old ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from moaa.engines.server import Spec, command
from moaa.preflight import inputs
from moaa.preflight.finding import Finding
from moaa.preflight.run import PlannedRun
from moaa.prompts import sources
from moaa.stages.evaluate import evaluate
from moaa.stages.generate import generate
from moaa.stages.sft import sft
from moaa.stages.table import GENERATE, PROMPTS, SFT
from moaa.weights import content, local
from tests.support.changing import FIRST, SECOND, recipe
from tests.support.hub import Hub
from tests.support.memory_store import MemoryStore

HUB_MODEL = ("models.smollm2.source=owner/model", "models.smollm2.max_model_len=512")


@pytest.mark.parametrize("stage", [generate, sft, evaluate])
def test_a_moved_revision_of_a_hub_model_is_noticed_and_that_commit_is_used(
    hub: Hub, stage: object
) -> None:
    given = recipe(*HUB_MODEL, "runtime.engines.kind=process")
    seen = []
    for hub.commits["models/owner/model"] in (FIRST, SECOND):
        seen.append(stage.content(given, MemoryStore()))  # type: ignore[attr-defined]
    assert [each["models.smollm2"] for each in seen] == [FIRST, SECOND]
    assert content.pinned(given, seen[0]).models["smollm2"].revision == FIRST


def test_a_tokenizer_that_moves_is_noticed_and_that_commit_is_used(hub: Hub) -> None:
    """It is another repository than the model's, which has commits of its own."""
    hub.commits["models/owner/model"] = FIRST
    given = recipe(
        *HUB_MODEL,
        "models.smollm2.engine_args=[--tokenizer, owner/words]",
        "runtime.engines.kind=process",
    )
    seen = []
    for hub.commits["models/owner/words"] in (FIRST, SECOND):
        seen.append(generate.content(given, MemoryStore()))
    assert [each["models.smollm2: owner/words"] for each in seen] == [FIRST, SECOND]
    model = content.pinned(given, seen[1]).models["smollm2"]
    spec = Spec("smollm2", model.source, model, given.runtime.engines, "cpu", ("0",))
    line, _ = command(spec, 1)
    assert line[line.index("--revision") + 1] == FIRST
    assert "--tokenizer-revision" not in line, "of the model's repository"
    assert line[-1] == f"--tokenizer-revision={SECOND}"
    again = {**given.models, "smollm2": model}
    pinned = generate.content(given.model_copy(update={"models": again}), MemoryStore())
    assert pinned["models.smollm2: owner/words"] == SECOND


@pytest.mark.parametrize("form", ["words={}", '{{"name": "words", "path": "{}"}}'])
def test_an_adapter_or_folder_that_changes_is_noticed(
    hub: Hub, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOAA_CACHE", str(tmp_path / "cache"))
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    hub.commits["models/owner/lora"] = FIRST

    def held() -> dict[str, str]:
        loras = [form.format("owner/lora"), form.format(adapter)]
        args = json.dumps(["--lora-modules", *loras, "--hf-config-path", str(adapter)])
        return generate.content(
            recipe(f"models.smollm2.engine_args={args}", "runtime.engines.kind=process"),
            MemoryStore(),
        )

    seen = [held()]
    (adapter / "adapter_model.safetensors").write_text("b")
    seen.append(held())
    hub.commits["models/owner/lora"] = SECOND
    seen.append(held())
    assert len({json.dumps(each, sort_keys=True) for each in seen}) == 3
    assert "models.smollm2: owner/lora" in seen[0]


def test_a_model_behind_an_endpoint_is_not_asked_for_at_the_hub(hub: Hub) -> None:
    given = recipe(*HUB_MODEL, "models.smollm2.endpoint.url=http://127.0.0.1:1/v1")
    assert generate.content(given, MemoryStore()) == {}
    assert hub.asked == []


def test_new_weights_below_the_same_s3_address_are_noticed_and_fetched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MOAA_CACHE", str(tmp_path))
    store = MemoryStore()
    given = recipe("models.smollm2.source=s3://moaa/weights")
    store.objects["s3://moaa/weights/config.json"] = b"{}"
    seen, fetched = [], []
    for weights in (b"old weights", b"new weights"):  # of the same size, as weights are
        store.objects["s3://moaa/weights/model.safetensors"] = weights
        seen.append(generate.content(given, store))
        folder = Path(local.resolve("s3://moaa/weights", store))
        fetched.append((folder / "model.safetensors").read_bytes())
    assert seen[0] != seen[1]
    assert fetched == [b"old weights", b"new weights"]


def test_a_changed_folder_or_chat_template_here_is_noticed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MOAA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MOAA_ALLOW_FILES", "1")
    (tmp_path / "model").mkdir()
    (tmp_path / "chat.jinja").write_text("a")
    given = recipe(
        f"models.smollm2.source={tmp_path / 'model'}",
        f'models.smollm2.engine_args=["--chat-template={tmp_path / "chat.jinja"}"]',
        "runtime.engines.kind=process",
    )
    seen = [generate.content(given, MemoryStore())]
    for path in (tmp_path / "model" / "model.safetensors", tmp_path / "chat.jinja"):
        path.write_text("b")
        seen.append(generate.content(given, MemoryStore()))
    assert len({json.dumps(each, sort_keys=True) for each in seen}) == 3


def test_a_package_is_part_of_the_image_and_changes_no_fingerprint() -> None:
    assert generate.content(recipe(), MemoryStore()) == {}


def test_preflight_says_once_that_the_hub_is_away_and_does_not_ask_it_again(
    monkeypatch: pytest.MonkeyPatch, hub: Hub, capfd: pytest.CaptureFixture[str]
) -> None:
    hub.commits = {"datasets/owner/name": 503, "models/owner/model": 503}
    sets = [f'prompts.{name}=[{{"source": "hub:owner/name"}}]' for name in sources.SETS]
    given = recipe(*HUB_MODEL, *sets)
    run = PlannedRun(given, MemoryStore(), [PROMPTS, GENERATE, SFT], local=True)
    found = list(inputs.prompts_and_hub_models(run))
    assert [(each.check, each.ok) for each in found] == [("hub", False)]
    assert "this recipe has 4 sources on the hub" in found[0].detail
    assert len(hub.asked) == 1
    assert capfd.readouterr() == ("", "")


def test_preflight_asks_for_the_model_of_the_hub(hub: Hub) -> None:
    given = recipe(*HUB_MODEL)
    run = PlannedRun(given, MemoryStore(), [SFT], local=True)
    found: list[Finding] = []
    for hub.commits["models/owner/model"] in (404, FIRST):
        found += [each for each in inputs.prompts_and_hub_models(run) if each.check == "model"]
    assert [each.ok for each in found] == [False, True]
    assert (
        "'owner/model' is no folder here, so it is taken for a hub id, and the hub does not"
        in found[0].detail
    )
