"""ArmoRM: its checkpoint is split, its heads are read, its formula is the published one."""

from __future__ import annotations

import base64
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moaa.chat.message import Call, Message
from moaa.errors import CallRejected, EngineError, RecipeError, RowRejected
from moaa.labellers import ArmoRM, Heads
from moaa.recipe import Model
from moaa.store import Store
from moaa.weights import armorm
from tests.support.scripted import Ask, last

QUERY = [Message(role="user", content="Why?")]


def file_of(**changed: Any) -> bytes:
    """Heads of two objectives over vectors of two numbers, with a gate of two layers."""
    arrays = {
        "regression_layer.weight": [[1.0, 0.0], [0.0, 2.0]],
        "reward_transform_matrix": [[1.0, -0.5], [0.0, 1.0]],
        "gating.layers.0.weight": [[1.0, 0.0], [0.0, -1.0]],
        "gating.layers.0.bias": [0.0, 0.0],
        "gating.layers.1.weight": [[10.0, 0.0], [0.0, 10.0]],
        "gating.layers.1.bias": [0.0, 10.0],
        "gating.logit_scale": [2.0],
        "temperature": 10.0,
        **changed,
    }
    sink = io.BytesIO()
    np.savez(sink, **{name: np.array(value) for name, value in arrays.items() if value is not None})  # type: ignore[arg-type]
    return sink.getvalue()


def test_the_score_by_hand() -> None:
    # Gate: relu(1, -1) = (1, 0); logits (10, 10) / 10; shares (1/2, 1/2) times the scale 2.
    # Rewards: (3, 8) times the transform: (3, -1.5 + 8).
    score = Heads.read(file_of()).score(np.array([1.0, 1.0]), np.array([3.0, 4.0]))
    assert score == pytest.approx(3 + 6.5)


def test_the_gate_weighs_the_objectives() -> None:
    heads = Heads.read(file_of())
    first = 2 * math.e / (math.e + 1)  # logits (2, 1)
    score = heads.score(np.array([2.0, 1.0]), np.array([3.0, 0.0]))
    assert score == pytest.approx(first * 3 - (2 - first) * 1.5)


@pytest.mark.parametrize("data", [b"", b"no archive", file_of(temperature=None)])
def test_another_file_holds_no_heads(data: bytes) -> None:
    with pytest.raises(RecipeError, match="heads of ArmoRM cannot be read"):
        Heads.read(data)


def vectors(call: Call) -> Any:
    """The answer of an engine: the vector is (messages, length of the last one)."""
    length = len(last(call))
    if length > 20:
        return CallRejected("context length", "too long")
    vector = np.array([len(call.messages), length], dtype="<f4").tobytes()
    return base64.b64encode(vector).decode()


async def test_the_prompt_is_asked_for_once() -> None:
    ask = Ask(vectors)
    heads = Heads.read(file_of())
    labels = await ArmoRM("body", heads)("p", QUERY, ["one", "three", "x" * 30], ask)
    asked = sorted([each["role"] for each in call.messages] for call in ask.calls)
    assert asked == [
        ["user"],
        *[["user", "assistant"]] * 3,
    ]
    gate, end = np.array([1.0, 4.0]), np.array([2.0, 3.0])
    assert labels.scores[0] == pytest.approx(heads.score(gate, end))
    assert labels.scores[2] is None


async def test_a_prompt_that_is_too_long_has_no_labels() -> None:
    query = [Message(role="user", content="x" * 30)]
    with pytest.raises(RowRejected, match="prompt without a score: context length"):
        await ArmoRM("body", Heads.read(file_of()))("p", query, ["a", "b"], Ask(vectors))


async def test_vectors_of_another_length_are_another_models() -> None:
    vector = base64.b64encode(np.ones(3, dtype="<f4").tobytes()).decode()
    with pytest.raises(EngineError, match=r"vectors of 3 numbers; the heads of ArmoRM take 2"):
        await ArmoRM("body", Heads.read(file_of()))("p", QUERY, ["a", "b"], Ask(lambda _: vector))


def test_a_folder_without_heads_says_how_to_make_them(tmp_path: Path) -> None:
    model = Model(source=str(tmp_path), task="embed")
    with pytest.raises(RecipeError, match="moaa split-armorm"):
        armorm.heads_of(model, Store("s3://none"))
    (tmp_path / armorm.HEADS).write_bytes(b"heads")
    assert armorm.heads_of(model, Store("s3://none")) == b"heads"


def test_a_folder_of_another_model_is_no_armorm(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"no config\.json with \*\.safetensors"):
        armorm.split(tmp_path, tmp_path / "out")
