"""What a recipe may read and run: files of its folder, and no code unless it says so."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moaa.errors import RecipeError
from moaa.plan import lines
from moaa.plan.sentences import assumptions
from moaa.preflight.inputs import remote_code
from moaa.preflight.run import PlannedRun
from moaa.recipe import engine_args, engine_rules
from moaa.recipe.load import load_file, load_text
from moaa.stages.table import stages
from moaa.store import Store
from tests.support.paths import PAPER
from tests.support.recipes import SMALL, refused_text
from tests.support.refusing import loaded, refused

Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def put(text: str, name: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return put


@pytest.mark.parametrize("name", sorted(engine_rules.REFUSED))
def test_no_argument_opens_the_server_or_runs_code(name: str) -> None:
    forms = [[name, "x"], [f"{name}=x"], [name.replace("-", "_").replace("__", "--", 1), "x"]]
    for form in [*forms, ["--seed", "1", name], [f"{name}.key=x"]]:
        assert [asked for asked, _ in engine_rules.refused(form)] == [name]


@pytest.mark.parametrize(
    "given",
    [
        ["--logits-processors", "os:system"],
        ["--distributed-executor-backend", "evil.mod.Executor"],
        ["--distributed-exec=evil.mod.Executor"],
        ["--compilation-config", '{"backend": "evil.mod.fn"}'],
        ["--compilation_config.backend=evil.mod.fn"],
        ["-cc.backend=evil.mod.fn"],
        ["-cc", '{"mode": 3, "inductor_passes": {"a": "evil.fn"}}'],
        ["-c", '{"inductor_compile_config": {"cpp.cxx": "sh"}}'],
        ["-cc.cache-dir", "/root/.ssh"],
        ["--structured-outputs-config.reasoning_parser_plugin", "evil.py"],
        ["--model-loader-extra-config", '{"tensorizer_uri": "http://evil"}'],
        ["--model-class-overrides", '{"Llama": "evil:Model"}'],
        ["-dpa", "evil.example"],
        ["-n2"],
    ],
)
def test_no_argument_that_takes_a_name_runs_code_of_that_name(given: list[str]) -> None:
    assert len(list(engine_rules.refused(given))) == 1
    assert "is not allowed" in refused(f"models.m.engine_args={json.dumps(given)}")


@pytest.mark.parametrize("short", ["--hos", "--ho", "--api", "--middle", "--trust-remote"])
def test_no_argument_is_hidden_by_its_short_form(short: str) -> None:
    assert "is not allowed" in refused(f"models.m.engine_args=['{short}', x]")


def test_the_arguments_that_recipes_need_are_allowed() -> None:
    given = "--reasoning-parser qwen3 --gpu-memory-utilization 0.95 --max-num-seqs 256 --model-impl"
    given += " transformers --enable-prefix-caching --kv-cache-dtype fp8 --config-format hf"
    given += " --distributed-executor-backend mp -cc.cudagraph_mode=PIECEWISE -dp 2 -q fp8"
    given += ' --compilation-config {"mode":3,"pass_config":{"fuse_norm_quant":true}}'
    assert list(engine_rules.refused(given.split())) == []


@pytest.mark.parametrize(
    "given",
    [
        "['--speculative-config={}']",
        "['-sc', '{}']",
        "['-sc.method=ngram']",
        "['--speculative_config.method=ngram']",
        "['--spec-method', ngram]",
        "['--spec-model', x/y]",
    ],
)
def test_a_model_that_stages_ask_does_not_speculate(given: str) -> None:
    said = refused(f"models.m.engine_args={given}")
    assert "the same seed gives another text each time" in said
    assert "speculativeTokens" in said
    unused = f"models.x={{source: org/x, engine_args: {given}}}"
    assert loaded(unused).models["x"].engine_args
    assert not engine_args.speculates(["--seed", "1", "--served-model-name=m"])


def test_code_of_a_repository_is_a_field_of_its_own() -> None:
    model = loaded("models.x={source: org/x, trust_remote_code: true}").models["x"]
    assert model.arguments == ["--trust-remote-code"]
    assert model.identity()["trust_remote_code"] is True
    assert "trust_remote_code" not in loaded().models["m"].identity()
    assert "m is the target" in refused("models.m.trust_remote_code=true")


def test_a_recipe_reads_no_file_outside_of_its_folder(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("THE SECRET\n", "secret.txt")
    (link := write("", "mine/link.txt")).unlink()
    link.symlink_to("../secret.txt")
    recipe = write(SMALL, "mine/recipe.yaml")
    secret = recipe.parents[1] / "secret.txt"
    for name in (
        str(secret),
        "../secret.txt",
        "link.txt",
        "/proc/self/environ",
        "sub/../../secret.txt",
    ):
        (recipe.parent / "sub").mkdir(exist_ok=True)
        with pytest.raises(RecipeError, match=r"outside of the recipe's folder"):
            load_file(recipe, [f"label.judge.aggregator.system=file:{name}"])
    monkeypatch.setenv("MOAA_ALLOW_FILES", "1")
    allowed = load_file(recipe, ["label.judge.aggregator.system=file:link.txt"]).recipe
    assert allowed.label.judge.aggregator.system == "THE SECRET"


def test_an_engine_reads_no_template_outside_of_the_recipes_folder(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("THE SECRET\n", "secret.jinja")
    write("{{ messages[0].content }}", "mine/own.jinja")
    recipe = write(SMALL, "mine/recipe.yaml")
    monkeypatch.chdir(recipe.parent)
    for form in ("['--chat-template', '{}']", "['--chat_template={}']"):
        for name in ("../secret.jinja", str(recipe.parents[1] / "secret.jinja")):
            with pytest.raises(RecipeError, match=r"--chat-template .* outside of the recipe's"):
                load_file(recipe, [f"models.m.engine_args={form.format(name)}"])
        own = load_file(recipe, [f"models.m.engine_args={form.format('own.jinja')}"])
        with pytest.raises(RecipeError, match="a recipe given as text has no folder"):
            load_text(own.text)  # a task that somebody gives a recipe reads nothing of its pod
        written = form.format("{{ 1 }}")
        assert load_text(SMALL, [f"models.m.engine_args={written}"])
    gone = "models.m.engine_args=['--chat-template', /only/in/the/engines/pod.jinja]"
    assert load_text(SMALL, [gone]).recipe.models["m"].engine_args
    monkeypatch.setenv("MOAA_ALLOW_FILES", "1")
    assert load_text(own.text)


@pytest.mark.parametrize("name", ["/dev/zero", "/etc", "loop.txt", "nul\\0byte", "."])
def test_odd_files_are_refused_in_one_line(
    name: str, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOAA_ALLOW_FILES", "1")
    recipe = write(SMALL, "recipe.yaml")
    (recipe.parent / "loop.txt").symlink_to("loop.txt")
    with pytest.raises(RecipeError) as error:
        load_file(recipe, [f'label.judge.aggregator.system="file:{name}"'])
    assert str(error.value).count("\n") == 0
    assert "cannot be read" in str(error.value)


def test_a_recipe_extends_none_outside_of_its_folder(write: Write) -> None:
    write(SMALL, "base.yaml")
    with pytest.raises(RecipeError, match=r"extends \.\./base.yaml: .*outside of"):
        load_file(write("extends: ../base.yaml\nname: x\n", "mine/recipe.yaml"))
    # Below one that is below it, all of the first one's folder may be read.
    write("extends: ../base.yaml\n", "bases/child.yaml")
    assert load_file(write("extends: bases/child.yaml\nname: y\n", "r.yaml")).recipe.name == "y"


def test_a_recipe_extends_one_that_comes_with_moaa_by_its_name(write: Write) -> None:
    assert load_file(write("extends: demo\nname: mine\n", "mine.yaml")).recipe.name == "mine"


@pytest.mark.parametrize("text", ["name: t\nmodels: &m\n  x: *m", "[" * 3000, "a: " + "{b: " * 900])
def test_nesting_without_end_is_one_line_and_no_traceback(text: str) -> None:
    with pytest.raises(RecipeError) as error:
        load_text(text)
    assert "nested more than 50 deep" in str(error.value)
    assert all(len(line) < 300 for line in str(error.value).splitlines()[:1])


def test_a_nested_value_of_an_override_is_one_line() -> None:
    nested: Any = 1
    for _ in range(900):
        nested = {"a": [nested]}
    with pytest.raises(RecipeError, match=r"^overrides dpo\.beta: .* more than 50 deep\.$"):
        load_text(SMALL, overrides={"dpo.beta": nested})


@pytest.mark.parametrize(
    "field", [r'note: "\ud800"', r'"\udfff": 1', r'models: {"\ud83d": {source: x}}', "odd: \ud800"]
)
def test_half_a_character_is_named_without_the_rest_of_the_recipe(field: str) -> None:
    with pytest.raises(RecipeError) as error:
        load_text(f"name: small\nnobody: reads this\n{field}\n")
    assert re.search("half a character|not YAML", str(error.value))
    assert "reads this" not in str(error.value)
    with pytest.raises(RecipeError, match="half a character"):
        load_text(SMALL, overrides={"models.m.source": "\ud800"})


def test_an_escape_that_is_no_character_is_one_line() -> None:
    assert "this is not YAML" in "".join(refused_text(r'name: "\U00110000"'))
    assert "not YAML" in refused(r'name="\UFFFFFFFF"')


def test_a_nested_value_of_set_is_one_line() -> None:
    assert "nested more than 50 deep" in refused("name=" + "[" * 3000)


def test_code_of_a_repository_is_shown_before_it_runs() -> None:
    recipe = load_file(PAPER, ["models.qwen2-72b.trust_remote_code=true"]).recipe
    run = PlannedRun(recipe, Store.of(recipe.store), stages(), local=False)
    (found,) = remote_code(run)
    assert "qwen2-72b: Python code of" in found.detail
    planned = assumptions(recipe, lines(recipe, stages()))
    assert "code of the models' repositories runs: qwen2-72b" in planned
