"""A mixture of one real vLLM, asked by the official client: streamed, whole, and left."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import openai
import pytest
from pydantic import BaseModel

from tests.support.gateways import gateway_of
from tests.support.real_engine import RealEngine, real_engine
from tests.support.waiting import async_until

pytestmark = pytest.mark.real
ASK: dict[str, Any] = {
    "model": "committee",
    "messages": [
        {"role": "system", "content": "Answer in one sentence."},
        {"role": "user", "content": "Why is the sea salty?"},
    ],
}
COUNT: Any = [{"role": "user", "content": "Count from 1 to 900, one number a line."}]


@pytest.fixture(scope="module")
def engine() -> Iterator[RealEngine]:
    with real_engine("--enable-prompt-tokens-details") as running:
        yield running


def config(engine: RealEngine) -> dict[str, Any]:
    sampling = {"max_tokens": 32, "n": 3, "seed": 1}
    committee = {
        "proposers": [{"model": "smol", "sampling": sampling}],
        "aggregator": {"model": "smol", "sampling": {"max_tokens": 64, "temperature": 0}},
    }
    long = committee | {"proposers": [{"model": "smol", "sampling": {"max_tokens": 3_000}}]}
    return {
        "models": {"smol": {"endpoints": [engine.url], "served_name": engine.model}},
        "mixtures": {"committee": committee, "long": long},
    }


def client_of(url: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(api_key="-", base_url=url, max_retries=0, timeout=600)


async def test_every_token_that_the_engine_made_is_counted(
    engine: RealEngine,
) -> None:
    async with gateway_of(config(engine)) as running, client_of(running.url) as client:
        before = engine.counter("vllm:generation_tokens_total")
        whole = await client.chat.completions.create(**ASK)
        usage = whole.usage
        assert usage is not None
        await async_until(
            lambda: (
                engine.counter("vllm:generation_tokens_total") - before == usage.completion_tokens
            ),
            "the engine's own count of all its tokens",
        )
        assert usage.completion_tokens_details is not None
        proposers, aggregator = (whole.model_extra or {})["moaa"]["members"]
        assert usage.completion_tokens_details.reasoning_tokens == (proposers["completion_tokens"])
        assert usage.total_tokens == sum(
            member["prompt_tokens"] + member["completion_tokens"]
            for member in (proposers, aggregator)
        )
        parts = await client.chat.completions.create(
            **ASK, stream=True, stream_options={"include_usage": True}
        )
        chunks = [part async for part in parts]
        text = "".join(part.choices[0].delta.content or "" for part in chunks if part.choices)
        assert text.strip()
        assert sum(bool(part.choices) for part in chunks) > 5, "really streamed"
        kept = (chunks[-1].model_extra or {})["moaa"]["members"][0]
        assert kept["shared"] is True, "its proposals have a seed"


async def test_an_answer_in_a_form_and_several_of_them(engine: RealEngine) -> None:
    class Colour(BaseModel):
        name: Literal["red", "green", "blue"]

    async with gateway_of(config(engine)) as running, client_of(running.url) as client:
        answer = ""
        try:
            parsed = await client.chat.completions.parse(
                **ASK, response_format=Colour, max_tokens=100
            )
            answer = parsed.choices[0].message.content or ""
        except openai.LengthFinishReasonError as cut:  # a small model may write spaces for ever
            answer = cut.completion.choices[0].message.content or ""
        assert answer.lstrip().startswith("{")
        several = await client.chat.completions.create(
            **ASK, n=2, temperature=0.9, logprobs=True, top_logprobs=2, max_tokens=8
        )
        assert [choice.index for choice in several.choices] == [0, 1]
        assert several.choices[0].logprobs is not None
        assert several.choices[0].logprobs.content


async def test_who_leaves_ends_the_engines_work(engine: RealEngine) -> None:
    def at_work() -> bool:
        return engine.counter("vllm:num_requests_running") > 0

    async with gateway_of(config(engine)) as running, client_of(running.url) as client:
        parts = await client.chat.completions.create(
            model="long", messages=COUNT, stream=True, extra_body={"moaa": {"proposals": "each"}}
        )
        assert (await anext(parts.__aiter__())).choices
        await async_until(at_work, "its work", 20)
        await parts.close()
        await async_until(lambda: not at_work(), "the end of the work", 20)
