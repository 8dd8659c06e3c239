"""What changes a recipe: `extends`, `--set`, and texts in files of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from moaa.errors import RecipeError
from moaa.recipe.load import load_file, load_text
from tests.support.recipes import SMALL, Write, refused, refused_text


def test_extends_merges_field_by_field_and_keeps_places(write: Write) -> None:
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


def test_extends_goes_on_and_circles_are_refused(write: Write) -> None:
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


def test_set_reaches_lists_new_parts_and_names_with_dots(write: Write) -> None:
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
            "--set dpo.bata is not a known field. Did you mean 'beta'?",
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
        (
            "=3",
            "--set =3: give it as path=value, like dpo.beta=0.1 or "
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
            "--set sample.sampling.n must be at least 2: a preference needs two answers.",
        ),
    ],
)
def test_set_is_refused_with_what_was_meant(write: Write, setting: str, expected: str) -> None:
    assert expected in refused(write(SMALL), setting)


def test_files_are_inlined_relative_to_the_recipe_that_names_them(write: Write) -> None:
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


def test_a_byte_order_mark_of_a_file_is_no_part_of_a_message(write: Write) -> None:
    write("\ufeffBe brief.\n", "texts/how.txt")
    found = load_file(write(SMALL), ["label.judge.aggregator.system=file:texts/how.txt"])
    assert found.recipe.label.judge.aggregator.system == "Be brief."


def test_files_that_cannot_be_inlined(write: Write) -> None:
    assert refused(write(SMALL), "label.judge.aggregator.system=file:no.txt") == [
        "--set label.judge.aggregator.system: no.txt cannot be "
        "read: No such file or directory. Check the path."
    ]
    assert (
        "a recipe given as text has no folder"
        in refused_text(SMALL, "label.judge.aggregator.system=file:no.txt")[0]
    )
    Path("latin.txt").write_bytes(b"\xe9")
    (line,) = refused(write(SMALL), "label.judge.aggregator.system=file:latin.txt")
    assert line.endswith("it is not text in UTF-8. Save it as UTF-8.")
    write("file:other.txt", "loop.txt")
    assert (
        "must hold the text"
        in refused(write(SMALL), "label.judge.aggregator.system=file:loop.txt")[0]
    )
