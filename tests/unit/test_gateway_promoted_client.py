"""OpenAI's own client against a promoted model and a model that sleeps; the guide's own files."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from moaa.errors import RecipeError
from moaa.gateway.config import parse_config
from moaa.kubernetes.kinds import SLICES
from tests.support.kube_server import KubeServer
from tests.support.later import later
from tests.support.paths import ROOT
from tests.support.split_models import gateway_of, promoted, scale, service, sleeping
from tests.support.streaming_engine import StreamingEngine
from tests.support.waiting import async_until

openai = later("openai")
pytestmark = pytest.mark.xdist_group("openai")

HI: Any = [{"role": "user", "content": "Hi"}]


def client(url: str, key: str = "-") -> Any:
    return openai.AsyncOpenAI(base_url=url, api_key=key, max_retries=0)


async def test_a_promoted_model_is_a_model_for_it() -> None:
    with StreamingEngine("aligned") as a, StreamingEngine("aligned") as b:
        async with gateway_of(promoted(a, b, 100)) as (_, url), client(url) as asks:
            raw = await asks.chat.completions.with_raw_response.create(
                model="aligned", messages=HI, max_tokens=8
            )
            assert raw.headers["x-moaa-revision"] == "aligned-b"
            assert raw.parse().choices[0].message.content
            async with asks.chat.completions.stream(model="aligned", messages=HI) as stream:
                whole = await stream.get_final_completion()
            assert whole.choices[0].message.content == "".join(f"w{n} " for n in range(8))
            one = await asks.models.retrieve("aligned")
            assert (one.model_extra or {})["slots"]["b"]["share"] == 100
            with pytest.raises(openai.NotFoundError):
                await asks.chat.completions.create(model="aligned@v9", messages=HI)


async def test_it_waits_through_the_comments_of_a_model_that_wakes(kube: KubeServer) -> None:
    with StreamingEngine("m") as engine:
        async with gateway_of(sleeping(kube), kube) as (_, url), client(url, "may") as asks:
            with pytest.raises(openai.InternalServerError) as error:
                await asks.chat.completions.create(model="m", messages=HI, max_tokens=8)
            assert error.value.code == "model_asleep"
            stream = await asks.chat.completions.create(model="m", messages=HI, stream=True)
            await async_until(lambda: scale(kube, "ens-m") == 1)
            kube.put(SLICES, service("ens-m", engine.port))
            said = [each.choices[0].delta.content async for each in stream if each.choices]
    assert "".join(filter(None, said)).startswith("w0 w1")


async def test_a_model_that_does_not_wake_is_an_error_for_it(kube: KubeServer) -> None:
    config = sleeping(kube, hold_s=0.2)
    async with gateway_of(config, kube) as (_, url), client(url, "may") as asks:
        stream = await asks.chat.completions.create(model="m", messages=HI, stream=True)
        with pytest.raises(openai.APIError, match="did not start"):
            await anext(stream)


def test_the_files_of_the_guide_are_right() -> None:
    text = (ROOT / "docs/serving.md").read_text()
    whole, keys, values = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    made = parse_config(whole, "docs/serving.md")
    assert made.names == ["small", "big", "moa"]
    keyed = yaml.safe_load(keys.replace("2c1d…", "'" + 64 * "0" + "'"))
    rest = {key: value for key, value in yaml.safe_load(whole).items() if key != "anonymous"}
    names = {"models": rest["models"] | {"aligned": {"endpoints": ["http://127.0.0.1:1/v1"]}}}
    assert parse_config(json.dumps({**rest, **names, **keyed}), "keys").keys[0].wake
    assert yaml.safe_load(values)["promoted"][0]["name"] == "aligned"


@pytest.mark.parametrize(
    ("slots", "says"),
    [
        ({"a": "one"}, "it needs two different models"),
        ({"a": "one", "b": "one"}, "it needs two different models"),
        ({"a": "one", "b": "three"}, "'three' is not one of the models"),
    ],
)
def test_slots_that_are_wrong_are_named(slots: dict[str, str], says: str) -> None:
    models = {
        name: {"endpoints": [f"http://127.0.0.1:{n}/v1"]} for n, name in ((1, "one"), (2, "two"))
    }
    given = {"anonymous": True, "models": models, "promoted": {"aligned": {"slots": slots}}}
    with pytest.raises(RecipeError, match=says):
        parse_config(json.dumps(given), "gateway.yaml")
