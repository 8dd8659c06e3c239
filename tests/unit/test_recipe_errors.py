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
            'recipe.yaml:22: dpo.beta is "high". It must be a number.',
        ),
        (
            "beta: 0.05",
            'beta: "0.1"',
            'recipe.yaml:22: dpo.beta is "0.1". It must be a number.',
        ),
        (
            "beta: 0.05",
            "beta: true",
            "recipe.yaml:22: dpo.beta is true. It must be a number.",
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
            "recipe.yaml:13: generate.mixture.proposers: ['one'] have the same name; give each "
            "its own `name`, or one of them `sampling.n`.",
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
    assert [" ".join(line.split(" ")[: 2 if line.startswith("--") else 1]) for line in found] == [
        "recipe.yaml:6:",
        "--set sft.learning_rate",
        "recipe.yaml:22:",
        "recipe.yaml:23:",
        "--set runtime.engines.shedule",
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
        f"--set {field}: 'gpt' is not one of `models` (m, other)."
    ]


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("evaluate.contestants", "[]", "must have at least 1"),
        ("evaluate.contestants", "[base, m, base]", "'base' is there twice; name each once"),
        ("evaluate.benchmarks.judge_bench", "{judges: []}", "must have at least 1"),
        ("evaluate.benchmarks.judge_bench", "{judges: [members, members]}", "is there twice"),
        ("evaluate.benchmarks.ppe", "{sets: [human, human]}", "'human' is there twice"),
        ("evaluate.benchmarks.gsm8k", "{task: nope}", "'gsm8k_cot_zeroshot', 'gsm8k_cot' or"),
        ('models.""', "{source: a/b}", "1 to 200 characters without spaces and quotes"),
        ("models.a b", "{source: a/b}", "1 to 200 characters without spaces and quotes"),
        ("generate.mixture.instruction", "''", "a text with at least one word"),
        ("label.judge.verdict_instruction", "' '", "a text with at least one word"),
        ("generate.mixture.instruction", "file:empty.txt", "empty.txt has no text"),
        ("generate.mixture.aggregator.system", "file:empty.txt", "empty.txt has no text"),
    ],
)
def test_what_would_have_no_effect_is_refused(
    write: Write, field: str, value: str, expected: str
) -> None:
    write("\n \n", "empty.txt")
    (line,) = refused(write(SMALL), f"{field}={value}")
    assert expected in line
    assert line.startswith(f"--set {field}")
    assert "[key]" not in line


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is a mapping of fields"),
        ("- a\n- b\n", "is a mapping of fields"),
        ("a text\n", "is a mapping of fields"),
        ("name:\n\tx: 1\n", "this is not YAML"),
        ("name: a\n---\nname: b\n", "this is not YAML"),
        ("extends: 3\n", "extends must be the path of one recipe"),
        ("extends: empty.yaml\n", "empty.yaml: a recipe is a mapping of fields"),
    ],
)
def test_a_document_that_cannot_be_read_has_one_error(
    write: Write, text: str, expected: str
) -> None:
    write("", "empty.yaml")
    (line,) = refused(write(text))
    assert expected in line


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ("dpo.beta=[1", "--set dpo.beta: the value is not YAML"),
        ("dpo.beta=!!python/none x", "--set dpo.beta"),
        ("prompts.sft=[{source: a.jsonl, limit: 0}]", "--set prompts.sft: prompts.sft[0].limit is"),
        ("generate.mixture.proposers=[{model: [1}]", "--set generate.mixture.proposers: the value"),
    ],
)
def test_what_follows_from_a_mistake_is_no_second_one(
    write: Write, changed: str, expected: str
) -> None:
    (line,) = refused(write(SMALL), changed)
    assert line.startswith(expected)


def test_a_target_that_is_no_model_is_one_mistake_with_rounds_too(write: Write) -> None:
    (line,) = refused(write(SMALL), "target=no", "rounds=2", "gate={}")
    assert line == "--set target: 'no' is not one of `models` (m, other)."


@pytest.mark.parametrize(
    ("changed", "place"),
    [
        ("evaluate.contestants=[base, base]", "--set evaluate.contestants: "),
        ("evaluate.sampling.n=3", "--set evaluate.sampling.n: evaluate.sampling: n is 3"),
        (
            "generate.mixture.proposers=[{model: m}, {model: m}]",
            "--set generate.mixture.proposers: ",
        ),
        ("generate.mixture.proposers[1].name=one", "--set generate.mixture.proposers[1].name: "),
        ("generate.mixture.min_proposers=9", "--set generate.mixture.min_proposers: generate.mix"),
        ("dpo.keep=best", "--set dpo.keep: dpo: keep is 'best'"),
        ("promote.steps=[5]", "--set promote.steps: write growing shares"),
    ],
)
def test_values_that_do_not_fit_together_are_named_by_the_one_that_was_set(
    write: Write, changed: str, place: str
) -> None:
    text = SMALL + "evaluate:\n  sampling: {temperature: 0}\npromote: {hold_s: 1}\n"
    text += "publish: {}\ngate: {}\n"
    (line,) = refused(write(text), changed)
    assert line.startswith(place)


def test_a_mistake_that_is_in_the_file_has_its_line_whatever_was_set(write: Write) -> None:
    twice = write(SMALL.replace("name: two", "name: one"))
    (line,) = refused(twice, "generate.mixture.aggregator.system=Be brief.")
    assert line.startswith("recipe.yaml:13: generate.mixture.proposers: ")


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("name", "A_b", "small letters, digits and -, at most 40 characters, with no - at an end"),
        ("publish.name", "a/b", "letters, digits, -, ., _ and spaces, at most 96 characters, with"),
        ("publish.hub", "{repository: x}", "OWNER/NAME, both of letters, digits, -, . and _"),
        ("store.root", "/tmp/x", "s3://BUCKET or s3://BUCKET/PREFIX"),
        ("store.expected_owner", "'12'", "12 digits"),
        ("runtime.cluster.namespace", "A", "small letters, digits and -, at most 63 characters"),
        ("runtime.cluster.env_secret", "A", "small letters, digits, - and ., at most 253 char"),
    ],
)
def test_a_form_is_said_in_words(write: Write, field: str, value: str, allowed: str) -> None:
    (line,) = refused(write(SMALL), f"{field}={value}")
    assert f". It must be {allowed}" in line
    assert "^" not in line


def test_a_wrong_name_of_a_field_that_has_names_is_said_in_words(write: Write) -> None:
    assert refused(write(SMALL), "plan.prompts.x=3") == [
        "--set plan.prompts.x: the name is \"x\". It must be 'sft', 'preference' or 'evaluation'."
    ]
    assert refused(write(SMALL), "models={}") == [
        "--set models is {}. It must have at least 1 item."
    ]
