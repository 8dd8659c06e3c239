"""What stands at the same address but is not the same is noticed: it is never silently reused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from moaa.engines.server import Spec, command
from moaa.errors import HubAway, RecipeError
from moaa.preflight import inputs
from moaa.preflight.finding import Finding
from moaa.preflight.run import Run
from moaa.prompts import sources
from moaa.recipe.load import load_file
from moaa.recipe.schema import Recipe, Source
from moaa.stages.evaluate import evaluate
from moaa.stages.generate import generate
from moaa.stages.prompts import prompts
from moaa.stages.sft import sft
from moaa.stages.table import GENERATE, PROMPTS, SFT
from moaa.store import Missing
from moaa.weights import content, local
from tests.support.hub import Hub, serve
from tests.support.memory_store import MemoryStore
from tests.support.paths import DEMO

FIRST, SECOND = "a" * 40, "b" * 40


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with serve() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


def rows(*texts: str) -> bytes:
    return "".join(json.dumps({"prompt": text}) + "\n" for text in texts).encode()


def recipe(*sets: str) -> Recipe:
    return load_file(DEMO, sets).recipe


def with_prompts(store: MemoryStore) -> Recipe:
    for name, text in (("e", "Why is it dark?"), ("p", "What is yeast?"), ("s", "Who was Kant?")):
        store.objects.setdefault(f"s3://moaa/p/{name}.jsonl", rows(text))
    return recipe(
        'prompts.evaluation=[{"source": "s3://moaa/p/e.jsonl"}]',
        'prompts.preference=[{"source": "s3://moaa/p/p.jsonl"}]',
        'prompts.sft=[{"source": "s3://moaa/p/s.jsonl"}]',
    )


def test_a_changed_prompt_file_on_s3_is_not_taken_for_the_old_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    store = MemoryStore()
    given = with_prompts(store)
    first, _ = prompts.run(given, store, {})
    again, reused = prompts.run(given, store, {})
    assert (reused, again.fingerprint) == (True, first.fingerprint)
    store.objects["s3://moaa/p/s.jsonl"] = rows("Who was Kant?", "Who was Hume?")
    second, reused = prompts.run(given, store, {})
    assert not reused
    assert second.fingerprint != first.fingerprint
    assert second.rows["sft"] == 2


def test_of_a_folder_on_s3_a_new_file_is_noticed() -> None:
    store = MemoryStore()
    source = Source(source="s3://moaa/folder")
    store.objects["s3://moaa/folder/a.jsonl"] = rows("a")
    before = sources.content(source, store)
    store.objects["s3://moaa/folder/README.md"] = b"not read"
    assert sources.content(source, store) == before
    store.objects["s3://moaa/folder/b.jsonl"] = rows("b")
    assert sources.content(source, store) != before


def test_a_prompt_file_that_is_gone_is_an_error_not_unchanged() -> None:
    store = MemoryStore()
    given = with_prompts(store)
    prompts.run(given, store, {})
    del store.objects["s3://moaa/p/s.jsonl"]
    with pytest.raises(Missing, match=r"s3://moaa/p/s\.jsonl' does not exist"):
        prompts.run(given, store, {})


def test_a_file_that_changes_while_it_is_read_is_not_filed_under_the_old_content(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = MemoryStore()
    given = with_prompts(store)
    download = store.download

    def changing(uri: str, path: Path) -> None:
        store.objects[uri] += rows("One more?")
        download(uri, path)

    monkeypatch.setattr(store, "download", changing)
    with pytest.raises(RecipeError, match="changed while it was read"):
        prompts.run(given, store, {})
    assert not [uri for uri in store.objects if uri.endswith("manifest.json")]


def test_a_moved_revision_of_a_hub_data_set_is_noticed(hub: Hub) -> None:
    source = Source(source="hub:owner/name", revision="v1")
    hub.commits["datasets/owner/name"] = FIRST
    assert sources.content(source, MemoryStore()) == FIRST
    hub.commits["datasets/owner/name"] = SECOND
    assert sources.content(source, MemoryStore()) == SECOND
    assert hub.asked[0].startswith("/api/datasets/owner/name/revision/v1")


def test_a_commit_never_moves_and_is_not_asked_for(hub: Hub) -> None:
    source = Source(source="hub:owner/name", revision=FIRST)
    assert sources.content(source, MemoryStore()) == FIRST
    assert hub.asked == []


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_hub_that_cannot_say_it_is_an_error_not_unchanged(hub: Hub, status: int) -> None:
    hub.commits["datasets/owner/name"] = status
    with pytest.raises(HubAway, match=r"the hub \(127\.0\.0\.1\) does not answer"):
        sources.content(Source(source="hub:owner/name"), MemoryStore())


def test_a_hub_that_is_not_there_is_an_error_of_one_line(
    monkeypatch: pytest.MonkeyPatch, hub: Hub
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://user:secret@127.0.0.1:9")
    with pytest.raises(HubAway) as caught:
        sources.content(Source(source="hub:owner/name"), MemoryStore())
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["owner/unknown", "not a name at all!"])
def test_an_unknown_data_set_is_the_users_to_correct(hub: Hub, name: str) -> None:
    with pytest.raises(RecipeError, match="hub") as caught:
        sources.content(Source(source=f"hub:{name}"), MemoryStore())
    assert "\n" not in str(caught.value)


def test_offline_it_is_the_commit_in_the_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("moaa.weights.revisions.cache", lambda: tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "none"))
    source = Source(source="hub:owner/name")
    with pytest.raises(RecipeError, match="HF_HUB_OFFLINE is set"):
        sources.content(source, MemoryStore())
    refs = tmp_path / "datasets--owner--name" / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text(FIRST)
    assert sources.content(source, MemoryStore()) == FIRST


def test_a_single_file_of_a_data_set_is_read_at_its_commit(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    hub.commits["datasets/owner/name"] = FIRST
    hub.files[f"datasets/owner/name/resolve/{FIRST}/data/rows.csv"] = b'question,n\n"a, b",1\n'
    source = Source(source="hub:owner/name/data/rows.csv")
    assert sources.content(source, MemoryStore()) == FIRST
    assert list(sources.rows(source, MemoryStore())) == [{"question": "a, b", "n": "1"}]
    gone = Source(source="hub:owner/name/other.json", revision=SECOND)
    with pytest.raises(RecipeError, match="Check the name of the file"):
        list(sources.rows(gone, MemoryStore()))


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
    run = Run(given, MemoryStore(), [PROMPTS, GENERATE, SFT], local=True)
    found = list(inputs.prompts_and_hub_models(run))
    assert [(each.check, each.ok) for each in found] == [("hub", False)]
    assert "this recipe has 4 sources on the hub" in found[0].detail
    assert len(hub.asked) == 1
    assert capfd.readouterr() == ("", "")


def test_preflight_asks_for_the_model_of_the_hub(hub: Hub) -> None:
    given = recipe(*HUB_MODEL)
    run = Run(given, MemoryStore(), [SFT], local=True)
    found: list[Finding] = []
    for hub.commits["models/owner/model"] in (404, FIRST):
        found += [each for each in inputs.prompts_and_hub_models(run) if each.check == "model"]
    assert [each.ok for each in found] == [False, True]
    assert "the hub does not give the model 'owner/model'" in found[0].detail


def test_an_error_of_the_hubs_libraries_is_one_readable_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Only OSError and ValueError were: a data set made by a script ended in a traceback."""

    def fails(*args: object, **options: object) -> None:
        raise RuntimeError("Dataset scripts are no longer supported,\nbut found name.py")

    monkeypatch.setattr("datasets.load_dataset", fails)
    source = Source(source=f"hub:{tmp_path}")
    with pytest.raises(RecipeError, match="refs/convert/parquet") as caught:
        list(sources.rows(source, MemoryStore()))
    assert "\n" not in str(caught.value)


def test_a_configuration_of_a_data_set_can_be_named(tmp_path: Path) -> None:
    card = "---\nconfigs:\n" + "".join(
        f"- config_name: {name}\n  data_files: {name}/train.jsonl\n" for name in ("main", "other")
    )
    (tmp_path / "README.md").write_text(f"{card}---\n")
    for name in ("main", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.jsonl").write_bytes(rows(f"A question of {name}?"))
    source = Source(source=f"hub:{tmp_path}")
    with pytest.raises(RecipeError, match="Set `config` of this source") as caught:
        list(sources.rows(source, MemoryStore()))
    assert "'main', 'other'" in str(caught.value)
    named = source.model_copy(update={"config": "other"})
    assert list(sources.rows(named, MemoryStore())) == [{"prompt": "A question of other?"}]


def test_unused_new_fields_of_a_source_change_no_fingerprint() -> None:
    assert "config" not in Source(source="a").model_dump(mode="json")
    assert "revision" not in Source(source="a").model_dump(mode="json")
    assert Source(source="a", config="b").model_dump(mode="json")["config"] == "b"
