"""A recipe's way in: places, every error at once, `extends`, `--set`, inlined files, and what is
refused."""

from __future__ import annotations

import json
import random
import textwrap
from pathlib import Path
from typing import Any

import pytest

from moaa.errors import RecipeError
from moaa.recipe import addresses
from moaa.recipe import read as yaml
from moaa.recipe.files import MAX_BYTES
from moaa.recipe.load import load_file, load_text
from tests.support.paths import DEMO, EVERY_RECIPE, RECIPES

SMALL = """\
name: small
store: {root: s3://bucket/small}
models:
  m: {source: some/model}
  other: {source: some/other}
target: m
prompts:
  sft: [{source: a.jsonl, limit: 10}]
  preference: [{source: b.jsonl, limit: 10}]
  evaluation: [{source: c.jsonl, limit: 10}]
generate:
  mixture:
    proposers:
      - {name: one, model: m}
      - {name: two, model: other}
    aggregator: {model: m}
label:
  judge:
    proposers: [{model: m}]
    aggregator: {model: m}
dpo:
  beta: 0.05
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Writes files into an empty working directory, so that places read `recipe.yaml:3`."""
    monkeypatch.chdir(tmp_path)

    def write(text: str, name: str = "recipe.yaml") -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return name

    return write


def refused(recipe: str | Path, *sets: str) -> list[str]:
    """Return the lines of the error for a recipe in a file."""
    with pytest.raises(RecipeError) as caught:
        load_file(recipe, sets)
    return str(caught.value).splitlines()


def refused_text(text: str, *sets: str) -> list[str]:
    """Return the lines of the error for a recipe given as text."""
    with pytest.raises(RecipeError) as caught:
        load_text(text, sets)
    return str(caught.value).splitlines()


# The shipped recipes


@pytest.mark.parametrize("path", EVERY_RECIPE, ids=lambda path: path.stem)
def test_shipped_recipes_are_right_and_round_trip(path: Path) -> None:
    loaded = load_file(path)
    assert load_text(loaded.text).recipe == loaded.recipe
    assert loaded.recipe.name == path.stem
    assert len(loaded.text.encode()) < MAX_BYTES / 4


def test_paper_recipes_hold_the_papers_numbers() -> None:
    llama, gemma, small = (
        load_file(RECIPES / f"{name}.yaml").recipe
        for name in ("paper-llama", "paper-gemma", "self-improve")
    )
    assert [llama.models[m.model].source for m in llama.generate.mixture.proposers] == [
        "alpindale/WizardLM-2-8x22B",
        "Qwen/Qwen2-72B-Instruct",
        "google/gemma-2-27b-it",
        "meta-llama/Llama-3.1-70B-Instruct",
    ]
    assert llama.models[llama.generate.mixture.aggregator.model].source == "Qwen/Qwen1.5-110B-Chat"
    assert [m.model for m in llama.label.judge.proposers] == [
        "gemma-2-27b",
        "llama-3-1-70b",
        "qwen2-72b",
    ]
    assert llama.label.judge.aggregator.model == "qwen2-72b"
    assert [s.limit for s in (*llama.prompts.sft, *llama.prompts.preference)] == [
        61_135,
        5_000,
        6_000,
    ]
    for recipe, sft, dpo, epochs in ((llama, 8e-6, 8e-7, 6), (gemma, 8e-6, 3e-7, 5)):
        assert (
            recipe.sft.learning_rate,
            recipe.sft.epochs,
            recipe.sft.global_batch,
            recipe.sft.packing,
        ) == (
            sft,
            epochs,
            128,
            True,
        )
        assert (
            recipe.dpo.learning_rate,
            recipe.dpo.epochs,
            recipe.dpo.global_batch,
            recipe.dpo.beta,
        ) == (dpo, 5, 128, 0.01)
        for training in (recipe.sft, recipe.dpo):
            assert (
                training.scheduler,
                training.warmup,
                training.max_length,
                training.zero_stage,
            ) == ("cosine", 0.1, 4096, 3)
        assert (
            recipe.sample.sampling.n,
            recipe.sample.sampling.temperature,
            recipe.sample.sampling.top_p,
        ) == (5, 0.8, 0.95)
        assert {
            m.sampling.temperature
            for m in (*recipe.label.judge.proposers, recipe.label.judge.aggregator)
        } == {0}
        assert {m.sampling.max_tokens for m in recipe.label.judge.proposers} == {512}
        assert {m.sampling.temperature for m in recipe.generate.mixture.proposers} == {0.7}
    assert gemma.models[gemma.target].source == "google/gemma-2-9b-it"
    assert [small.models[m.model].source for m in small.generate.mixture.proposers] == [
        "google/gemma-2-9b-it",
        "meta-llama/Llama-3.1-8B-Instruct",
        "mistralai/Mistral-7B-Instruct-v0.3",
    ]
    assert small.generate.mixture.aggregator.model == small.target == "gemma-2-9b"


def test_demo_can_be_changed_as_its_readers_are_told_and_keeps_its_sets_apart() -> None:
    recipe = load_file(DEMO).recipe
    assert recipe.dpo.beta != 0.1  # `--set dpo.beta=0.1` must change something
    taken = [
        (source.source, index)
        for sources in (recipe.prompts.sft, recipe.prompts.preference, recipe.prompts.evaluation)
        for source in sources
        for index in range(source.offset, source.offset + (source.limit or 0))
    ]
    assert len(taken) == len(set(taken)) == 8 + 3 + 4


# Errors: file, line, what was given, what is allowed


def test_unknown_key_names_the_nearest_and_the_line(write) -> None:
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
            "here: name, store, models, target, prompts, generate, sft, sample, label, dpo, "
            "evaluate, runtime, pools, plan.",
        ),
    ],
)
def test_what_is_wrong_and_where(write, old: str, new: str, expected: str) -> None:
    assert old in SMALL
    assert refused(write(SMALL.replace(old, new))) == [expected]


def test_tags_are_refused(write) -> None:
    lines = refused(write(SMALL.replace("beta: 0.05", "beta: !!python/name:os.system x")))
    assert (
        lines[0]
        == "recipe.yaml:22: the tag tag:yaml.org,2002:python/name:os.system is not allowed in a "
        "recipe. Remove it."
    )


def test_all_errors_at_once(write) -> None:
    text = SMALL.replace("beta: 0.05", "beta: -1\n  epoch: 3").replace("target: m", "target: 5")
    found = refused(write(text), "sft.learning_rate=fast", "runtime.engines.shedule=auto")
    assert [line.split(":")[0] + ":" + line.split(":")[1].split(" ")[0] for line in found] == [
        "recipe.yaml:6",
        "--set sft.learning_rate:",
        "recipe.yaml:22",
        "recipe.yaml:23",
        "--set runtime.engines.shedule:",
    ]


def test_broken_yaml_names_the_line(write) -> None:
    assert refused(write("name: x\nmodels: {a: b\n"))[0].startswith(
        "recipe.yaml:3: this is not YAML: expected ','"
    )
    assert refused(write("- a\n- b\n"))[0].startswith("recipe.yaml: a recipe is a mapping")


def test_aliases_of_aliases_are_refused_before_they_fill_the_memory(write) -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9)
    )
    assert any("aliases (*name) multiply" in line for line in refused(write(bomb)))


def test_too_large_texts_are_refused(write) -> None:
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


def test_scalars_are_those_of_yaml_1_2(write) -> None:
    text = SMALL.replace(
        "{source: some/model}", "{source: no, revision: 12:30, dtype: on}"
    ).replace("beta: 0.05", "beta: 5e-2")
    recipe = load_file(write(text)).recipe
    assert (recipe.models["m"].source, recipe.models["m"].revision, recipe.models["m"].dtype) == (
        "no",
        "12:30",
        "on",
    )
    assert recipe.dpo.beta == 0.05


# Secrets


@pytest.mark.parametrize(
    "secret",
    [
        "sk-abcdefghijklmnopqrst",
        "hf_abcdefghijklmnopqrstuv",
        "AKIAABCDEFGHIJKLMNOP",
        "https://user:hunter2hunter2@host/v1",
        "wJalrXUtnFEMIK7MDENG",
    ],
)
@pytest.mark.parametrize("by_set", [False, True])
def test_secrets_are_refused_and_never_repeated(write, secret: str, by_set: bool) -> None:
    field = "url" if secret.startswith("https") else "key_env"
    endpoint = {"url": "http://h/v1", field: secret}
    if by_set:
        lines = refused(
            write(SMALL), *(f"models.m.endpoint.{name}={value}" for name, value in endpoint.items())
        )
    else:
        given = ", ".join(f'{name}: "{value}"' for name, value in endpoint.items())
        lines = refused(
            write(SMALL.replace("{source: some/model}", f"{{source: a/b, endpoint: {{{given}}}}}"))
        )
    assert lines
    assert all(f"models.m.endpoint.{field}" in line for line in lines)
    assert secret not in "\n".join(lines)
    assert "hunter2" not in "\n".join(lines)


def test_a_secret_under_an_unknown_key_or_in_a_prompt_is_not_repeated(write) -> None:
    lines = refused(
        write(SMALL + "api_key: hf_abcdefghijklmnopqrstuv\n"), "sft.epochs=sk-abcdefghijklmnopqrst"
    )
    assert "abcdefghijklmnop" not in "\n".join(lines)
    assert len(lines) == 4  # each: a secret, and no such field or no number


def test_names_of_variables_are_accepted(write) -> None:
    recipe = load_file(
        write(SMALL),
        [
            "models.m.endpoint={url: 'https://host/v1', key_env: OPENAI_API_KEY}",
            "runtime.secret_envs=[HF_TOKEN]",
        ],
    ).recipe
    assert recipe.models["m"].endpoint is not None
    assert recipe.models["m"].endpoint.key_env == "OPENAI_API_KEY"


# extends


def test_extends_merges_field_by_field_and_keeps_places(write) -> None:
    write(SMALL, "bases/base.yaml")
    text = (
        "extends: bases/base.yaml\nname: child\nmodels:\n  m: {revision: v2}\n"
        "prompts:\n  sft: [{source: mine.jsonl}]\n"
    )
    loaded = load_file(write(text))
    assert loaded.recipe.name == "child"
    assert loaded.recipe.models["m"].model_dump(include={"source", "revision"}) == {
        "source": "some/model",
        "revision": "v2",
    }
    assert [source.source for source in loaded.recipe.prompts.sft] == [
        "mine.jsonl"
    ]  # lists are replaced
    assert loaded.origins["models.m.source"] == "bases/base.yaml:4"
    assert loaded.origins["models.m.revision"] == "recipe.yaml:4"
    assert "extends" not in loaded.text
    assert load_text(loaded.text).recipe == loaded.recipe


def test_extends_goes_on_and_circles_are_refused(write) -> None:
    write(SMALL, "a.yaml")
    write("extends: a.yaml\nname: b\n", "b.yaml")
    assert load_file(write("extends: b.yaml\nsft: {epochs: 2}\n", "c.yaml")).recipe.name == "b"
    write("extends: c.yaml\n", "a.yaml")
    assert "in a circle" in refused("a.yaml")[0]
    assert refused(write("name: x\nextends: nosuch.yaml\n", "d.yaml")) == [
        "d.yaml:2: extends nosuch.yaml: nosuch.yaml: the recipe cannot be read: No such file or "
        "directory. Check the path."
    ]
    with pytest.raises(RecipeError, match="`moaa recipe list` lists those that come with moaa"):
        load_file("nosuch")
    assert "needs a file to be relative to" in refused_text("extends: a.yaml\nname: b\n")[0]


# --set


def test_set_reaches_lists_new_parts_and_names_with_dots(write) -> None:
    text = SMALL.replace("  other:", '  "qwen-2.5": {source: x/y}\n  other:')
    loaded = load_file(
        write(text),
        [
            "generate.mixture.proposers[1].system=Be brief.",
            "generate.mixture.proposers.0.sampling={temperature: 1, n: 3}",
            'models."qwen-2.5".max_model_len=4096',
            "evaluate.judge={proposers: [{model: m}], aggregator: {model: m}}",
            "dpo.max_steps=null",
            "runtime.launcher.device=cpu",
        ],
    )
    recipe = loaded.recipe
    assert recipe.generate.mixture.proposers[1].system == "Be brief."
    assert (
        recipe.generate.mixture.proposers[0].sampling.temperature,
        recipe.generate.mixture.proposers[0].sampling.n,
    ) == (1, 3)
    assert recipe.models["qwen-2.5"].max_model_len == 4096
    assert recipe.evaluate.judge is not None
    assert recipe.runtime.launcher.device == "cpu"
    assert (
        loaded.origins["generate.mixture.proposers[0].sampling.n"]
        == "--set generate.mixture.proposers.0.sampling"
    )
    assert load_text(loaded.text).recipe == recipe


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        (
            "dpo.bata=0.1",
            "--set dpo.bata: dpo.bata is not a known field. Did you mean 'beta'?",
        ),
        (
            "dppo.beta=0.1",
            "--set dppo.beta: dppo is not a known field. Did you mean 'dpo'?",
        ),
        (
            "dpo.beta",
            "--set dpo.beta: give it as path=value, like dpo.beta=0.1 or "
            "generate.mixture.proposers[0].system=….",
        ),
        ("dpo.beta.x=1", "--set dpo.beta.x: dpo.beta has no 'x' in it."),
        (
            "dpo..beta=1",
            "--set dpo..beta: give it as path=value, like dpo.beta=0.1 or "
            "generate.mixture.proposers[0].system=….",
        ),
        (
            "generate.mixture.proposers[2].model=m",
            "--set generate.mixture.proposers[2].model: generate.mixture.proposers is a list of "
            "2; name one of them by "
            "its index, generate.mixture.proposers[0] to [1]. '2' is none.",
        ),
        (
            "dpo.beta=[",
            "--set dpo.beta: the value is not YAML: expected the node content, but found '<stream "
            "end>'.",
        ),
        (
            "sample.sampling.n=1",
            "--set sample.sampling.n: sample.sampling.n must be at least 2: a preference needs "
            "two answers.",
        ),
    ],
)
def test_set_is_refused_with_what_was_meant(write, setting: str, expected: str) -> None:
    assert expected in refused(write(SMALL), setting)


# Inlined instruction texts


def test_files_are_inlined_relative_to_the_recipe_that_names_them(write) -> None:
    write("Base says.\n", "bases/how.txt")
    write(
        SMALL.replace(
            "    aggregator: {model: m}\nlabel",
            "    aggregator: {model: m}\n    instruction: file:how.txt\nlabel",
        ),
        "bases/base.yaml",
    )
    write("Line one.\n\n  Line $two: {{ braces }}, 日本 🙂\n", "texts/persona.txt")
    loaded = load_file(
        write("extends: bases/base.yaml\nname: child\n"),
        ["label.judge.aggregator.system=file:texts/persona.txt"],
    )
    assert loaded.recipe.generate.mixture.instruction == "Base says."
    assert (
        loaded.recipe.label.judge.aggregator.system
        == "Line one.\n\n  Line $two: {{ braces }}, 日本 🙂"
    )
    assert "file:" not in loaded.text
    assert load_text(loaded.text).recipe == loaded.recipe


def test_files_that_cannot_be_inlined(write) -> None:
    assert refused(write(SMALL), "label.judge.aggregator.system=file:no.txt") == [
        "--set label.judge.aggregator.system: label.judge.aggregator.system: no.txt cannot be "
        "read: No such file or directory."
    ]
    assert (
        "a recipe given as text has no folder"
        in refused_text(SMALL, "label.judge.aggregator.system=file:no.txt")[0]
    )
    write("file:other.txt", "loop.txt")
    assert (
        "must hold the text"
        in refused(write(SMALL), "label.judge.aggregator.system=file:loop.txt")[0]
    )


# The resolved text


def test_any_text_survives_the_resolved_text(write) -> None:
    rng = random.Random(7)
    alphabet = [
        *"ab :#-'\"\\|>{}[]%@&*!?,\t\n\n  01e.~=\u00e9\u2028\u0085\r\ufeff\U0001f600",
        "null",
        "true",
        "1e5",
        "- ",
        ": ",
    ]
    errors: list[Any] = []
    for _ in range(300):
        text = "".join(rng.choices(alphabet, k=rng.randint(0, 30)))
        assert yaml.plain(yaml.read(yaml.dump({"x": text, "y": [text]}), "t", errors)) == {
            "x": text,
            "y": [text],
        }
        assert errors == []


def test_resolved_text_holds_no_character_that_a_pipeline_refuses(write) -> None:
    loaded = load_file(write(SMALL), ['label.judge.aggregator.system="héllo 🙂"'])
    assert max(map(ord, loaded.text)) < 0x10000
    assert load_text(loaded.text).recipe.label.judge.aggregator.system == "héllo 🙂"


def test_rows_say_where_each_value_comes_from(write) -> None:
    rows = {
        path: (value, where)
        for path, value, where in load_file(write(SMALL), ["dpo.beta=0.1"]).rows()
    }
    assert rows["dpo.beta"] == (0.1, "--set dpo.beta")
    assert rows["dpo.epochs"] == (5, "default")
    assert rows["generate.mixture.proposers[1].name"] == ("two", "recipe.yaml:15")
    assert rows["pools"] == ({}, "default")


def test_paths_are_read_as_they_are_written() -> None:
    for path in (("dpo", "beta"), ("a", 0, "b"), ("models", "qwen-2.5", "source"), ("x", 3, 1)):
        assert addresses.parse_path(addresses.dotted(path)) == path
    for text in ("", ".", "a.", ".a", "a..b", "a[x]", 'a."b'):
        assert addresses.parse_path(text) is None, text


def test_a_text_needs_no_line_break_and_a_path_is_never_read_as_text(write) -> None:
    loaded = load_text(textwrap.dedent(SMALL))
    one_line = json.dumps(yaml.plain(yaml.read(loaded.text, "t", [])))
    assert load_text(one_line).recipe == loaded.recipe
    assert "cannot be read: No such file" in refused("name: x")[0]
    assert refused_text("name: x", "name=y")[0].startswith("recipe:1: ")


def test_small_recipe_is_itself_right(write) -> None:
    assert load_text(textwrap.dedent(SMALL)).recipe.dpo.beta == 0.05
