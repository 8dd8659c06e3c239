"""The code in docs/extending.md runs. For its stage see tests/integration/test_own_stage.py."""

from __future__ import annotations

import re
import sqlite3
from math import comb
from pathlib import Path
from typing import Any

import pytest

from moaa import preference
from moaa.chat.client import Client
from moaa.judge import criteria
from moaa.labellers import Labeller
from moaa.ledger import Ledger
from moaa.recipe import Calls
from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r'```python title="([^"]+)"\n(.*?)```', PAGE, re.DOTALL))


def run(title: str, **given: Any) -> dict[str, Any]:
    """The names that a block of the page defines."""
    exec(compile(BLOCKS[title], title, "exec"), given)
    return given


async def test_a_labeller() -> None:
    shorter: Labeller = run("labeller")["Shorter"]()
    answers = ["longest", "s", "long"]
    labels = await shorter("p", [], answers, None)  # type: ignore[arg-type]
    pair = preference.pair(labels.ranking)
    assert pair is not None
    assert (pair.chosen, pair.rejected) == (1, 0)
    assert labels.ranking.order == (1, 2, 0)


async def test_an_engine_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Client(Calls(), Ledger()) as client:
        asked = []

        async def answers(endpoint: Any, model: str, timeout_s: float) -> None:
            asked.append((endpoint.url, model))

        monkeypatch.setattr(client, "answers", answers)
        fleet = run("engine kind")["KnownPorts"]({"small": 8000}, client)
        await fleet.up(["small"])
        assert asked == [("http://127.0.0.1:8000/v1", "small")]
        assert (await client.pool("small").acquire()).model == "small"
        await fleet.down(["small"])
        assert client.pool("small").endpoints == []


def test_a_prompt_source(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "prompts.db") as connection:
        connection.execute("CREATE TABLE asked (prompt TEXT)")
        connection.execute("INSERT INTO asked VALUES ('Why?'), ('How?')")
    sqlite_rows = run("prompt source")["sqlite_rows"]
    rows = list(sqlite_rows(f"sqlite:{tmp_path}/prompts.db/asked"))
    assert rows == [{"prompt": "Why?"}, {"prompt": "How?"}]


def test_a_criterion() -> None:
    mine = dict(criteria.CRITERIA)
    run("criterion", CRITERIA=mine)
    assert list(mine) == [*criteria.CRITERIA, "Brevity"]
    assert (comb(len(criteria.CRITERIA), 3), comb(len(mine), 3)) == (56, 84)
    assert len(criteria.TRIPLES) == 56
