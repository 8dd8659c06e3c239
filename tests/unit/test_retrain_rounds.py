"""`moaa retrain` of a recipe with rounds: what is compared, and how it ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from moaa import records
from moaa.recipe.load import Loaded, text_of
from moaa.registry import Version
from moaa.registry.production import ProductionEntry
from moaa.retrain import inputs
from moaa.retrain.inputs import CODE, RECIPE
from moaa.retrain.outcome import RetrainOutcome, of_run
from tests.support.memory_store import MemoryStore
from tests.support.records import record
from tests.support.retraining import (
    Command,
    command,
    failing,
    inputs_of,
    leave,
    promoted,
    put_version,
)
from tests.support.several_rounds import Rounds

pytestmark = pytest.mark.xdist_group("kfp")


def entry(version: Version) -> ProductionEntry:
    return ProductionEntry(version=version.version, uri=version.uri, why="it has won")


def test_the_recipe_of_the_first_round_is_compared_not_that_of_the_winner(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rounds = Rounds(monkeypatch)
    recipe = rounds.recipe
    third = [rounds.publish() for _ in range(3)][-1]
    found, text = inputs.of_version(entry(third), rounds.store)
    assert text == text_of(recipe)
    assert sorted(found) == [CODE, RECIPE], "a winner is no input: the run itself made it"
    now = inputs.current(recipe, (), rounds.store)
    assert inputs.same(found, now)


def test_without_a_version_of_the_first_round_the_winners_own_recipe_is_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It differs: nothing is known to be unchanged, and the run finds its stages again."""
    rounds = Rounds(monkeypatch)
    first = rounds.recipe
    rounds.train()
    second = rounds.publish()
    found, text = inputs.of_version(entry(second), rounds.store)
    assert "smollm2+round-1" in text
    assert not inputs.same(found, inputs.current(first, (), rounds.store))


def ended(store: MemoryStore, *verdicts: str) -> RetrainOutcome:
    """How a run ended whose gate decided so, round by round."""
    for number, verdict in enumerate(verdicts, 1):
        facts = promoted(f"v{number}") if verdict == "promote" else {"promoted": None, "why": "no"}
        leave(store, "r", verdict, version=f"v{number}", promoted=facts, number=number)
    return of_run(records.read(store, "r"))


@pytest.mark.parametrize(
    ("verdicts", "state", "status", "version", "why"),
    [
        (["promote", "promote"], "promoted", 0, "v2", "round 2: dpo passed all rules"),
        (["promote", "promote", "refuse"], "promoted", 0, "v2",
         "round 2: dpo passed all rules; round 3 is refused, which ended the run: dpo lost"),
        (["promote", "undecided"], "promoted", 0, "v1",
         "round 1: dpo passed all rules; round 2 is undecided, which ended the run: too few"),
        (["refuse"], "refused", 3, None, "dpo lost"),
        (["undecided"], "undecided", 4, None, "too few"),
    ],
)  # fmt: skip
def test_the_last_winner_decides_the_exit_status(
    store: MemoryStore, verdicts: list[str], state: str, status: int, version: str | None, why: str
) -> None:
    found = ended(store, *verdicts)
    assert (found.state, found.exit_status, found.why) == (state, status, why)
    assert (found.version or {}).get("version") == version


def test_a_later_round_that_fails_is_a_failure_and_names_what_was_won(store: MemoryStore) -> None:
    leave(store, "r", "promote", promoted=promoted())
    error = {"type": "EngineError", "message": "no GPU"}
    late = record("label", "failed", run_id="r", round=2, error=error)
    store.put(records.address(store, "r", "label", 2), records.to_json(late))
    found = of_run(records.read(store, "r"))
    assert (found.state, found.exit_status) == ("failed", 1)
    assert found.why == "label of round 2 failed: no GPU"
    assert found.version
    assert found.version["version"] == "v1"


class Killed:
    """Takes the place of `local.run`: its first attempt ends so after round 1, the next one wins
    round 2 and loses round 3."""

    def __init__(self, store: MemoryStore, end: BaseException | None = None) -> None:
        self.store, self.end = store, end
        self.ids: list[str] = []

    def __call__(self, loaded: Loaded, until: str | None, run_id: str) -> None:
        self.ids.append(run_id)
        held = inputs_of(loaded, self.store)
        for number in (1, 2):
            version = f"v{number}"
            leave(self.store, run_id, "promote", version=version, promoted=promoted(version),
                  number=number)  # fmt: skip
            put_version(self.store, version, held)
            if self.end:
                end, self.end = self.end, None
                raise end
        leave(self.store, run_id, "refuse", promoted={"promoted": None, "why": "no"}, number=3)


@pytest.fixture
def retrain(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Command:
    return command(monkeypatch, capsys, tmp_path, rounds=3)


def test_a_run_of_rounds_is_retrained_once(
    retrain: Command, monkeypatch: pytest.MonkeyPatch, store: MemoryStore
) -> None:
    runs = Killed(store)
    monkeypatch.setattr("moaa.pipelines.local.run", runs)
    status, out, _ = retrain()
    assert status == 0
    assert "aligned: promoted, version v2\nround 2: " in out
    assert "round 3 is refused, which ended the run: dpo lost" in out
    status, out, _ = retrain()
    assert (status, len(runs.ids)) == (0, 1)
    assert "no input has changed since version v2" in out


@pytest.mark.parametrize(
    ("end", "status", "same_run"),
    [(KeyboardInterrupt(), 130, True), (failing("label of round 2 failed: no GPU"), 1, False)],
)
def test_what_ended_after_its_first_round_goes_on_although_that_one_is_in_production(
    retrain: Command,
    monkeypatch: pytest.MonkeyPatch,
    store: MemoryStore,
    end: BaseException,
    status: int,
    same_run: bool,
) -> None:
    runs = Killed(store, end)
    monkeypatch.setattr("moaa.pipelines.local.run", runs)
    assert retrain()[0] == status
    found, out, _ = retrain()
    assert (found, len(runs.ids)) == (0, 2)
    assert (runs.ids[0] == runs.ids[1]) is same_run
    assert "aligned: promoted, version v2" in out
