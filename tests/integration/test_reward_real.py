"""Reward models on a real engine: their scores are those of transformers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

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


def rendered(folder: Path, messages: Sequence[Message]) -> Any:
    from transformers import AutoTokenizer

    tokens: Any = AutoTokenizer.from_pretrained(folder)
    text = tokens.apply_chat_template(list(messages), tokenize=False)
    return tokens(text, add_special_tokens=False, return_tensors="pt")["input_ids"]


def conversation(answer: str) -> list[Message]:
    return [*QUERY, Message(role="assistant", content=answer)]


async def test_scores_are_those_of_transformers(tmp_path: Path) -> None:
    import torch

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

    with torch.no_grad():
        expected = [
            scorer(rendered(plain, conversation(answer))).logits.item() for answer in ANSWERS
        ]
    assert by_reward.scores[:3] == pytest.approx(expected, abs=1e-5)
    assert len({round(score, 3) for score in expected}) == 3
    assert [(each.answer, each.reason) for each in by_reward.refused] == [(3, "context length")]

    published_scores = [_published(published, vectors, heads, answer) for answer in ANSWERS]
    assert by_armorm.scores[:3] == pytest.approx(published_scores, abs=1e-5)
    assert len({round(score, 3) for score in published_scores}) == 3
    assert [each.answer for each in by_armorm.refused] == [3]


def _published(folder: Path, body: Any, heads: dict[str, Any], answer: str) -> float:
    """ArmoRM's score as its own code computes it: one pass, the gate at the last assistant
    header."""
    import torch

    ids = rendered(folder, conversation(answer))
    header = rendered(folder, [Message(role="assistant", content="")])[0, 1:4].tolist()
    listed = ids[0].tolist()
    starts = [i for i in range(len(listed)) if listed[i : i + 2] == header[:2]]
    with torch.no_grad():
        hidden = body(ids).last_hidden_state[0]
        gate = hidden[starts[-1] - 1]
        for i in range(3):
            gate = heads[f"gating.layers.{i}.weight"] @ gate + heads[f"gating.layers.{i}.bias"]
            gate = torch.relu(gate) if i < 2 else gate
        weights = torch.softmax(gate / 10, dim=0) * heads["gating.logit_scale"][0]
        rewards = heads["regression_layer.weight"] @ hidden[-1] @ heads["reward_transform_matrix"]
        return float((weights * rewards).sum())
