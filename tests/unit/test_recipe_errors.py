"""What is wrong in a recipe: each error at once, with its file and line."""

from __future__ import annotations

import pytest

from moaa.recipe.fields import walk
from moaa.recipe.files import MAX_BYTES
from tests.support.recipes import SMALL, Write, refused


def test_unknown_key_names_the_nearest_and_the_line(write: Write) -> None:
    lines = refused(write(SMALL.replace("  judge:\n", "  judge:\n    aggregater: {model: m}\n")))
    assert lines == [
        "recipe.yaml:19: label.judge.aggregater is not a known field. Did you mean 'aggregator'?"
    ]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("beta: 0.05", "beta: -1", "recipe.yaml:22: dpo.beta is -1. It must be greater than 0."),
        (
            "beta: 0.05",
            "beta: high",
            'recipe.yaml:22: dpo.beta is "high". It must be a valid number.',
        ),
        (
            "beta: 0.05",
            'beta: "0.1"',
            'recipe.yaml:22: dpo.beta is "0.1". It must be a valid number.',
        ),
        (
            "beta: 0.05",
            "beta: true",
            "recipe.yaml:22: dpo.beta is true. It must be a valid number.",
        ),
        (
            "beta: 0.05",
            "beta: .nan",
            "recipe.yaml:22: dpo.beta is NaN. It must be a finite number.",
        ),
        (
            "beta: 0.05",
            "beta: .inf",
            "recipe.yaml:22: dpo.beta is Infinity. It must be a finite number.",
        ),
        (
            "beta: 0.05",
            "zero_stage: 5",
            "recipe.yaml:22: dpo.zero_stage is 5. It must be 0, 1, 2 or 3.",
        ),
        (
            "beta: 0.05",
            "scheduler: cosin",
            "recipe.yaml:22: dpo.scheduler is \"cosin\". It must be 'cosine', 'linear' or "
            "'constant_with_warmup'. "
            "Did you mean 'cosine'?",
        ),
        (
            "target: m",
            "target: nosuch",
            "recipe.yaml:6: target: 'nosuch' is not one of `models` (m, other).",
        ),
        (
            "{name: two, model: other}",
            "{name: two, model: x}",
            "recipe.yaml:15: generate.mixture.proposers[1].model: 'x' is not one of `models` "
            "(m, other).",
        ),
        (
            "m: {source: some/model}",
            "m: {source: a/b, pool: p}",
            "recipe.yaml:4: models.m.pool: the pool 'p' is not one of `pools` (there are none).",
        ),
        ("target: m\n", "", "recipe.yaml:1: target is missing."),
        ("{source: some/model}", "{}", "recipe.yaml:4: models.m.source is missing."),
        (
            "beta: 0.05",
            "global_batch: 12",
            "recipe.yaml:22: dpo.global_batch is 12; it must be a multiple of micro_batch x ranks "
            "x nodes = 8.",
        ),
        (
            "name: two",
            "name: one",
            "recipe.yaml:12: generate.mixture: proposers ['one'] have the same name; give each "
            "its own `name`, or one of them "
            "`sampling.n`.",
        ),
        (
            "beta: 0.05",
            "beta: 0.05\n  beta: 0.1",
            "recipe.yaml:23: 'beta' is here a second time (first in line 22). Remove one.",
        ),
        (
            "dpo:",
            "epochs: 3\ndpo:",
            "recipe.yaml:21: epochs is not a known field. It is one elsewhere: "
            "sft.epochs, dpo.epochs. Fields "
            "here: name, store, models, target, trainings, prompts, generate, sft, sample, "
            "label, dpo, evaluate, gate, publish, promote, rounds, runtime, pools, plan.",
        ),
    ],
)
def test_what_is_wrong_and_where(write: Write, old: str, new: str, expected: str) -> None:
    assert old in SMALL
    assert refused(write(SMALL.replace(old, new))) == [expected]


def test_tags_are_refused(write: Write) -> None:
    lines = refused(write(SMALL.replace("beta: 0.05", "beta: !!python/name:os.system x")))
    assert (
        lines[0]
        == "recipe.yaml:22: the tag tag:yaml.org,2002:python/name:os.system is not allowed in a "
        "recipe. Remove it."
    )


def test_all_errors_at_once(write: Write) -> None:
    text = SMALL.replace("beta: 0.05", "beta: -1\n  epoch: 3").replace("target: m", "target: 5")
    found = refused(write(text), "sft.learning_rate=fast", "runtime.engines.shedule=auto")
    assert [line.split(":")[0] + ":" + line.split(":")[1].split(" ")[0] for line in found] == [
        "recipe.yaml:6",
        "--set sft.learning_rate:",
        "recipe.yaml:22",
        "recipe.yaml:23",
        "--set runtime.engines.shedule:",
    ]


def test_broken_yaml_names_the_line(write: Write) -> None:
    assert refused(write("name: x\nmodels: {a: b\n"))[0].startswith(
        "recipe.yaml:3: this is not YAML: expected ','"
    )
    assert refused(write("- a\n- b\n"))[0].startswith("recipe.yaml: a recipe is a mapping")


def test_aliases_of_aliases_are_refused_before_they_fill_the_memory(write: Write) -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9)
    )
    assert any("aliases (*name) multiply" in line for line in refused(write(bomb)))


def test_too_large_texts_are_refused(write: Write) -> None:
    assert "65,536 is the most" in refused(write(SMALL + f"# {'x' * MAX_BYTES}\n"))[0]
    write("x" * MAX_BYTES, "long.txt")
    lines = refused(
        write(
            SMALL.replace(
                "    aggregator: {model: m}\nlabel",
                "    aggregator: {model: m}\n    instruction: file:long.txt\nlabel",
            )
        )
    )
    assert len(lines) == 1
    assert "the resolved recipe is" in lines[0]


@pytest.mark.parametrize(
    "field",
    [field.path for field in walk() if field.path.endswith((".judge_model", "label.model"))],
)
def test_a_judge_that_is_no_model_is_named(write: Write, field: str) -> None:
    """Each benchmark's own judge, too: none of them is looked up before its name is checked."""
    assert refused(write(SMALL), f"{field}=gpt") == [
        f"--set {field}: {field}: 'gpt' is not one of `models` (m, other)."
    ]
