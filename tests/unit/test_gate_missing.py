"""The gate on evaluations of the real stage in which a benchmark or an entrant failed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from moaa.benchmarks.table import BENCHMARKS
from moaa.gate import Decision
from moaa.recipe.load import load_file
from moaa.stages.gate import decide, part_of
from tests.support.engine_server import EngineServer
from tests.support.evaluated import MODELS, evaluated
from tests.support.paths import DEMO
from tests.support.spelling import Spelling

SPELLED = [f"Say {number}." for number in range(20)]


def decision(
    monkeypatch: pytest.MonkeyPatch, folder: Path, refused: list[str], *, by: str
) -> Decision:
    """What the gate says if one model answers all but these questions of a benchmark."""
    monkeypatch.setitem(BENCHMARKS, "gsm8k", Spelling)
    data = folder / "data.jsonl"
    data.write_text("\n".join(json.dumps({"question": each}) for each in SPELLED))
    with EngineServer(*MODELS) as server:
        server.refuse = lambda body: (
            body["model"] == by and body["messages"][-1]["content"] in refused
        )
        found = evaluated(
            server,
            monkeypatch,
            f"evaluate.benchmarks={{head_to_head: null, gsm8k: {{data: [{{source: '{data}'}}]}}}}",
        )
    return decide(part_of(load_file(DEMO, ["gate={}"]).recipe), found)


@pytest.mark.parametrize("by", ["smollm2+dpo", "smollm2"])
@pytest.mark.parametrize("n", [12, 20])
def test_a_model_that_answered_a_part_of_a_benchmark_is_not_compared_by_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, n: int, by: str
) -> None:
    found = decision(monkeypatch, tmp_path, SPELLED[:n], by=by)
    of_benchmark = [each for each in found.findings if each.rule == "gsm8k"]
    assert [each.outcome for each in of_benchmark] == ["undecided"]
    assert "not measured: " in of_benchmark[0].about
    assert "reasoning" not in {each.rule for each in found.findings}


def test_a_trained_model_that_is_not_compared_may_have_failed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = decision(monkeypatch, tmp_path, SPELLED, by="smollm2+sft")
    assert [each.outcome for each in found.findings if each.rule == "gsm8k"] == ["pass"]
    assert "reasoning" in {each.rule for each in found.findings}
