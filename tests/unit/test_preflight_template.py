"""What the target's chat template would lose is found before a row is paid."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from moaa.preflight import template
from moaa.preflight.finding import Finding
from moaa.preflight.run import PlannedRun
from moaa.recipe.load import load_file
from moaa.stages.table import of_run
from tests.support import training as support
from tests.support.gguf_file import odd_gguf
from tests.support.memory_store import MemoryStore
from tests.support.paths import DEMO
from tests.support.preflighting import wrong

KINDS = [
    {"messages": [{"role": "user", "content": "Why?"}]},
    {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Why?"},
        ]
    },
    {"turns": ["Why?", "And then?"]},
]


def target(folder: Path, template: str) -> str:
    """A model whose tokenizer has this template."""
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "chat_template.jinja").write_text(template)
    added = [{"content": text, "special": True} for text in ("<|im_start|>", "<|im_end|>", "</s>")]
    (folder / "tokenizer.json").write_text(json.dumps({"added_tokens": added}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
    return str(folder)


def of_template(look: Any, tmp_path: Path, template: str, *sets: str) -> list[Finding]:
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, KINDS * 4)))
    rows = f'[{{source: "{tmp_path}/rows.jsonl"}}]'
    source = target(tmp_path / "target", template)
    found = look(f"prompts.sft={rows}", f"models.smollm2.source={source}", *sets)
    return [each for each in found if each.check == "chat template"]


# Takes one question alone: whatever follows an answer changes what came before.
ONE_QUESTION = "{{ messages | length if messages | length > 2 }}" + support.DEFAULT_SYSTEM


def test_conversations_that_the_targets_template_would_lose_are_named(look, tmp_path: Path) -> None:
    limit = "runtime.max_rejected_share=0.3"
    of_sft, of_dpo, of_all = of_template(look, tmp_path, ONE_QUESTION, limit)
    assert not of_sft.ok
    assert "sft would lose 33% of its conversations" in of_sft.detail
    named = "one turn and a system message ({} of the first {} prompts): prompt_differs"
    assert named.format(4, 12) in of_sft.detail
    assert of_dpo.ok
    assert named.format(0, 1) in of_dpo.detail
    assert "2 of 3 answers are not trained (prompt_differs)" in of_all.detail


def test_pairs_of_several_turns_are_lost_with_their_last_answer(look, tmp_path: Path) -> None:
    (tmp_path / "turns.jsonl").write_text(json.dumps({"turns": ["Why?", "And then?"]}))
    several = f'prompts.preference=[{{source: "{tmp_path}/turns.jsonl"}}]'
    _, of_dpo, _ = of_template(look, tmp_path, ONE_QUESTION, several)
    assert not of_dpo.ok
    assert "dpo would lose 100% of its conversations" in of_dpo.detail


def test_a_template_without_an_end_of_turn_is_refused_before_anything_is_paid(
    look, tmp_path: Path
) -> None:
    (found,) = of_template(look, tmp_path, support.NO_END)
    assert not found.ok
    assert "would never learn to stop" in found.detail


def test_a_target_without_a_template_is_refused(look, tmp_path: Path) -> None:
    (found,) = of_template(look, tmp_path, "")
    assert (found.ok, "has no chat template" in found.detail) == (False, True)


@pytest.mark.parametrize(
    ("template", "told"),
    [
        (support.DEFAULT_SYSTEM, "every answer is trained as it is served"),
        (support.SYSTEM_IN_LAST, "system messages go into the first user turn"),
        (support.OPENS_THOUGHT, "each answer of several turns becomes a sequence of its own"),
    ],
)
def test_a_template_that_keeps_every_kind_is_ok_and_says_how(
    look, tmp_path: Path, template: str, told: str
) -> None:
    found = of_template(look, tmp_path, template)
    assert all(each.ok for each in found)
    assert found[0].detail == "sft can train every kind of conversation"
    assert told in found[-1].detail


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        (
            "{% if messages[0].role == 'system' %}{{ raise_exception('No system') }}{% endif %}"
            + support.DEFAULT_SYSTEM,
            "refuses system messages (No system)",
        ),
        ("{{ messages[-1].content }}", "leaves system messages out"),
        (support.DEFAULT_SYSTEM, ""),
    ],
)
def test_a_model_whose_template_has_no_system_role_is_found_before_anything_is_paid(
    look, tmp_path: Path, template: str, problem: str
) -> None:
    source = f"models.smollm2.source={target(tmp_path / 'target', template)}"
    found = wrong(look(source), "system role")
    assert found == ([f"smollm2: its chat template {problem}"] if problem else [])
    assert wrong(look(source, "models.smollm2.system_role=false"), "system role") == []


def test_the_engines_own_template_arguments_are_what_is_looked_at(look, tmp_path: Path) -> None:
    left_open = of_template(look, tmp_path, support.LEFT_OPEN)
    assert "--default-chat-template-kwargs" in left_open[0].detail
    assert not left_open[0].ok
    (tmp_path / "target").rename(tmp_path / "other")
    args = '["--default-chat-template-kwargs", "{\\"enable_thinking\\": false}"]'
    found = of_template(look, tmp_path, support.LEFT_OPEN, f"models.smollm2.engine_args={args}")
    assert all(each.ok for each in found)
    (tmp_path / "target").rename(tmp_path / "third")
    gone = 'models.smollm2.engine_args=["--chat-template", "gone.jinja"]'
    (missing,) = of_template(look, tmp_path, support.LEFT_OPEN, gone)
    assert (missing.ok, "gone.jinja cannot be read here" in missing.detail) == (False, True)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("binary.jinja", "it is not text in UTF-8"),
        ("large.jinja", "2,000,000 bytes; 1,048,576 is the limit"),
        ("endless.jinja", "it is not a file"),
    ],
)
def test_a_template_that_is_no_text_is_a_finding_and_no_traceback(
    look, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, words: str
) -> None:
    monkeypatch.setenv("MOAA_ALLOW_FILES", "1")
    (tmp_path / "binary.jinja").write_bytes(b"\x7fELF\xff\xfe")
    (tmp_path / "large.jinja").write_text("{{ 1 }}" + " " * 1_999_993)
    (tmp_path / "endless.jinja").symlink_to("/dev/zero")
    args = f"models.smollm2.engine_args=[--chat-template, '{tmp_path / name}']"
    (found,) = of_template(look, tmp_path, support.DEFAULT_SYSTEM, args)
    assert not found.ok
    assert words in found.detail


def test_a_template_that_fails_is_a_finding_and_no_traceback(look, tmp_path: Path) -> None:
    found = of_template(look, tmp_path, "{{ 1 + messages[0].content }}" + support.DEFAULT_SYSTEM)
    assert not found[0].ok
    assert "TypeError" in found[0].detail


def test_the_template_of_a_gguf_file_is_looked_at_before_it_is_converted(
    look, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moaa.weights.local._converted", pytest.fail)
    findings = look(f"models.smollm2.source='{odd_gguf(tmp_path / 'odd.gguf')}'")
    assert wrong(findings, "system role") == []
    found = [each for each in findings if each.check in ("chat template", "system role")]
    assert all(each.looked for each in found)
    assert "smollm2: answers end with @@end; every answer is trained as it is served" in [
        each.detail for each in found
    ]


def test_a_tokenizer_that_is_not_here_is_said_not_to_be_seen(look) -> None:
    (found,) = [each for each in look() if each.check == "chat template"]
    assert (found.ok, found.looked) == (True, False)


def test_a_hub_that_is_away_is_not_asked_for_the_template(
    look, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another check has said so already."""
    asked: list[Any] = []
    monkeypatch.setattr(template, "found_kinds", lambda *given: asked.append(given))
    monkeypatch.setattr("moaa.weights.tokenizer.folder", lambda *given: asked.append(given))
    recipe = load_file(DEMO, ["models.smollm2.source=some/model"]).recipe
    run = PlannedRun(recipe, MemoryStore(), of_run(recipe), local=True)
    (found,) = template.findings(run, hub_away=True)
    assert (found.ok, found.looked, asked) == (True, False, [])
