"""The guard: a bad revision is found soon, and noise is not taken for one."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from moaa.gateway.guard import Guard, RequestOutcome
from tests.support.canaries import OLD, Draw, outcomes, requests_until_blamed


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("bad", "most", "says"),
    [
        (outcomes("new", error=1.0), 12, "failed"),
        (outcomes("new", error=0.5), 50, "failed"),
        (outcomes("new", empty=1.0), 12, "empty"),
        (outcomes("new", cut=0.95), 50, "cut"),
        (outcomes("new", cut=0.1, first_s=3.0), 50, "came late"),
    ],
)
def test_a_bad_revision_is_blamed_within_50_requests(
    bad: Draw, most: int, says: str, seed: int
) -> None:
    count, reason = requests_until_blamed(OLD, bad, seed=seed)
    assert count <= most
    assert says in reason
    assert "revision new" in reason


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("share", [0.05, 0.25])
def test_one_that_fails_in_one_of_five_is_blamed_within_200(share: float, seed: int) -> None:
    """What `promote.hold_requests` is made for."""
    bad = outcomes("new", error=0.2, empty=0.01, cut=0.1)
    assert requests_until_blamed(OLD, bad, seed=seed, share=share)[0] <= 200


def test_one_that_fails_from_the_first_request_is_blamed_without_a_comparison() -> None:
    count, reason = requests_until_blamed(OLD, outcomes("new", error=1.0), share=1.0)
    assert count <= 25, reason


@pytest.mark.parametrize("rate", [0.0, 0.02, 0.2])
@pytest.mark.parametrize("seed", range(2))
def test_an_equal_revision_is_never_blamed(rate: float, seed: int) -> None:
    def both(revision: str) -> Draw:
        return outcomes(revision, error=rate, empty=rate, cut=0.3)

    _, reason = requests_until_blamed(both("old"), both("new"), seed=seed, share=0.25, most=4000)
    assert not reason


@pytest.mark.parametrize("fails", [0.3, 0.6, 1.0])
@pytest.mark.parametrize("revisions", [("old", "new"), ("old", "old", "old", "new")])
def test_a_fault_that_both_revisions_share_is_nobodys(
    fails: float, revisions: tuple[str, ...]
) -> None:
    """The node is down, or the network: production fails as often."""
    chance, guard = random.Random(1), Guard()
    guard.judge("new")
    for step in range(500):
        rate = fails if 100 <= step < 300 else 0.0
        for revision in revisions:
            assert not guard.add(outcomes(revision, error=rate)(chance)), step


def test_one_clients_short_answers_blame_nobody() -> None:
    guard, chance = Guard(), random.Random(2)
    guard.judge("new")
    for _ in range(200):
        guard.add(OLD(chance))
        assert not guard.add(
            RequestOutcome("new", 200, 0.3, cut=True, empty=True, conversation="one")
        )


def test_what_the_client_did_wrong_does_not_count() -> None:
    guard = Guard()
    guard.judge("new")
    assert not any(guard.add(RequestOutcome("new", 400)) for _ in range(100))


def test_a_new_candidate_begins_without_its_forerunners_faults() -> None:
    def failures() -> Iterator[str]:
        while True:
            yield guard.add(RequestOutcome(guard.candidate, 500))

    guard = Guard()
    guard.judge("one")
    needed = next(n for n, reason in enumerate(failures()) if reason)
    guard.judge("one")
    assert not any(guard.add(RequestOutcome("one", 500)) for _ in range(needed - 1))
    guard.judge("two")
    assert not guard.add(RequestOutcome("two", 500))


@pytest.mark.parametrize("usual_s", [0.05, 0.2, 1.0])
def test_a_first_token_after_three_times_as_long_is_blamed_however_fast_production_is(
    usual_s: float,
) -> None:
    def until_blamed(factor: float) -> int | None:
        chance, guard = random.Random(1), Guard()
        for _ in range(100):
            guard.add(RequestOutcome("old", 200, usual_s * chance.lognormvariate(0, 0.2)))
        guard.judge("new")
        for count in range(400):
            first_s = usual_s * factor * chance.lognormvariate(0, 0.2)
            if guard.add(RequestOutcome("new", 200, first_s)):
                return count
        return None

    found = until_blamed(3)
    assert found is not None
    assert found <= 50
    assert until_blamed(1.3) is None


def test_whole_answers_have_times_of_their_own() -> None:
    guard = Guard()
    guard.judge("new")
    for _ in range(40):
        assert not guard.add(RequestOutcome("old", 200, 10.0, streamed=False))
        assert not guard.add(RequestOutcome("new", 200, 15.0, streamed=False)), "longer answers"
        assert not guard.add(RequestOutcome("old", 200, 0.1))
    reasons = [guard.add(RequestOutcome("new", 200, 60.0, streamed=False)) for _ in range(40)]
    assert "came late (after more than 40.20 s)" in next(filter(None, reasons))
