"""The canary set with a real vLLM: the judged model is known again, other weights are not."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest

from moaa.chat.client import Client
from moaa.chat.message import Call, Message
from moaa.chat.pool import Endpoint
from moaa.ledger import Ledger
from moaa.recipe.schema import Calls, Sampling
from moaa.registry.canary import TOKENS, Canary
from tests.bench import canary
from tests.support.real_engine import RealEngine, real_engine

pytestmark = pytest.mark.real
PROMPTS = canary.PROMPTS[:8]


def known(engine: RealEngine) -> Canary:
    """The canary set of the engine's model, asked one by one."""

    async def asked() -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        async with Client(Calls(), Ledger()) as client:
            client.pool(engine.model).add(Endpoint(engine.url, engine.model))
            for prompt in PROMPTS:
                messages = (Message(role="user", content=prompt),)
                sampling = Sampling(temperature=0, max_tokens=TOKENS)
                call = Call(engine.model, messages, sampling, logprobs=True)
                (choice,) = (await client.send(call)).choices
                positions = list(choice.tokens or ())
                rows.append({"messages": messages, "text": choice.text, "positions": positions})
        return rows

    found = Canary.of_rows(asyncio.run(asked()))
    assert found
    return found


def other_weights(folder: Path, made: Path) -> Path:
    """The model with noise on its weights: 5 % of their standard deviation."""
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(folder, made, ignore=shutil.ignore_patterns("*.safetensors"))
    noise = torch.Generator().manual_seed(0)
    for file in folder.glob("*.safetensors"):
        weights = load_file(file)
        for name, value in weights.items():
            added = torch.randn(value.shape, generator=noise) * value.float().std() * 0.05
            weights[name] = (value + added).to(value.dtype)
        save_file(weights, made / file.name, metadata={"format": "pt"})
    return made


def test_the_judged_model_is_known_again_and_other_weights_are_not(
    engine: RealEngine, tmp_path: Path
) -> None:
    canary = known(engine)
    again = canary.ask(Endpoint(engine.url, engine.model))  # all together: other batches
    assert again.agrees, str(again)
    assert again.positions > 100
    with real_engine(source=str(other_weights(engine.folder, tmp_path / "model"))) as wrong:
        other = canary.ask(Endpoint(wrong.url, wrong.model))
    assert not other.agrees, str(other)
    assert other.distance > 2 * again.distance
