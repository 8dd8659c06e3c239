"""Preflight reads the first prompts of each source, and benchmarks, as the stages will."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.preflighting import GOOD, wrong


def test_a_benchmark_without_a_score_is_said_and_stops_nothing(look, tmp_path: Path) -> None:
    (tmp_path / "gsm8k.jsonl").write_text('{"question": "1+1?", "answer": "#### 2"}')
    found = look(
        "evaluate.benchmarks={}",
        f"evaluate.benchmarks.gsm8k={{data: [{{source: '{tmp_path}/gsm8k.jsonl'}}]}}",
        f"evaluate.benchmarks.ifeval={{data: [{{source: '{tmp_path}/none.jsonl'}}]}}",
        f"evaluate.benchmarks.humaneval={{data: [{{source: '{tmp_path}/gsm8k.jsonl'}}]}}",
    )
    said = [(each.word, each.detail) for each in found if each.check == "benchmark"]
    assert said[0] == ("ok", "GSM8K: its questions can be read")
    assert [word for word, _ in said[1:]] == ["?", "?"]
    assert "IFEval will have no score" in said[1][1]
    assert "no such file" in said[1][1]
    assert "only in a pod" in said[2][1]


@pytest.mark.parametrize(
    ("name", "rows", "source", "problem"),
    [
        (
            "evaluation",
            [{"prompt": "Why?", "id": 1}],
            "field: promt",
            "no prompt in its first 1 rows: no column promt among prompt",
        ),
        (
            "sft",
            [{"prompt": "Why?", "input": ""}] * 30,
            "field: input",
            "no prompt in its first 20 rows: no text in its user",
        ),
        ("preference", ["a text"], "limit: 1", 'the row is not an object: "a text"'),
        ("sft", GOOD, "offset: 1", "gives no row (offset 1, limit None)"),
    ],
)
def test_a_source_without_a_prompt(
    look, tmp_path: Path, name: str, rows: list[Any], source: str, problem: str
) -> None:
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (detail,) = wrong(
        look(f'prompts.{name}=[{{source: "{tmp_path}/rows.jsonl", {source}}}]'), "prompts"
    )
    assert f"prompts.{name}: source '{tmp_path}/rows.jsonl'" in detail
    assert problem in detail


def test_a_first_row_may_be_unreadable(look, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": null}\n{"prompt": "Why?"}\n')
    assert wrong(look(f'prompts.sft=[{{source: "{tmp_path}/rows.jsonl"}}]'), "prompts") == []


def test_a_malformed_file_is_a_finding(look, tmp_path: Path) -> None:
    (tmp_path / "torn.json").write_text('[{"prompt": ')
    (detail,) = wrong(look(f'prompts.sft=[{{source: "{tmp_path}/torn.json"}}]'), "prompts")
    assert "torn.json:1: not JSON" in detail
