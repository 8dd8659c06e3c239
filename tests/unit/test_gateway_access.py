"""Who may ask what, and how much."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import pytest

from moaa.gateway.access import Access
from moaa.gateway.config import GatewayConfig, parse_config
from moaa.gateway.wire import ApiError
from tests.support.gateways import ask, gateway_of, of
from tests.support.streaming_engine import StreamingEngine
from tests.support.waiting import async_until


def key(text: str, **rights: Any) -> dict[str, Any]:
    return {"name": text, "sha256": hashlib.sha256(text.encode()).hexdigest(), **rights}


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def access_of(clock: Clock | None = None, **fields: Any) -> Access:
    import json

    models = {"m": {"endpoints": ["http://127.0.0.1:1/v1"]}}
    config = parse_config(json.dumps({"models": models, **fields}), "g.yaml")
    return Access(config, clock=clock or Clock())


@pytest.mark.parametrize("given", [None, "", "Bearer", "Bearer ", "Basic one", "one", "Bearer two"])
def test_without_a_known_key_nobody_asks(given: str | None) -> None:
    with pytest.raises(ApiError) as caught:
        access_of(keys=[key("one")]).caller(given)
    assert (caught.value.status, caught.value.code) == (401, "invalid_api_key")
    assert "two" not in str(caught.value)


def test_a_key_is_known_by_its_hash() -> None:
    access = access_of(keys=[key("one"), key("two", models=["m"], wake=True)])
    assert access.caller("Bearer one").name == "one"
    two = access.caller("bearer two")
    assert (two.name, two.rights.wake, two.may_ask("m"), two.may_ask("other")) == (
        "two",
        True,
        True,
        False,
    )


def test_anonymous_clients_may_send_any_key() -> None:
    """The official client always sends one."""
    access = access_of(keys=[key("one")], anonymous={"models": ["m"]})
    assert access.caller("Bearer one").name == "one"
    for given in (None, "Bearer none", "Basic x"):
        assert access.caller(given).name == ""


def refusal(access: Access, calls: int = 1) -> ApiError:
    with pytest.raises(ApiError) as caught, access.admitted(access.caller("Bearer one"), calls):
        pass
    return caught.value


def test_calls_a_minute() -> None:
    clock = Clock()
    access = access_of(clock, keys=[key("one", limits={"calls_per_minute": 6})])
    with access.admitted(access.caller("Bearer one"), calls=4):
        pass
    error = refusal(access, calls=3)
    assert (error.status, error.code, error.after_s) == (429, None, 10.0)
    assert error.all_headers() == {"x-should-retry": "true", "Retry-After": "10"}
    clock.now += 10
    with access.admitted(access.caller("Bearer one"), calls=3):
        pass


def test_a_request_that_needs_more_calls_than_there_ever_are() -> None:
    for limits in ({"calls_per_minute": 3}, {"in_flight": 3}):
        error = refusal(access_of(keys=[key("one", limits=limits)]), calls=4)
        assert error.code == "limit_too_small"
        assert error.all_headers() == {"x-should-retry": "false"}


def test_tokens_a_minute_are_paid_afterwards() -> None:
    clock = Clock()
    access = access_of(clock, keys=[key("one", limits={"tokens_per_minute": 60})])
    one = access.caller("Bearer one")
    with access.admitted(one):
        access.spend(one, 90)
    assert refusal(access).after_s == pytest.approx(31)
    clock.now += 31
    with access.admitted(one):
        pass


def test_the_limit_of_all_together_counts_every_key() -> None:
    access = access_of(keys=[key("one"), key("two")], limits={"in_flight": 2})
    with access.admitted(access.caller("Bearer two"), calls=2):
        error = refusal(access)
        assert "this gateway" in error.message
    with access.admitted(access.caller("Bearer one")):
        pass


def test_keys_that_are_read_again_keep_what_they_have_used() -> None:
    access = access_of(keys=[key("one", limits={"calls_per_minute": 1})])
    with access.admitted(access.caller("Bearer one")):
        pass
    config: GatewayConfig = parse_config(
        '{"models": {"m": {"endpoints": ["http://127.0.0.1:1/v1"]}}, "keys": ['
        f'{{"name": "one", "sha256": "{key("one")["sha256"]}", '
        '"limits": {"calls_per_minute": 1}}]}',
        "g.yaml",
    )
    access.set_keys(config.keys)
    assert refusal(access).status == 429
    access.set_keys(())
    with pytest.raises(ApiError, match="401"):
        access.caller("Bearer one")


async def test_limits_and_rights_over_http() -> None:
    keys = [key("one", limits={"in_flight": 1}), key("two", models=[])]
    one, two = ({"Authorization": f"Bearer {name}"} for name in ("one", "two"))
    with StreamingEngine("m", silent_s=60) as engine:
        async with gateway_of({**of(engine), "keys": keys}) as running:
            first = asyncio.create_task(
                running.post("/chat/completions", ask(), headers=one).__aenter__()
            )
            await async_until(lambda: engine.raw, "the first request")
            async with running.post("/chat/completions", ask(), headers=one) as answer:
                assert answer.status == 429
                assert (await answer.json())["error"]["code"] == "rate_limit_exceeded"
            assert running.gateway.metrics.refused.value("one", "in_flight") == 1
            first.cancel()
            async with running.post("/chat/completions", ask(), headers=two) as answer:
                assert answer.status == 404
            async with running.get("/models", headers=two) as answer:
                assert (await answer.json())["data"] == []
            async with running.get("/models") as answer:
                assert answer.status == 401
            async with running.post("/chat/completions", ask()) as answer:
                assert answer.status == 401
