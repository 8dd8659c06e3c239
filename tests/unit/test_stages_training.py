"""What a stage that trains passes to its launcher, and what it keeps of the result."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from moaa.ledger import Ledger
from moaa.recipe.schema import Dpo, Launcher, Model, Runtime, Sft, StoreAddress
from moaa.stages import dpo, serving, sft, training
from moaa.train import launch
from tests.support.memory_store import MemoryStore

RESULT = {"files": [], "facts": {"rows": 5, "dropped": {"too_long": 2, "identical": 1}}}


@pytest.mark.parametrize(("numbers", "kind"), [(Sft(epochs=2), "sft"), (Dpo(beta=0.3), "dpo")])
def test_the_job_is_the_recipes_and_every_row_is_counted(numbers, kind, monkeypatch):
    launched: list[Any] = []
    adopted: list[Any] = []

    def run(each, *_):
        launched.append(each)
        return RESULT

    monkeypatch.setattr(launch, "run", run)
    recipe = SimpleNamespace(
        runtime=Runtime(
            launcher=Launcher(device="cpu", checkpoint_minutes=7), max_rejected_share=0.3
        ),
        target="t",
        models={
            "t": Model(source="b", engine_args=("--default-chat-template-kwargs.think=false",))
        },
        store=StoreAddress(root="s3://b/r", access_key_env="MY_ID"),
        pools={},
    )
    context: Any = SimpleNamespace(
        recipe=recipe,
        store=None,
        ledger=Ledger(),
        progress=None,
        out=SimpleNamespace(uri="s3://b/r/x/0123456789abcdef", adopt=adopted.append),
        facts={},
    )
    data: Any = SimpleNamespace(uri="s3://b/r/data")
    training.train(context, numbers, base="b", revision="c1", data=data)
    (job,) = [each.job for each in launched]
    assert (job.kind, job.numbers, job.base, job.revision) == (kind, numbers, "b", "c1")
    assert (job.data, job.output, job.store) == (data.uri, context.out.uri, recipe.store)
    assert (job.device, job.checkpoint_minutes) == ("cpu", 7)
    assert (job.max_rejected_share, job.template_variables) == (0.3, {"think": False})
    assert adopted == [[]]
    assert context.facts == RESULT["facts"]
    assert context.ledger.rows == {"in": 8, "kept": 5}
    assert context.ledger.rejected == {"too_long": 2, "identical": 1}


def recipe(**of_target):
    return SimpleNamespace(
        target="t", models={"t": Model(source="b", **of_target)}, sft=Sft(), dpo=Dpo()
    )


@pytest.mark.parametrize("stage", [sft, dpo])
def test_only_arguments_that_change_the_trained_text_enter_a_trainings_fingerprint(stage):
    without = stage.part_of(recipe()).model_dump(mode="json")
    assert "template_args" not in str(without)
    other = ("--max-num-seqs", "4", "--max-model-len", "64")
    assert stage.part_of(recipe(engine_args=other)).model_dump(mode="json") == without
    given = ("--default-chat-template-kwargs", '{"enable_thinking": false}')
    found = stage.part_of(recipe(engine_args=given)).model_dump(mode="json")
    assert list(given) in str_values(found)


@pytest.mark.parametrize("stage", [sft, dpo])
def test_another_text_in_the_file_of_the_chat_template_is_another_training(
    stage, tmp_path, monkeypatch
):
    monkeypatch.setattr("moaa.weights.content.of_source", lambda *_: None)
    file = tmp_path / "chat.jinja"
    given = recipe(engine_args=("--chat-template", str(file)))
    found = []
    for text in ("{{ one }}", "{{ two }}"):
        file.write_text(text)
        found.append(stage.content_of(given, MemoryStore()))
    assert found[0] != found[1]
    inline = recipe(engine_args=("--chat-template", "{{ one }}"))
    assert stage.content_of(inline, MemoryStore()) == stage.content_of(recipe(), MemoryStore())


def str_values(part):
    """Every list in a part, at any depth."""
    if isinstance(part, dict):
        return [found for each in part.values() for found in str_values(each)]
    if isinstance(part, list):
        return [part, *(found for each in part for found in str_values(each))]
    return []


@pytest.mark.parametrize(
    ("facts", "of_recipe", "asked_so"),
    [
        ({}, True, True),
        ({"system_role": False}, True, False),
        ({"system_role": True}, False, False),
    ],
)
def test_a_model_that_was_trained_without_a_system_role_is_asked_without_one(
    facts, of_recipe, asked_so
):
    manifest: Any = SimpleNamespace(stage="sft", facts=facts)
    artifact: Any = SimpleNamespace(uri="s3://b/r/sft/3f", manifest=manifest)
    name, model = serving.tuned(Model(source="b", system_role=of_recipe), "m", artifact)
    assert (name, model.source, model.system_role) == ("m+sft", artifact.uri, asked_so)
