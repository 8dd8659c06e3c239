"""A mixture over HTTP: what official and other clients get, and what engines see."""

import asyncio
import re
import time
from typing import Any

import aiohttp
import pytest
from pydantic import BaseModel

from moaa.gateway.config import parse_config
from moaa.gateway.wire import ApiError
from tests.support.later import later
from tests.support.mixing import Says, Script
from tests.support.mixing_server import mixing
from tests.support.paths import ROOT

openai = later("openai")
pytestmark = pytest.mark.xdist_group("openai")

USAGE = {"prompt_tokens": 10, "completion_tokens": 2}
ASK: dict[str, Any] = {"model": "mix", "messages": [{"role": "user", "content": "q"}]}


def full(**more):
    words = {"m1": ("one",), "m2": ("two",), "m3": ("three",), "agg": ("the", " answer")}
    return Script(**({name: Says(said, usage=USAGE) for name, said in words.items()} | more))


async def until(condition, within_s=5.0):
    """Wait until it is true, and return the seconds that it took."""
    start = time.perf_counter()
    while not condition():
        assert time.perf_counter() - start < within_s, "it did not come true"
        await asyncio.sleep(0.002)
    return time.perf_counter() - start


async def test_the_official_client_asks_a_mixture():
    async with (
        mixing(full()) as running,
        openai.AsyncOpenAI(api_key="-", base_url=running.url, max_retries=0) as client,
    ):
        whole = await client.chat.completions.create(**ASK)
        assert whole.choices[0].message.content == "the answer"
        assert whole.usage is not None
        assert whole.usage.total_tokens == 48
        assert whole.usage.completion_tokens_details is not None
        assert whole.usage.completion_tokens_details.reasoning_tokens == 6
        assert whole.model_extra is not None
        assert len(whole.model_extra["moaa"]["members"]) == 4

        parts = await client.chat.completions.create(**ASK, stream=True)
        assert "".join([p.choices[0].delta.content or "" async for p in parts]) == "the answer"

        options: Any = {"include_usage": True}
        async with client.chat.completions.stream(**ASK, stream_options=options) as stream:
            kinds = [event.type async for event in stream]
            final = await stream.get_final_completion()
        assert kinds.count("content.delta") == 3, "the role, and two words"
        assert final.choices[0].message.content == "the answer"
        assert final.usage is not None
        assert final.usage.total_tokens == 48


async def test_the_official_client_parses_an_answer():
    class Answer(BaseModel):
        number: int

    script = full(agg=Says(('{"num', 'ber": 7}')))
    async with (
        mixing(script) as running,
        openai.AsyncOpenAI(api_key="-", base_url=running.url, max_retries=0) as client,
    ):
        parsed = await client.chat.completions.parse(**ASK, response_format=Answer)
        assert parsed.choices[0].message.parsed == Answer(number=7)
        async with client.chat.completions.stream(**ASK, response_format=Answer) as stream:
            final = await stream.get_final_completion()
        assert final.choices[0].message.parsed == Answer(number=7)
    schema = script.of("agg")[0]["response_format"]
    assert schema["json_schema"]["name"] == "Answer"
    assert "response_format" not in script.of("m1")[0]


async def test_the_official_client_without_asyncio():
    async with mixing(full()) as running:

        def ask() -> tuple[str | None, str]:
            with openai.OpenAI(api_key="-", base_url=running.url, max_retries=0) as client:
                whole = client.chat.completions.create(**ASK)
                parts = client.chat.completions.create(**ASK, stream=True)
                streamed = "".join(part.choices[0].delta.content or "" for part in parts)
                return whole.choices[0].message.content, streamed

        assert await asyncio.to_thread(ask) == ("the answer", "the answer")


async def test_the_official_client_raises_what_went_wrong_before_and_after_the_first_token():
    script = full(m1=Says(error=ApiError(500, "x")), m2=Says(error=ApiError(500, "x")))
    async with (
        mixing(script) as running,
        openai.AsyncOpenAI(api_key="-", base_url=running.url) as client,
    ):
        for stream in (False, True):
            with pytest.raises(openai.InternalServerError) as raised:
                await client.chat.completions.create(**ASK, stream=stream)
            assert (raised.value.status_code, raised.value.code) == (502, "quorum")
            assert raised.value.request_id
        assert len(script.of("m3")) == 2, "the client does not pay for the mixture three times"

        with pytest.raises(openai.BadRequestError) as refused:
            await client.chat.completions.create(
                **ASK,
                tools=[{"type": "function", "function": {"name": "f", "parameters": {}}}],
            )
        assert (refused.value.param, refused.value.code) == ("tools", "unsupported_parameter")

        running.script.models |= full(agg=Says(("half",), late_error=ApiError(500, "x"))).models
        parts = await client.chat.completions.create(**ASK, stream=True)
        read: list[str | None] = []

        async def read_all() -> None:
            async for part in parts:
                read.append(part.choices[0].delta.content)

        with pytest.raises(openai.APIError, match="broke off") as broken:
            await read_all()
        assert read[-1] == "half"
        assert broken.value.code == "stream_broken"


CASES = [
    ("silent proposers", {"m2": Says(after_s=60), "m3": Says(after_s=60)}, ["m2", "m3"]),
    ("silent aggregator", {"agg": Says(after_s=60)}, ["agg"]),
    ("in mid-stream", {"agg": Says(("a", "b"), gap_s=60)}, ["agg"]),
]


@pytest.mark.both_loops
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("case", "says", "cancelled"), CASES, ids=[case[0] for case in CASES])
async def test_who_leaves_ends_the_work_at_the_engines(case, says, cancelled, stream):
    script = full(**says)
    async with mixing(script) as running, aiohttp.ClientSession() as session:
        posted = session.post(f"{running.url}/chat/completions", json={**ASK, "stream": stream})
        task = asyncio.create_task(posted.__aenter__())
        await until(lambda: all(script.of(model) for model in cancelled))
        if case == "in mid-stream":
            await asyncio.sleep(0.02)
        if task.done():
            task.result().close()
        task.cancel()
        await until(lambda: sorted(script.cancelled) == cancelled)
        await until(lambda: not running.gateway.requests)
        assert all(backend.in_flight == 0 for backend in running.gateway.backends.values())
        assert running.gateway.metrics.cancelled.value("mix") == 1


async def test_what_it_used_and_missed_is_in_the_metrics_and_limits():
    script = full(m3=Says(error=ApiError(503, "x", "engine_overloaded")))
    price = {"price": {"prompt": 1, "completion": 1}}
    rights = {"limits": {"calls_per_minute": 7}}
    async with mixing(script, models={"m1": price}, anonymous=rights) as running:
        async with aiohttp.ClientSession() as session:
            async with session.post(f"{running.url}/chat/completions", json=ASK) as answer:
                assert answer.status == 200
            async with session.post(f"{running.url}/chat/completions", json=ASK) as answer:
                error = (await answer.json())["error"]
                assert (answer.status, error["code"]) == (429, "rate_limit_exceeded")
        metrics = running.gateway.metrics
        assert metrics.tokens.value("mix", "m1", "prompt") == 10
        assert metrics.tokens.value("mix", "agg", "completion") == 2
        assert metrics.dollars.value("mix", "m1") == 12e-6
        assert metrics.left_out.value("mix", "m3", "engine_overloaded") == 1


async def test_the_list_of_models_says_what_a_mixture_is_made_of():
    async with mixing(full()) as running, aiohttp.ClientSession() as session:
        async with session.get(f"{running.url}/models/mix") as answer:
            card = await answer.json()
        assert card["mixture"] == {
            "proposers": ["m1", "m2", "m3"],
            "aggregator": "agg",
            "quorum": 2,
            "layers": 2,
        }
        async with session.post(
            f"{running.url}/completions", json={"model": "mix", "prompt": "x"}
        ) as answer:
            assert answer.status == 400
            assert (await answer.json())["error"]["code"] == "unsupported_endpoint"
        async with session.post(f"{running.url}/chat/completions", json=ASK) as answer:
            assert answer.headers["x-moaa-revision"] == card["revision"]


FILE = """
anonymous: true
models:
  a: {endpoints: ["http://127.0.0.1:1/v1"], takes_turns_in: one GPU}
  b: {endpoints: ["http://127.0.0.1:2/v1"], takes_turns_in: one GPU}
  c: {endpoints: ["http://127.0.0.1:3/v1"]}
mixtures:
  m:
    proposers: PROPOSERS
    aggregator: {model: c}
    ONLINE
"""


@pytest.mark.parametrize(
    ("proposers", "online", "said"),
    [
        ("[{model: a}, {model: b}]", "", "take turns in 'one GPU'"),
        ("[{model: a}, {model: x}]", "", "'x' is not one of the models"),
        ("[{model: a}, {model: n}]", "", "a mixture of mixtures is not served"),
        ("[{model: a, sampling: {n: 9}}]", "", "may have 8 at most"),
        ("[{model: a}]", "online: {fallback: [b]}", "these are not proposers"),
        ("[{model: a}]", "online: {quorum: 2}", "a layer has 1 proposals"),
        ("[{model: a}]", "online: {grace: 2}", "grace"),
    ],
)
def test_a_mixture_that_could_never_answer_is_refused_at_the_start(proposers, online, said):
    text = FILE.replace("PROPOSERS", proposers).replace("ONLINE", online)
    other = "  n: {proposers: [{model: a}], aggregator: {model: c}}\n"
    with pytest.raises(Exception, match=said) as raised:
        parse_config(text + other, "gateway.yaml")
    assert "gateway.yaml:" in str(raised.value)


def test_an_instruction_may_stand_in_a_file_of_its_own(tmp_path):
    (tmp_path / "merge.txt").write_text("Merge them:\n")
    text = FILE.replace("PROPOSERS", "[{model: a}]").replace(
        "ONLINE", "instruction: file:merge.txt"
    )
    config = parse_config(text, str(tmp_path / "gateway.yaml"), tmp_path)
    assert config.mixtures["m"].instruction == "Merge them:"


def test_the_files_of_the_documentation_are_right():
    text = (ROOT / "docs" / "mixtures-online.md").read_text()
    whole, feedback = re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    config = parse_config(whole, "gateway.yaml")
    assert config.mixtures["committee"].online.references == "last"
    kept = feedback.replace('"…"', f'"{"0" * 64}"')
    config = parse_config(whole.replace("anonymous: true", "") + kept, "gateway.yaml")
    assert config.feedback is not None
