"""Reward models on a real engine: their scores are those of transformers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from moaa import engines
from moaa.asking import Session
from moaa.chat.client import Client
from moaa.chat.message import Message
from moaa.labellers import ArmoRM, Heads, RewardModel
from moaa.recipe.schema import Model, Runtime
from moaa.weights import armorm
from tests.support import tiny_rewards
from tests.support.client_ask import ClientAsk
from tests.support.sessions import session_of

pytestmark = pytest.mark.real

QUERY = [Message(role="user", content="Why is the sky blue?")]
ANSWERS = ["Because of the air.", "It is not!", "Short light is scattered more than long light."]
TOO_LONG = "word " * 400


@asynccontextmanager
async def served(**models: Model) -> AsyncIterator[ClientAsk]:
    """The models on engines of this machine, each of which has given a score or a vector."""
    runtime = Runtime.model_validate(
        {"engines": {"kind": "process", "start_timeout_s": 1500, "kv_cache_gib": 0.25}}
    )
    session: Session = session_of(models, runtime)
    async with (
        Client(runtime.calls, session.ledger) as client,
        engines.start(session, client) as fleet,
    ):
        await fleet.up(list(models))
        yield ClientAsk(client)


async def test_scores_are_those_of_transformers(tmp_path: Path) -> None:
    plain, published, body = (tmp_path / name for name in ("plain", "published", "body"))
    scorer = tiny_rewards.reward_model(plain)
    vectors, heads = tiny_rewards.armorm_model(published)
    armorm.split(published, body)
    config = json.loads((body / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert not {"auto_map", "num_labels"} & set(config)
    reward = Model(source=str(plain), dtype="float32", task="reward")
    embed = Model(source=str(body), dtype="float32", task="embed")
    async with served(reward=reward, armorm=embed) as ask:
        by_reward = await RewardModel("reward")("p", QUERY, [*ANSWERS, TOO_LONG], ask)
        made = ArmoRM("armorm", Heads.read((body / armorm.HEADS).read_bytes()))
        by_armorm = await made("p", QUERY, [*ANSWERS, TOO_LONG], ask)

    expected = [tiny_rewards.score(plain, scorer, QUERY, answer) for answer in ANSWERS]
    assert by_reward.scores[:3] == pytest.approx(expected, abs=1e-5)
    assert len({round(score, 3) for score in expected}) == 3
    assert [(each.answer, each.reason) for each in by_reward.refused] == [(3, "context length")]

    published_scores = [
        tiny_rewards.armorm_score(published, vectors, heads, QUERY, answer) for answer in ANSWERS
    ]
    assert by_armorm.scores[:3] == pytest.approx(published_scores, abs=1e-5)
    assert len({round(score, 3) for score in published_scores}) == 3
    assert [each.answer for each in by_armorm.refused] == [3]
