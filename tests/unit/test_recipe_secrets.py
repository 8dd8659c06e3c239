"""A recipe that somebody else wrote: it sends no key and no file anywhere, and opens no server."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from moaa.errors import RecipeError
from moaa.pipelines import tasks
from moaa.placement.compiled import fields
from moaa.placement.helm_values import serving
from moaa.plan import lines
from moaa.plan.sentences import assumptions
from moaa.preflight.inputs import remote_code
from moaa.preflight.run import Run
from moaa.recipe import engine_args, urls
from moaa.recipe.load import load_file, load_text
from moaa.recipe.schema import Recipe
from moaa.recipe.secrets import DESTINATIONS_ENV, destinations
from moaa.stages import preflight
from moaa.stages.table import stages
from moaa.store import Store
from moaa.task import Task
from tests.support.paths import PAPER
from tests.support.recipes import SMALL

ENDPOINT = "models.m.endpoint={{url: {url!r}, key_env: {key}}}"
Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def put(text: str, name: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return put


def loaded(*sets: str) -> Recipe:
    return load_text(SMALL, sets).recipe


def refused(*sets: str) -> str:
    with pytest.raises(RecipeError) as error:
        load_text(SMALL, sets)
    return str(error.value)


@pytest.mark.parametrize(
    "key",
    [
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "HF_TOKEN",
        "HUGGING_FACE_HUB_TOKEN",
        "KFP_TOKEN",
        "KUBECONFIG",
        "KUBERNETES_SERVICE_HOST",
        "GITHUB_TOKEN",
        "GH_TOKEN",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
        "CI_JOB_TOKEN",
        "MOAA_DESTINATIONS",
        "PATH",
    ],
)
def test_the_key_of_another_service_is_sent_to_no_endpoint(key: str) -> None:
    text = refused(ENDPOINT.format(url="https://models.example/v1", key=key))
    assert f"{key} belongs to" in text
    assert "models.m.endpoint" in text


def test_the_stores_own_key_is_sent_to_no_endpoint() -> None:
    text = refused(
        "store.secret_key_env=MINIO_SECRET",
        ENDPOINT.format(url="https://models.example/v1", key="MINIO_SECRET"),
    )
    assert "MINIO_SECRET belongs to the store" in text


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("https://router.huggingface.co/v1", "HF_TOKEN"),
        ("https://models.github.ai/inference", "GITHUB_TOKEN"),
        ("https://bedrock-runtime.us-east-1.amazonaws.com/openai/v1", "AWS_BEARER_TOKEN_BEDROCK"),
        ("https://api.openai.com/v1", "OPENAI_API_KEY"),
    ],
)
def test_a_key_may_go_to_its_owners_endpoint(url: str, key: str) -> None:
    assert loaded(ENDPOINT.format(url=url, key=key))
    with pytest.raises(RecipeError):
        loaded(ENDPOINT.format(url="https://nothuggingface.co.example/v1", key="HF_TOKEN"))


@pytest.mark.parametrize("field", ["access_key_env", "secret_key_env"])
@pytest.mark.parametrize("name", ["GITHUB_TOKEN", "HF_TOKEN", "KFP_TOKEN", "OPENAI_API_KEY"])
def test_no_other_key_signs_requests_to_a_store(field: str, name: str) -> None:
    assert f"store.{field}: {name} is not a key" in refused(f"store.{field}={name}")


def test_an_endpoints_key_signs_no_requests_to_a_store() -> None:
    endpoint = ENDPOINT.format(url="https://models.example/v1", key="MINE")
    assert "MINE belongs to the store" in refused("store.access_key_env=MINE", endpoint)


@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", "KUBECONFIG", "LD_PRELOAD"])
def test_the_stages_get_no_key_of_another_service(name: str) -> None:
    assert f"{name} is not for the stages" in refused(f"runtime.secret_envs=[{name}]")
    assert loaded("runtime.secret_envs=[HF_TOKEN]")


@pytest.mark.parametrize(
    ("url", "private"),
    [
        ("https://10.0.0.2:8000/v1", True),
        ("http://127.0.0.1:8000/v1", True),
        ("http://[::1]:8000/v1", True),
        ("http://localhost:8000/v1", True),
        ("http://judge.models.svc:8000/v1", True),
        ("http://judge.models.svc.cluster.local/v1", True),
        ("http://10.0.0.2:8000/v1", False),
        ("http://models.example/v1", False),
        ("http://127.0.0.1.evil.example/v1", False),
        ("http://localhost.evil.example/v1", False),
        ("http://evil.example/127.0.0.1.svc", False),
    ],
)
def test_a_key_is_not_sent_over_plain_http(url: str, private: bool) -> None:
    endpoint = ENDPOINT.format(url=url, key="MINE")
    if private:
        assert loaded(endpoint)
        return
    assert "over plain http" in refused(endpoint)
    assert loaded(endpoint, "models.m.endpoint.allow_http=true")
    assert loaded(f"models.m.endpoint.url={url}")  # without a key it may


HOSTILE_URLS = [
    "https://:S3CR3T@h/v1",
    "https://S3CR3T@h/v1",
    "https://user:S3/CR3T@h/v1",
    "https://us@er:S3CR3T@h/v1",
    "user:S3CR3T@h",
    "https://h/v1?api_key=S3CR3T",
    "https://h/v1#S3CR3T",
    "https://h:S3CR3T/v1",
    "S3CR3T",
    "ftp://S3CR3T/v1",
    "https:///S3CR3T",
    "https://h\\S3CR3T",
    "https://h/v1 S3CR3T",
]


@pytest.mark.parametrize("url", HOSTILE_URLS)
@pytest.mark.parametrize("field", ["models.m.endpoint.url", "store.endpoint_url"])
def test_no_address_holds_a_secret(field: str, url: str) -> None:
    text = refused(f'{field}="{url}"'.replace("\\", "\\\\"))
    assert field.split(".")[-1] in text
    assert "S3CR3T" not in text
    assert "S3/CR3T" not in text


@pytest.mark.parametrize(
    "setting",
    [
        'models.m.endpoint="S3CR3T"',
        'store="S3CR3T"',
        'models.m.engine_args="--api-key S3CR3T"',
        'models.m.engine_args=["--api-key", "S3CR3T"]',
        'models.m.engine_args=["--api_key=S3CR3T"]',
        "models.m.engine_args=['--otlp-traces-endpoint=http://u:S3CR3T@h']",
        'models.m.source="s3://KEY:S3CR3T@bucket/model"',
        'prompts.sft=[{source: "https://S3CR3T@h/prompts.jsonl"}]',
        "models.m.endpoint={url: 'https://h/v1', sk-S3CR3Tabcdefghijklmn: x}",
    ],
)
def test_a_secret_given_by_mistake_is_not_repeated(setting: str) -> None:
    assert "S3CR3T" not in refused(setting).replace(f"--set {setting.split('=')[0]}", "")


@pytest.mark.parametrize("name", sorted(engine_args.REFUSED))
def test_no_argument_opens_the_server_or_runs_code(name: str) -> None:
    forms = [[name, "x"], [f"{name}=x"], [name.replace("-", "_").replace("__", "--", 1), "x"]]
    for form in [*forms, ["--seed", "1", name], [f"{name}.key=x"]]:
        assert [asked for asked, _ in engine_args.refused(form)] == [name]


@pytest.mark.parametrize("short", ["--hos", "--ho", "--api", "--middle", "--trust-remote"])
def test_no_argument_is_hidden_by_its_short_form(short: str) -> None:
    assert "is not allowed" in refused(f"models.m.engine_args=['{short}', x]")


def test_the_arguments_that_recipes_need_are_allowed() -> None:
    given = "--reasoning-parser qwen3 --gpu-memory-utilization 0.95 --max-num-seqs 256 --model-impl"
    given += " transformers --enable-prefix-caching --kv-cache-dtype fp8 --config-format hf"
    assert list(engine_args.refused(given.split())) == []


def test_code_of_a_repository_is_a_field_of_its_own() -> None:
    model = loaded("models.x={source: org/x, trust_remote_code: true}").models["x"]
    assert model.arguments == ["--trust-remote-code"]
    assert model.identity()["trust_remote_code"] is True
    assert "trust_remote_code" not in loaded().models["m"].identity()
    assert "m is the target" in refused("models.m.trust_remote_code=true")


# Files


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


# Hostile YAML


@pytest.mark.parametrize("text", ["name: t\nmodels: &m\n  x: *m", "[" * 3000, "a: " + "{b: " * 900])
def test_nesting_without_end_is_one_line_and_no_traceback(text: str) -> None:
    with pytest.raises(RecipeError) as error:
        load_text(text)
    assert "nested more than 50 deep" in str(error.value)
    assert all(len(line) < 300 for line in str(error.value).splitlines()[:1])


def test_a_nested_value_of_set_is_one_line() -> None:
    assert "nested more than 50 deep" in refused("name=" + "[" * 3000)


def test_an_origin_has_its_port() -> None:
    assert urls.origin("https://h/v1") == "https://h:443"
    assert urls.origin("http://H:80/v1/") == "http://h:80"


# A compiled pipeline's keys


def test_a_runs_recipe_sends_no_key_elsewhere_than_the_compiled_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    endpoint = ENDPOINT.format(url="https://models.example/v1", key="MINE")
    compiled = json.dumps(destinations(loaded(endpoint)))
    monkeypatch.setenv(DESTINATIONS_ENV, compiled)
    path = "models.m.endpoint.url"
    same = load_text(SMALL, [endpoint, f"{path}=https://models.example:443/other"]).text
    assert Task(same, "r").load().recipe.models["m"].endpoint
    for elsewhere in (f"{path}=https://evil.example/v1", "store.endpoint_url=http://evil.example"):
        text = load_text(SMALL, [endpoint, elsewhere]).text
        with pytest.raises(RecipeError, match=r"evil\.example.*Nothing was sent"):
            Task(text, "r").load()


def test_each_task_knows_where_keys_may_go() -> None:
    recipe = load_file(PAPER).recipe
    for stage in stages():
        environment = tasks.place(recipe, stage).environment
        assert json.loads(environment[DESTINATIONS_ENV]) == destinations(recipe)


def test_no_address_is_asked_if_the_pods_are_other_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store, an endpoint, or a cluster of the run's recipe would get keys of the pipeline."""
    compiled_from = json.dumps(fields(load_file(PAPER).recipe, stages()))
    hostile = ["models.qwen2-72b.endpoint={url: https://evil.example/v1, key_env: MINE}"]
    recipe = load_file(PAPER, hostile).recipe

    def asked(*args: object, **options: object) -> NoReturn:
        raise AssertionError("an address of this recipe was asked")

    monkeypatch.setattr(socket.socket, "connect", asked)
    monkeypatch.setattr(socket, "getaddrinfo", asked)
    found = preflight.findings(recipe, Store.of(recipe.store), stages(), compiled_from)
    assert [each.check for each in found if not each.ok]
    assert {each.check for each in found} == {"compiled pipeline"}


def test_code_of_a_repository_is_shown_before_it_runs() -> None:
    recipe = load_file(PAPER, ["models.qwen2-72b.trust_remote_code=true"]).recipe
    run = Run(recipe, Store.of(recipe.store), stages(), local=False)
    (found,) = remote_code(run)
    assert "qwen2-72b: Python code of" in found.detail
    planned = assumptions(recipe, lines(recipe, stages()))
    assert "code of the models' repositories runs: qwen2-72b" in planned


def test_with_an_identity_of_its_own_no_pod_gets_a_key() -> None:
    recipe = load_file(PAPER, ["runtime.cluster.s3_secret=null"]).recipe
    for stage in stages():
        given = [key for each in tasks.place(recipe, stage).secrets for key in each.variables]
        assert not [key for key in given if key.startswith("AWS_")], stage.name
    assert serving(recipe)["s3"] == {"secretName": ""}
