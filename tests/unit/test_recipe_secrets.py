"""Keys reach the services that they are for, and no secret is repeated."""

from __future__ import annotations

import json
import socket
from typing import NoReturn

import pytest

from moaa.errors import RecipeError
from moaa.pipelines import tasks
from moaa.placement.compiled import fields
from moaa.placement.helm_values import serving
from moaa.recipe import urls
from moaa.recipe.load import load_file, load_text
from moaa.recipe.secrets import DESTINATIONS_ENV, destinations
from moaa.rest import key_of
from moaa.stages import preflight
from moaa.stages.table import stages
from moaa.store import Store
from moaa.task import Task
from tests.support.paths import PAPER
from tests.support.recipes import SMALL
from tests.support.refusing import loaded, refused

ENDPOINT = "models.m.endpoint={{url: {url!r}, key_env: {key}}}"


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


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("https://abc.execute-api.us-east-1.amazonaws.com/v1", "AWS_BEARER_TOKEN_BEDROCK"),
        ("https://bedrock-runtime.s3.amazonaws.com/v1", "AWS_BEARER_TOKEN_BEDROCK"),
        ("https://bedrock-runtime.s3-us-west-2.amazonaws.com/v1", "AWS_BEARER_TOKEN_BEDROCK"),
        ("https://abc.us-east-1.aws.endpoints.huggingface.cloud/v1", "HF_TOKEN"),
        ("https://mine.inference.ai.azure.com/v1", "GITHUB_TOKEN"),
    ],
)
def test_a_key_does_not_go_to_a_server_of_its_owners_customers(url: str, key: str) -> None:
    assert f"{key} belongs to" in refused(ENDPOINT.format(url=url, key=key))


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
    "https://S3CR3T..h/v1",
    "https://S3CR3T%40h..",
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
        'prompts.sft=[{source: "https://h/prompts.jsonl?X-Amz-Signature=S3CR3T"}]',
        'models.m.source="HTTPS://h/model?token=S3CR3T"',
        *[
            f'models.m.endpoint={{url: "https://h/v1", model: {start}S3CR3Tabcdefghijklmn}}'
            for start in ("ghs_", "glpat-", "gsk_", "xai-", "sk_live_", "pypi-", "npm_", "ya29.")
        ],
        "models.m.revision=eyJhbGciOiJIUzI1.eyJzdWIiOiIxMjM0.S3CR3Tabcdefghijkl",
    ],
)
def test_a_secret_given_by_mistake_is_not_repeated(setting: str) -> None:
    assert "S3CR3T" not in refused(setting).replace(f"--set {setting.split('=')[0]}", "")


def test_a_key_of_several_lines_is_not_shown_by_what_refuses_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for odd in ("S3CR3T\nsecond", "S3CR3T\x1b", "S3CR3T\N{EURO SIGN}"):
        monkeypatch.setenv("KEY", odd)
        with pytest.raises(LookupError, match="KEY holds no key") as caught:
            key_of("KEY")
        assert "S3CR3T" not in str(caught.value)


def test_an_origin_has_its_port() -> None:
    assert urls.origin("https://h/v1") == "https://h:443"
    assert urls.origin("http://H:80/v1/") == "http://h:80"


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


def test_with_an_identity_of_its_own_no_pod_gets_a_key() -> None:
    recipe = load_file(PAPER, ["runtime.cluster.s3_secret=null"]).recipe
    for stage in stages():
        given = [key for each in tasks.place(recipe, stage).secrets for key in each.variables]
        assert not [key for key in given if key.startswith("AWS_")], stage.name
    assert serving(recipe)["s3"] == {"secretName": ""}
