"""Mistakes in the file of a sweep: each with its line, what was given, and what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from moaa import sweeps
from moaa.errors import RecipeError
from moaa.recipe.load import load_file
from tests.support.small_sweep import written


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("variants: {a: {}}", r"small\.yaml:1: name is missing\.\n.*: recipe is missing\.$"),
        (
            "name: a\nrecipe: demo\nvariants: {}",
            r"small\.yaml:3: variants is {}\. It must have at least 1 item\.$",
        ),
        ("name: a\nrecipe: demo\nvariants: 3", r"yaml:3: variants is 3\. It must be a mapping"),
        ("name: a\nrecipe: demo\nat_once: 0\nvariants: {a: {}}", r"small\.yaml:3: at_once is 0\."),
        ("name: A_b\nrecipe: demo\nvariants: {a: {}}", r"small\.yaml:1: name is \"A_b\".*30 char"),
        (
            "name: a\nrecipe: demo\nvariants:\n  B b/x: {}",
            r"small\.yaml:4: variants\.B b/x: the name is \"B b/x\"\. It must be small letters",
        ),
        (
            "name: a\nrecipe: demo\nvariants: {a: {sets: []}}",
            r"small\.yaml:3: variants\.a\.sets is not a known field. Did you mean 'set'\?$",
        ),
        (
            "name: a\nrecipe: demo\nstore: {}\nvariants: {a: {}}",
            r"yaml:3: store is not a known field\. Fields here: name, recipe, until, .* set,",
        ),
        ("[]", r"small\.yaml: a sweep is a mapping of fields[^\n]*$"),
        ("", r"small\.yaml: a sweep is a mapping of fields[^\n]*$"),
        (
            "name: a\nrecipe: demo\nuntil: evalute\nvariants: {a: {}}",
            r"small\.yaml:3: until: 'evalute' is not a stage; the stages are pref.*promote\.$",
        ),
        (
            "name: a\nrecipe: no.yaml\nvariants: {a: {}, b: {}}",
            r"small\.yaml:2: recipe is 'no\.yaml', but [^\n]* is no file\. [^\n]*: demo,[^\n]*$",
        ),
        (
            "name: a\nrecipe: demo\nset: [dpo.beta=-1]\nvariants: {a: {}, b: {}}",
            r"small\.yaml:4: every variant: --set dpo\.beta is -1[^\n]*$",
        ),
        ("name: a\nstore: {}\nmodels: {}", "this is a recipe, not a sweep. Give it to `moaa run`"),
        ("extends: demo\nname: a", "this is a recipe, not a sweep"),
        (
            "name: a\nrecipe: demo\nvariants: {x: {set: [dpo.bet=1]}, y: {set: [sft.epochs=no]}}",
            r"(?s)small\.yaml:3: variant 'x': .*dpo\.bet.*yaml:3: variant 'y': .*sft\.epochs",
        ),
        (
            "name: a\nrecipe: demo\nvariants: {x: {}, y: {set: ['store.root=s3://other/x']}}",
            "keep their results in different places",
        ),
    ],
)
def test_a_mistake_names_its_place(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(RecipeError, match=problem):
        sweeps.load(written(tmp_path, text))


@pytest.mark.parametrize(
    "field",
    [
        "set: [sk-S3CR3Tabcdefghijklmn]",
        "set: ['models.m.endpoint.url=https://u:S3CR3T@h/v1']",
        "set: ['models.m.source=https://h/m?token=S3CR3T']",
        "at_once: sk-S3CR3Tabcdefghijklmn",
        "variants: {b: {about: {x: sk-S3CR3Tabcdefghijklmn}}}",
        "variants: {sk-S3CR3Tabcdefghijklmn: {}}",
    ],
)
def test_a_secret_given_by_mistake_is_not_repeated(tmp_path: Path, field: str) -> None:
    more = "" if field.startswith("variants") else "variants: {a: {}}"
    with pytest.raises(RecipeError, match=r"small\.yaml:3: .*(secret|password|query)") as caught:
        sweeps.load(written(tmp_path, f"name: a\nrecipe: demo\n{field}\n{more}"))
    assert "S3CR3T" not in str(caught.value)


def test_a_file_that_is_not_there_is_answered_with_the_sweeps_that_are(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"no\.yaml: .*No such file.*: paper-tables") as caught:
        sweeps.load(tmp_path / "no.yaml")
    assert "Errno" not in str(caught.value)


def test_a_mistake_of_the_recipe_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("extends: demo\ndpo: {beta: -1}\n")
    text = "name: a\nrecipe: mine.yaml\nvariants: {a: {}, b: {set: [sft.epochs=-1]}}"
    with pytest.raises(RecipeError) as caught:
        sweeps.load(written(tmp_path, text))
    first, second = str(caught.value).splitlines()
    assert first.endswith("mine.yaml:2: dpo.beta is -1. It must be greater than 0.")
    assert "small.yaml:3: every variant: " in first
    assert "small.yaml:3: variant 'b': --set sft.epochs is -1." in second


def test_a_file_that_is_no_text_is_answered_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_bytes(b"name: \xe9")
    with pytest.raises(RecipeError, match=r"not text in UTF-8\. Save it as UTF-8\.$"):
        sweeps.load(path)


def test_a_sweep_is_no_recipe(tmp_path: Path) -> None:
    path = written(tmp_path, "name: a\nrecipe: demo\nvariants: {a: {}}")
    with pytest.raises(RecipeError, match=r"is a sweep, not a recipe\. Give it to `moaa sweep`"):
        load_file(path)
