"""The prompts stage: what is committed, and what ends it before anything is paid for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from zstandard import ZstdCompressor

from moaa.artifacts import Artifact
from moaa.errors import MoaaError, RecipeError, TooManyRejected
from moaa.recipe.load import load_file
from moaa.stages.prompts import prompts
from tests.support.memory_store import MemoryStore
from tests.support.paths import DEMO
from tests.support.stage_run import NO_BENCHMARKS, PAIRS

GOOD = [
    {"prompt": f"{topic}: what is it?"}
    for topic in ("Whales", "Rust", "Kant", "Jazz", "Tides", "Mars", "Yeast", "Chess", "Ice")
]


class Run:
    """The stage on files of the test's own, one for each set; a set that is not written has good
    rows."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.store = folder, MemoryStore()
        self.sources: dict[str, Any] = {}
        self.give("evaluation", GOOD[:3])
        self.give("preference", GOOD[3:6])
        self.give("sft", GOOD[6:])

    def give(self, name: str, rows: Sequence[Any], **source: Any) -> None:
        path = self.folder / f"{name}.jsonl"
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        self.sources[name] = {"source": str(path), **source}

    def run(self, share: float = 0.02, *more: str) -> tuple[Artifact, dict[str, Any]]:
        sets = [f"prompts.{name}=[{json.dumps(source)}]" for name, source in self.sources.items()]
        recipe = load_file(
            DEMO, [*sets, NO_BENCHMARKS, f"runtime.max_rejected_share={share}", *more]
        ).recipe
        manifest, _ = prompts.run(recipe, self.store, {})
        return Artifact(self.store, manifest), manifest.ledger

    def refused(self, kind: type[MoaaError], share: float = 0.02) -> MoaaError:
        with pytest.raises(kind) as caught:
            self.run(share)
        assert not [uri for uri in self.store.objects if uri.endswith("manifest.json")]
        return caught.value


@pytest.fixture
def stage(tmp_path: Path) -> Run:
    return Run(tmp_path)


def test_three_sets_are_committed_with_their_counts(stage: Run) -> None:
    found, ledger = stage.run()
    assert {name: [row["turns"] for row in found.rows(name)] for name in ("evaluation", "sft")} == {
        "evaluation": [[row["prompt"]] for row in GOOD[:3]],
        "sft": [[row["prompt"]] for row in GOOD[6:]],
    }
    assert ledger["rows"] == {"in": 9, "evaluation": 3, "preference": 3, "sft": 3, "kept": 9}
    assert ledger["rejected"] == {}


@pytest.mark.parametrize("name", ["evaluation", "preference", "sft"])
def test_a_misspelt_field_names_set_source_field_and_the_fields_that_there_are(
    stage: Run, name: str
) -> None:
    stage.give(name, [{"prompt": "Why?", "id": 1}, {"prompt": "How?", "id": 2}], field="promt")
    for share in (0.02, 1):
        said = str(stage.refused(RecipeError, share))
        assert f"no prompt is left for prompts.{name} of the 2 rows of " in said
        assert f"{name}.jsonl (field 'promt')" in said
        assert "unreadable   e.g. no column promt among prompt, id" in said


def test_a_set_without_rows_is_refused(stage: Run) -> None:
    stage.give("evaluation", GOOD[:3], offset=3)
    assert "prompts.evaluation of the 0 rows of" in str(stage.refused(RecipeError))


def test_a_set_that_decontamination_empties_is_refused_with_that_reason(stage: Run) -> None:
    stage.give("sft", GOOD[:3])
    said = str(stage.refused(RecipeError, share=1))
    assert "no prompt is left for prompts.sft of the 3 rows" in said
    assert "near an evaluation prompt" in said


def test_too_many_unreadable_rows_of_one_set_are_refused(stage: Run) -> None:
    stage.give("evaluation", [*GOOD[:3], "a text", ["a list"]])
    error = stage.refused(TooManyRejected, share=0.39)  # of all eleven rows they would be 18 %
    assert (
        "2 of 5 rows of prompts.evaluation are unreadable (40.0%); the limit is 39.0% "
        "(runtime.max_rejected_share)" in str(error)
    )
    assert 'evaluation.jsonl: unreadable   e.g. the row is not an object: "a text"' in str(error)
    found, ledger = stage.run(share=0.4)
    assert ledger["rejected"] == {"unreadable": 2}
    assert [row["reason"] for row in found.rows("rejected")] == ["unreadable"] * 2


def test_repeated_empty_and_contaminated_prompts_are_not_unreadable(stage: Run) -> None:
    stage.give("sft", [*GOOD[6:], *GOOD[6:], *GOOD[:3], {"prompt": " "}])
    _, ledger = stage.run(share=0)
    assert ledger["rejected"] == {"duplicate": 3, "near an evaluation prompt": 3, "empty": 1}
    assert ledger["rows"]["sft"] == 3


def test_prompts_near_to_a_question_of_a_benchmark_are_removed(stage: Run) -> None:
    """Of either turn of MT-Bench, and of a pair of JudgeBench; both benchmarks are the recipe's."""
    first, second = (" ".join(f"{word}{n}" for n in range(15)) for word in ("rain", "wind"))
    questions = {"question_id": 1, "category": "writing", "turns": [f"Ask {first}.", f"{second}!"]}
    rows = {"mt_bench": [questions], "judge_bench": [{**PAIRS[0], "question": "What is a quark?"}]}
    sets = []
    for name, given in rows.items():
        path = stage.folder / f"{name}.jsonl"
        path.write_text("".join(f"{json.dumps(row)}\n" for row in given))
        sets.append(f'evaluate.benchmarks.{name}={{data: [{{source: "{path}"}}]}}')
    near = [f"Please {first}", f"And {second}", "what is a Quark"]
    stage.give("sft", [*GOOD[6:], *({"prompt": text} for text in near)])
    found, ledger = stage.run(0.02, *sets)
    rejected = {row["text"]: row["detail"] for row in found.rows("rejected")}
    assert {text: detail.split()[1].rstrip(":") for text, detail in rejected.items()} == {
        near[0]: "mt_bench:1",
        near[1]: "mt_bench:1",
        near[2]: "judge_bench:pair-1",
    }
    assert ledger["events"]["questions of benchmarks that prompts were compared with"] == 2
    without, _ = stage.run()
    assert without.fingerprint != found.fingerprint
    assert len(list(without.rows("sft"))) == len(list(found.rows("sft"))) + len(near)


def test_a_benchmark_whose_questions_cannot_be_read_is_said(stage: Run) -> None:
    """It will have no score either; once it can be read, the prompts are chosen anew."""
    path = stage.folder / "pairs.jsonl"
    given = f'evaluate.benchmarks.judge_bench={{data: [{{source: "{path}"}}]}}'
    without, ledger = stage.run(0.02, given)
    assert ledger["events"] == {"benchmarks that prompts could not be compared with: JudgeBench": 1}
    path.write_text(json.dumps(PAIRS[0]))
    found, ledger = stage.run(0.02, given)
    assert ledger["events"] == {"questions of benchmarks that prompts were compared with": 1}
    assert found.fingerprint != without.fingerprint


def packed(rows: Sequence[Any]) -> bytes:
    """Rows as a gateway writes them."""
    return ZstdCompressor().compress("".join(f"{json.dumps(row)}\n" for row in rows).encode())


def used(text: str, **more: Any) -> dict[str, Any]:
    """A row of a question that somebody asked."""
    asked = [{"role": "user", "content": text}]
    return {"id": "r", "messages": asked, "answer": "It is.", "rating": 1, **more}


def test_what_users_asked_is_read_from_files_that_grow(stage: Run) -> None:
    """Old prompts keep their ids; a rating without its question is no prompt, and no fault."""
    below = f"{stage.store.root}/use"
    stage.sources["sft"] = {"source": f"{below}/*.jsonl.zst"}
    stage.store.put(f"{below}/2026-01-01/1-a.jsonl.zst", packed([used("Whales eat what?")]))
    stage.store.put(f"{below}/2026-01-01/notes.txt", b"no row")
    before, _ = stage.run()
    later = [used("Who made Rust?"), {"id": "r", "rating": -1, "comment": "no"}]
    stage.store.put(f"{below}/2026-01-02/1-a.jsonl.zst", packed(later))
    after, ledger = stage.run()
    assert after.fingerprint != before.fingerprint
    old, new = list(before.rows("sft")), list(after.rows("sft"))
    assert new[: len(old)] == old
    assert new[1]["turns"] == ["Who made Rust?"]
    assert ledger["rejected"] == {"not a prompt": 1}


@pytest.mark.parametrize("mask", [None, True, False])
def test_personal_data_of_users_are_replaced_unless_told_otherwise(
    stage: Run, mask: bool | None
) -> None:
    asked = "Write to jane@example.com, password: hunter2hunter2"
    uri = f"{stage.store.root}/use/1.jsonl.zst"
    stage.store.put(uri, packed([used(asked)]))
    stage.sources["sft"] = {"source": uri} | ({} if mask is None else {"mask": mask})
    found, ledger = stage.run()
    (row,) = found.rows("sft")
    assert (row["turns"] == [asked]) is (mask is False)
    replaced = {k: n for k, n in ledger["events"].items() if k.startswith("personal data")}
    counted = {f"personal data and keys replaced: {kind}": 1 for kind in ("e-mail", "key")}
    assert replaced == ({} if mask is False else counted)


def test_prompts_of_a_data_set_are_left_as_they_are(stage: Run) -> None:
    stage.give("sft", [{"prompt": "Who is jane@example.com?"}])
    found, _ = stage.run()
    assert [row["turns"] for row in found.rows("sft")] == [["Who is jane@example.com?"]]


def test_a_pattern_that_names_no_files_is_an_error(stage: Run) -> None:
    stage.sources["sft"] = {"source": f"{stage.store.root}/use/a*.jsonl"}
    assert "'a*.jsonl' names no files" in str(stage.refused(RecipeError))


def test_a_packed_file_that_was_cut_is_an_error(stage: Run) -> None:
    uri = f"{stage.store.root}/use/1.jsonl.zst"
    stage.store.put(uri, packed([used("Why? " * 1000)])[:-20])
    stage.sources["sft"] = {"source": uri}
    assert "not a complete zstd file" in str(stage.refused(RecipeError))
