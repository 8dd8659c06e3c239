"""The promoted model and sleeping models over HTTP: shares, revisions, roll-back, waking."""

from __future__ import annotations

import asyncio
import json

import aiohttp
from aiohttp.test_utils import TestClient, TestServer

from moaa.gateway.app import metrics_app
from moaa.gateway.slots import Slots, revision_of
from moaa.kubernetes import leases
from moaa.kubernetes.kinds import CONFIG_MAPS, DEPLOYMENTS, EVENTS, SLICES
from moaa.kubernetes.names import IDLE_REPLICAS
from tests.support.engine_server import status
from tests.support.fake_ensemble import deployment
from tests.support.kube_server import KubeServer
from tests.support.split_models import gateway_of, on_cluster, promoted, scale, service, sleeping
from tests.support.streaming_engine import StreamingEngine
from tests.support.waiting import async_until

V1, V2 = "s3://moaa/models/v1", "s3://moaa/models/v2"


async def ask(
    url: str, model: str = "aligned", text: str = "Hi", *, token: str = "", stream: bool = False
) -> tuple[int, dict[str, str], str]:
    """Return status, headers and body of a chat request."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": text}],
        "stream": stream,
        "max_tokens": 8,
    }
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with (
        aiohttp.ClientSession(headers=headers) as http,
        http.post(f"{url}/chat/completions", json=body) as response,
    ):
        return response.status, dict(response.headers), await response.text()


async def test_every_answer_tells_its_revision_and_a_conversation_keeps_it() -> None:
    with StreamingEngine("aligned") as a, StreamingEngine("aligned") as b:
        async with gateway_of(promoted(a, b, 50)) as (_, url):
            told = {}
            for number in range(12):
                answers = [await ask(url, text=f"q{number}", stream=s) for s in (False, True)]
                [told[number]] = {headers["x-moaa-revision"] for _, headers, _ in answers}
            assert set(told.values()) == {"aligned-a", "aligned-b"}
            assert len(a.raw) == 2 * list(told.values()).count("aligned-a")
            _, headers, _ = await ask(url, "aligned@b", "q0")
            assert headers["x-moaa-revision"] == "aligned-b"
            assert (await ask(url, "aligned@v9"))[0] == 404
            assert (await ask(url, "aligned-b"))[0] == 404, "a slot is no model for clients"


async def test_a_bad_revision_is_rolled_back_and_no_request_fails(kube: KubeServer) -> None:
    slots = Slots().holding("a", V1).holding("b", V2).sharing(50, "step", "")
    with StreamingEngine("aligned") as a, StreamingEngine("aligned") as b:
        config = on_cluster(kube, a, b, slots)
        b.fail(status(500), times=200)
        async with gateway_of(config, kube) as (gateway, url):
            for number in range(60):
                code, headers, _ = await ask(url, text=f"q{number}")
                assert code == 200
                assert headers["x-moaa-revision"] == revision_of(V1)
            await async_until(
                lambda: Slots.of(kube.find(CONFIG_MAPS, "ens-aligned")["data"]).shares["b"] == 0
            )
            assert len(b.requests) <= 50
            assert gateway.metrics.rollbacks.value("aligned", revision_of(V2)) == 1
            async with TestClient(TestServer(metrics_app(gateway))) as metrics:
                shown = await (await metrics.get("/metrics")).text()
            assert (
                f'share_percent{{model="aligned",slot="b",revision="{revision_of(V2)}"}} 0' in shown
            )
    [event] = [each for (plural, _), each in kube.objects.items() if plural == EVENTS.plural]
    assert "answers of revision v2" in event["message"]


async def test_a_revision_that_hangs_is_rolled_back_while_its_requests_wait() -> None:
    with StreamingEngine("aligned") as a, StreamingEngine("aligned") as b:
        async with gateway_of(promoted(a, b, 50)) as (gateway, url):
            for number in range(60):
                assert (await ask(url, text=f"q{number}", stream=True))[0] == 200
            b.silent_s = 60
            waiting = [
                asyncio.create_task(ask(url, "aligned@b", f"r{number}", stream=True))
                for number in range(25)
            ]
            rollbacks = gateway.metrics.rollbacks
            await async_until(lambda: rollbacks.value("aligned", "aligned-b"), "the roll-back")
            for each in waiting:
                each.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            assert (await ask(url, text="r1"))[1]["x-moaa-revision"] == "aligned-a"


async def test_a_streamed_request_waits_for_its_model(kube: KubeServer) -> None:
    config = sleeping(kube)
    with StreamingEngine("m") as engine:
        async with gateway_of(config, kube) as (gateway, url):
            waits = asyncio.create_task(ask(url, "m", token="may", stream=True))
            await async_until(lambda: gateway.metrics.waiting.value("m") == 1, "it waits")
            await async_until(lambda: scale(kube, "ens-m") == 1)
            kube.put(SLICES, service("ens-m", engine.port))
            code, _, text = await waits
            assert gateway.metrics.waiting.value("m") == 0
    assert code == 200
    assert text.startswith(": waking m, 0 s of at most 600\n\n")
    assert "w0" in text
    assert text.endswith("data: [DONE]\n\n")


async def test_others_are_told_when_to_come_again_and_some_may_not_wake(kube: KubeServer) -> None:
    async with gateway_of(sleeping(kube), kube) as (_, url):
        code, headers, text = await ask(url, "m", token="may-not")
        assert (code, json.loads(text)["error"]["code"]) == (503, "model_asleep")
        assert headers["x-should-retry"] == "false"
        assert scale(kube, "ens-m") == 0
        code, headers, text = await ask(url, "m", token="may")
        assert (code, json.loads(text)["error"]["code"]) == (503, "model_asleep")
        assert (headers["x-should-retry"], headers["Retry-After"]) == ("true", "120")
        await async_until(lambda: scale(kube, "ens-m") == 1)


async def test_a_held_stream_whose_model_does_not_come_ends_with_an_error(
    kube: KubeServer,
) -> None:
    async with gateway_of(sleeping(kube, hold_s=0.3), kube) as (_, url):
        code, _, text = await ask(url, "m", token="may", stream=True)
    assert code == 200
    *_, error, done, _ = text.split("\n\n")
    assert json.loads(error.removeprefix("data: "))["error"]["code"] == "model_asleep"
    assert done == "data: [DONE]"


async def test_a_mixture_wakes_all_its_members_and_streams_when_they_are_up(
    kube: KubeServer,
) -> None:
    config = sleeping(kube)
    kube.put(DEPLOYMENTS, deployment("ens-n", "n", annotations={IDLE_REPLICAS: "0"}))
    config["models"]["n"] = {"service": "ens-n"}
    config["mixtures"] = {
        "mix": {"proposers": [{"model": "m"}, {"model": "n"}], "aggregator": {"model": "n"}}
    }
    with StreamingEngine("m", "n") as engine:
        async with gateway_of(config, kube) as (gateway, url):
            waits = asyncio.create_task(ask(url, "mix", token="may", stream=True))
            await async_until(lambda: gateway.metrics.waiting.value("m") == 1, "it waits")
            await async_until(lambda: scale(kube, "ens-m") == scale(kube, "ens-n") == 1)
            for name in ("ens-m", "ens-n"):
                kube.put(SLICES, service(name, engine.port))
            code, _, text = await waits
    assert code == 200
    assert text.startswith(": waking m, 0 s of at most 600\n\n")
    assert "w0" in text
    assert text.endswith("data: [DONE]\n\n")


async def test_an_emptied_slot_is_given_back_at_once(kube: KubeServer) -> None:
    """The gateway had kept the old version's slot warm; now a promotion stops its pods."""
    slots = Slots().holding("a", V1).holding("b", V2).sharing(50, "step", "")
    with StreamingEngine("aligned") as a, StreamingEngine("aligned") as b:
        config = on_cluster(kube, a, b, slots) | {"cluster": {"wake": {"holder": "gateway/ens"}}}
        async with gateway_of(config, kube):

            def held() -> set[str]:
                found = [each for (plural, _), each in kube.objects.items() if plural == "leases"]
                return {holder.rpartition("/")[2] for holder in map(leases.holder_of, found)}

            await async_until(lambda: held() == {"ens-aligned-a", "ens-aligned-b"}, "leases")
            metadata = {"name": "ens-aligned", "namespace": "team"}
            emptied = slots.promoted("all", "").emptied("a", "a third version comes", "")
            kube.put(CONFIG_MAPS, {"metadata": metadata, "data": emptied.data()})
            await async_until(lambda: held() == {"ens-aligned-b"}, "the slot's lease goes")
