"""The mixture's patience: quorum, grace, deadline; and what comes before the aggregator's call."""

import asyncio

import pytest

from moaa.chat.message import Choice, Message, Reply
from moaa.errors import CallFailed, EngineError
from moaa.mixture import Patience, TooFewProposals, by_model, prepare, respond
from moaa.recipe import Member, Mixture, Sampling
from tests.support.scripted import Ask

Q: list[Message] = [{"role": "user", "content": "q"}]


def mixture(*members: Member, **more):
    members = members or tuple(Member(model=f"m{i}") for i in (1, 2, 3))
    return Mixture(proposers=members, aggregator=Member(model="agg"), references="plain", **more)


class Members:
    """Each answers after so many seconds (or fails), and notes when it was cancelled."""

    def __init__(self, **after: float | Exception) -> None:
        self.after = after
        self.cancelled: list[str] = []

    async def __call__(self, member, messages, layer) -> Reply:
        after = self.after[member.label]
        if isinstance(after, Exception):
            raise after
        try:
            await asyncio.sleep(after)
        except asyncio.CancelledError:
            self.cancelled.append(member.label)
            raise
        return Reply(tuple([Choice(f"from {member.label}")] * member.sampling.n))


async def timed(members, of=None, *, deadline_s=60.0, **patience):
    """What came before the aggregator, and the seconds that it took."""
    loop, of = asyncio.get_running_loop(), of or mixture()
    start = loop.time()
    waits = Patience(of.quorum, start + deadline_s, **patience)
    try:
        found = await prepare(of, Q, members, patience=waits)
    except TooFewProposals as error:
        return error, loop.time() - start
    return found, loop.time() - start


def names(found):
    return [p.name for layer in found.layers for p in layer]


@pytest.mark.fast_clock
async def test_a_hanging_proposer_costs_the_seconds_time_and_the_grace():
    members = Members(m1=1, m2=3, m3=3600)
    found, took_s = await timed(members)
    assert names(found) == ["m1", "m2"]
    assert took_s == pytest.approx(4), "3 s, and a grace of 1 s"
    assert [(each.name, each.reason) for each in found.left_out] == [("m3", "late")]
    assert members.cancelled == ["m3"]


@pytest.mark.fast_clock
async def test_the_grace_grows_with_the_time_that_the_quorum_took():
    found, took_s = await timed(Members(m1=1, m2=20, m3=24.5))
    assert (names(found), took_s) == (["m1", "m2", "m3"], pytest.approx(24.5))
    found, took_s = await timed(Members(m1=1, m2=20, m3=25.5))
    assert (names(found), took_s) == (["m1", "m2"], pytest.approx(25))


@pytest.mark.fast_clock
async def test_nobody_waits_longer_than_the_deadline():
    reached: list[bool] = []
    patience = {"reached": lambda: reached.append(True), "deadline_s": 5.0}
    found, took_s = await timed(Members(m1=1, m2=4.8, m3=9), **patience)
    assert (names(found), took_s) == (["m1", "m2"], pytest.approx(5))
    assert reached == [True]

    members = Members(m1=1, m2=9, m3=9)
    found, took_s = await timed(members, **patience)
    assert isinstance(found, TooFewProposals)
    assert took_s == pytest.approx(5)
    assert [each.reason for each in found.left_out] == ["late", "late"]
    assert members.cancelled == ["m2", "m3"]
    assert reached == [True], "this one had no quorum"


@pytest.mark.fast_clock
async def test_a_quorum_that_cannot_be_reached_is_not_waited_for():
    failed = CallFailed("HTTP 500", "")
    found, took_s = await timed(members := Members(m1=failed, m2=2, m3=failed))
    assert isinstance(found, TooFewProposals)
    assert took_s == 0
    assert members.cancelled == ["m2"]
    assert [(each.name, each.reason) for each in found.left_out] == [
        ("m1", "HTTP 500"),
        ("m2", "late"),
        ("m3", "HTTP 500"),
    ]


@pytest.mark.fast_clock
async def test_all_in_time_are_not_waited_for_any_longer():
    found, took_s = await timed(Members(m1=3, m2=1, m3=2))
    assert (names(found), took_s) == (["m1", "m2", "m3"], pytest.approx(3))


@pytest.mark.fast_clock
async def test_the_deadline_is_for_all_layers_and_each_has_its_grace():
    members = Members(m1=1, m2=1, m3=3600)
    found, took_s = await timed(members, mixture(layers=3))
    assert (names(found), took_s) == (["m1", "m2"] * 2, pytest.approx(4))
    found, took_s = await timed(members, mixture(layers=3), deadline_s=2.5)
    assert isinstance(found, TooFewProposals)
    assert took_s == pytest.approx(2.5)
    assert [each.layer for each in found.left_out] == [0, 1, 1, 1]


@pytest.mark.fast_clock
async def test_several_proposals_of_one_call_count_each():
    both = mixture(Member(model="x", sampling=Sampling(n=3)), Member(model="y"))
    found, took_s = await timed(Members(x=1, y=3600), both)
    assert (names(found), took_s) == (["x#1", "x#2", "x#3"], pytest.approx(2))
    found, _ = await timed(Members(x=3600, y=1), both, deadline_s=7)
    assert [each.name for each in found.left_out] == ["x#1", "x#2", "x#3"]


@pytest.mark.fast_clock
async def test_who_leaves_takes_all_members_along_and_a_models_end_is_raised():
    members = Members(m1=3600, m2=3600, m3=3600)
    task = asyncio.create_task(timed(members))
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(members.cancelled) == ["m1", "m2", "m3"]
    members = Members(m1=3600, m2=EngineError("gone"), m3=3600)
    with pytest.raises(EngineError, match="gone"):
        await timed(members)
    assert sorted(members.cancelled) == ["m1", "m3"]


async def test_the_aggregator_gets_what_respond_would_send():
    ask = Ask(lambda call: f"from {call.model}")
    await respond(mixture(layers=3), Q, ask)
    found = await prepare(mixture(layers=3), Q, by_model(ask))
    assert found.messages == ask.of("agg")[0].messages


async def test_proposals_after_the_last_question_leave_the_history_as_it_was():
    history: list[Message] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "answered"},
        {"role": "user", "content": "second"},
    ]
    ask = Ask(lambda call: f"from {call.model}")
    found = await prepare(mixture(), history, by_model(ask), place="last")
    assert list(found.messages[:3]) == history[:3]
    assert found.messages[3]["role"] == "user"
    assert found.messages[3]["content"].startswith("second\n\nSeveral language models")
    assert found.messages[3]["content"].endswith("1. from m1\n\n2. from m2\n\n3. from m3")
