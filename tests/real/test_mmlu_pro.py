"""Paired and clustered errors, on published answers of two models to MMLU-Pro."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

from moaa.statistics import difference, standard_error
from tests.real.conftest import there


def answers(real_data: Path, model: str) -> dict[int, dict[str, Any]]:
    path = there(real_data / "mmlu_pro" / f"{model}.zip")
    with zipfile.ZipFile(path) as archive:
        (name,) = (each for each in archive.namelist() if "MACOSX" not in each)
        return {row["question_id"]: row for row in json.loads(archive.read(name))}


def test_questions_of_one_source_are_not_independent(real_data: Path) -> None:
    llama = answers(real_data, "Meta-Llama-3_1-8B-Instruct")
    mistral = answers(real_data, "Mistral-7B-Instruct-v0.2")
    assert llama.keys() == mistral.keys()
    a, b = ([float(r["pred"] == r["answer"]) for r in m.values()] for m in (llama, mistral))
    b = [float(mistral[id]["pred"] == mistral[id]["answer"]) for id in llama]
    found = {
        "paired": difference(a, b),
        "by source": difference(a, b, [row["src"] for row in llama.values()]),
        "by category": difference(a, b, [row["category"] for row in llama.values()]),
    }
    errors = {
        name: round(100 * (each.high - each.low) / (2 * 1.959964), 3)
        for name, each in found.items()
    }
    print(f"difference {100 * found['paired'].value:.2f} points, errors {errors}")
    assert errors == {"paired": 0.496, "by source": 1.392, "by category": 1.972}
    assert found["paired"].n == 12_032
    unpaired = (standard_error(a) ** 2 + standard_error(b) ** 2) ** 0.5
    assert 100 * unpaired > 0.6, "the pairing helps"
