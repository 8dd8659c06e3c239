"""A recipe that is read: its values, the resolved text, and secrets, which it must not hold."""

from __future__ import annotations

import json
import random
import textwrap
from typing import Any

import pytest

from moaa.recipe import addresses
from moaa.recipe import read as yaml
from moaa.recipe.load import load_file, load_text
from tests.support.recipes import SMALL, Write, refused, refused_text


def test_scalars_are_those_of_yaml_1_2(write: Write) -> None:
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
def test_secrets_are_refused_and_never_repeated(write: Write, secret: str, by_set: bool) -> None:
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


def test_a_secret_under_an_unknown_key_or_in_a_prompt_is_not_repeated(write: Write) -> None:
    lines = refused(
        write(SMALL + "api_key: hf_abcdefghijklmnopqrstuv\n"), "sft.epochs=sk-abcdefghijklmnopqrst"
    )
    assert "abcdefghijklmnop" not in "\n".join(lines)
    assert len(lines) == 4  # each: a secret, and no such field or no number


def test_names_of_variables_are_accepted(write: Write) -> None:
    recipe = load_file(
        write(SMALL),
        [
            "models.m.endpoint={url: 'https://host/v1', key_env: OPENAI_API_KEY}",
            "runtime.secret_envs=[HF_TOKEN]",
        ],
    ).recipe
    assert recipe.models["m"].endpoint is not None
    assert recipe.models["m"].endpoint.key_env == "OPENAI_API_KEY"


def test_any_text_survives_the_resolved_text(write: Write) -> None:
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


def test_resolved_text_holds_no_character_that_a_pipeline_refuses(write: Write) -> None:
    loaded = load_file(write(SMALL), ['label.judge.aggregator.system="héllo 🙂"'])
    assert max(map(ord, loaded.text)) < 0x10000
    assert load_text(loaded.text).recipe.label.judge.aggregator.system == "héllo 🙂"


def test_rows_say_where_each_value_comes_from(write: Write) -> None:
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


def test_a_text_needs_no_line_break_and_a_path_is_never_read_as_text(write: Write) -> None:
    loaded = load_text(textwrap.dedent(SMALL))
    one_line = json.dumps(yaml.plain(yaml.read(loaded.text, "t", [])))
    assert load_text(one_line).recipe == loaded.recipe
    assert "cannot be read: No such file" in refused("name: x")[0]
    assert refused_text("name: x", "name=y")[0].startswith("recipe:1: ")


def test_small_recipe_is_itself_right(write: Write) -> None:
    assert load_text(textwrap.dedent(SMALL)).recipe.dpo.beta == 0.05
