"""What a model card says of where the model came from, and of what it does worse."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from moaa import registry
from moaa.artifacts import Artifact
from moaa.recipe.load import load_file
from moaa.registry import Version
from moaa.registry.weaknesses import weaknesses
from tests.support.memory_store import MemoryStore
from tests.support.paths import PAPER
from tests.support.publishing import inputs

PUBLISHING = ("gate={}", "publish={}", "publish.accept_licence_conflict=a test")


def card(*sets: str, candidate: str = "dpo", system_role: bool = True) -> str:
    store = MemoryStore()
    given = inputs(store)
    recipe = load_file(PAPER, [*PUBLISHING, *sets]).recipe
    decision = {**given["decision"].manifest.facts["decision"], "candidate": candidate}
    found = registry.findings(recipe)
    manifest = given[candidate].manifest.model_copy(update={"facts": {"system_role": system_role}})
    model = Artifact(store, manifest)
    version = Version("aligned", "0a1b", f"{store.root}/models/aligned/0a1b")
    rounds = registry.rounds(recipe, model, version, "r")
    lineage = registry.lineage(recipe, "a: b", model, given["scores"], decision, found, rounds)
    return registry.card(recipe, version, lineage, found)


def metadata(text: str) -> Any:
    return yaml.safe_load(text.split("---\n")[1])


def test_the_hub_finds_the_base_model_and_the_data_sets_by_their_names() -> None:
    found = metadata(card("prompts.sft.0.source=hub:owner/chats/data/one.jsonl"))
    assert found["base_model"] == "meta-llama/Llama-3.1-8B-Instruct"
    assert found["base_model_relation"] == "finetune"
    assert "owner/chats" in found["datasets"]
    assert (found["license"], found["license_name"][:9]) == ("other", "llama3.1-")
    args = found["model-index"][0]["results"][0]["metrics"][0]["args"]
    assert args == {"low": 0.55, "high": 0.65, "n": 500, "judge": "a"}


def test_terms_of_teachers_that_pass_on_are_part_of_the_licence() -> None:
    found = metadata(card())
    assert found["license_name"] == "llama3.1-and-gemma-and-tongyi-qianwen"
    assert found["license_link"].startswith("https://www.llama.com/llama3_1/")
    free = [f"models.{name}.licence=mit" for name in load_file(PAPER).recipe.models]
    assert metadata(card(*free))["license"] == "mit"
    assert "license_name" not in metadata(card(*free))


def test_a_licence_is_linked_and_a_forbidden_use_cites_its_clause() -> None:
    text = card()
    assert "[Llama 3.1 Community License](https://www.llama.com/llama3_1/license/)" in text
    assert "conflict (5.b: no output may be used to improve any other large" in text


def test_it_says_where_else_model_and_data_are() -> None:
    assert "is a data set" not in card()
    data = "publish.data=true"
    assert "All of it is a data set: `s3://memory/root/datasets/aligned/0a1b`." in card(data)
    hub = "publish.hub={repository: me/aligned, data_repository: me/data}"
    text = card(data, hub, "runtime.secret_envs=[HF_TOKEN]")
    assert "it is `me/aligned`, revision `0a1b`" in text
    assert "me/data" in metadata(text)["datasets"]


def test_who_asks_a_model_without_a_system_role_is_told_so() -> None:
    assert "without a system role" not in card()
    assert "without a system role" in card(system_role=False)


def test_a_model_after_sft_alone_is_not_said_to_be_after_dpo() -> None:
    text = card(candidate="sft")
    assert "SFT on 3 conversations. Made by" in text
    assert "sft" in metadata(text)["tags"]


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (["generate.source=teacher"], "answered by "),
        (["generate.source=original"], "with the answers of the data set itself."),
        (["generate.source=all"], "answered by each of "),
        (["generate.source=best"], "each the best answer of a mixture of "),
    ],
)
def test_it_says_who_wrote_the_data(sets: list[str], said: str) -> None:
    assert f"3 conversations: {said}" in card(*sets)


def lineage(
    findings: list[dict[str, Any]] = [],  # noqa: B006
    differences: list[dict[str, Any]] = [],  # noqa: B006
) -> dict[str, Any]:
    benchmark = {"title": "GSM8K", "differences": differences, "failed": ""}
    decision = {"candidate": "dpo", "findings": findings}
    return {"scores": {"gsm8k": benchmark}, "decision": decision}


def difference(value: float, entrant: str = "dpo") -> dict[str, Any]:
    return {
        "entrant": entrant,
        "against": "base",
        "value": value,
        "low": value - 0.02,
        "high": value + 0.02,
        "n": 500,
    }


def finding(rule: str, value: float | None) -> dict[str, Any]:
    estimate = None if value is None else {"value": value}
    return {"rule": rule, "about": f"it is {value}", "estimate": estimate}


def test_reasoning_that_is_worse_is_a_weakness_also_if_the_gate_allows_it() -> None:
    assert weaknesses(lineage(differences=[difference(-0.01), difference(-0.3, "sft")])) == [
        "GSM8K: -1.0 points against base (-3.0 to +1.0, n 500)"
    ]


def test_reasoning_that_nobody_measured_is_not_called_as_good_as_before() -> None:
    (said,) = weaknesses(lineage(differences=[difference(0.3, "sft")]))
    assert said.startswith("Whether it reasons as well as before is not known")


def test_longer_and_broken_answers_are_weaknesses() -> None:
    worse = [finding("length", 1.1), finding("repeated answers", 0.01)]
    better = [finding("length", 0.9), finding("truncated answers", 0.0), finding("wins", 0.6)]
    none = [finding("empty answers", None)]
    found = weaknesses(lineage([*worse, *better, *none], [difference(0.0)]))
    assert found == ["Length: it is 1.1", "Repeated answers: it is 0.01"]
