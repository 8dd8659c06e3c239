"""The gateway's page in a real browser: proposals side by side while they come, then the answer."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import zstandard

from moaa.gateway.wire import ApiError
from tests.support.browser import CHROMIUM, Browser
from tests.support.memory_store import MemoryStore
from tests.support.mixing import Says, Script
from tests.support.mixing_server import mixing
from tests.support.waiting import until

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium here")
USAGE = {"prompt_tokens": 1_000, "completion_tokens": 20}
PRICE = {"price": {"prompt": 1, "completion": 10}}
CARDS = "[...document.querySelectorAll('.cards .card')].map(card => card.innerText)"
ASK = """document.querySelector('#question').value = {!r};
document.querySelector('#asking').requestSubmit()"""
HIDDEN = "document.querySelector('{}').hidden"


@contextmanager
def served(script: Script, **config: Any) -> Iterator[str]:
    """The address of a gateway with a page, in a thread of its own."""
    ready = threading.Event()
    started: list[tuple[str, asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def serve() -> None:
        async with mixing(script, page=True, **config) as running:
            stop = asyncio.Event()
            url = running.url.removesuffix("/v1") + "/"
            started.append((url, asyncio.get_running_loop(), stop))
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert ready.wait(30)
    url, loop, stop = started[0]
    try:
        yield url
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)


class Page:
    """The page in a browser of this width."""

    def __init__(self, browser: Browser, url: str, width: int) -> None:
        self._browser = browser
        browser.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=800,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        browser.call("Page.navigate", url=url)
        self._frame = browser.call("Page.getFrameTree")["frameTree"]["frame"]["id"]
        until(lambda: self.value("document.querySelector('#made-of').textContent != ''"))

    def value(self, script: str) -> Any:
        return self._browser.evaluate(self._frame, script)

    def text(self, selector: str) -> str:
        return str(self.value(f"document.querySelector({selector!r}).innerText"))


@pytest.mark.parametrize("width", [1200, 390])
def test_proposals_come_side_by_side_and_then_the_answer(width: int) -> None:
    words = ("slowly ", "written ", "<b>words</b> ")
    script = Script(
        m1=Says(words * 3, 0, 0.3, usage=USAGE),
        m2=Says(("quick",), usage=USAGE),
        m3=Says(error=ApiError(500, "x")),
        agg=Says(("the", " answer"), 0.5, usage=USAGE),
    )
    with (
        served(script, models=dict.fromkeys(script.models, PRICE)) as url,
        Browser() as browser,
    ):
        page = Page(browser, url, width)
        assert page.text("#made-of") == "m1, m2, m3 propose; agg writes the answer."
        page.value(ASK.format("why?"))
        until(lambda: "slowly" in page.value(CARDS)[0] and "20 tokens" in page.value(CARDS)[1])
        assert "tokens" not in page.value(CARDS)[0], "it still writes, and can be read"
        assert page.value("document.querySelector('.answer .text').textContent") == ""
        until(lambda: "all together" in page.text(".answer"), "the answer has come")
        first, second, third = page.value(CARDS)
        assert "<b>words</b>" in first, "a text of a model is text"
        assert "20 tokens" in second
        assert "$0.0012" in second
        assert "left out: HTTP 500" in third
        assert page.text(".answer .text") == "the answer"
        assert "by agg" in page.text(".answer h3")
        assert page.text(".count") == "2 of 3, 1 left out"
        assert "$0.0036" in page.text(".answer footer")
        assert page.value("document.documentElement.scrollWidth") == width, "nothing sticks out"
        tops = page.value(
            "[...document.querySelectorAll('.cards .card')].map(c => c.getBoundingClientRect().top)"
        )
        assert (len(set(tops)) == 1) == (width == 1200), "side by side, or one below the other"

        page.value(ASK.format("and then?"))
        until(lambda: len(script.of("agg")) == 2)
        roles = [message["role"] for message in script.of("m2")[1]["messages"]]
        assert roles == ["user", "assistant", "user"]


def test_what_went_wrong_is_said_and_the_question_is_not_lost() -> None:
    script = Script(**{name: Says(error=ApiError(500, "x")) for name in ("m1", "m2", "m3", "agg")})
    with served(script) as url, Browser() as browser:
        page = Page(browser, url, 1200)
        page.value(ASK.format("why?"))
        until(lambda: "too few proposals" in page.text(".answer"))
        assert page.value("document.querySelector('#question').value") == "why?"
        assert page.value(HIDDEN.format("#stop")) is True
        script.models["m1"] = script.models["m2"] = Says(after_s=60)
        page.value(ASK.format("again?"))
        until(lambda: len(script.of("m1")) == 2)
        page.value("document.querySelector('#stop').click()")
        until(lambda: sorted(script.cancelled) == ["m1", "m2"], "its engines stop too")
        assert "stopped" in page.text(".turn:last-child .answer")


def test_without_a_key_the_page_asks_for_one() -> None:

    script = Script(**{name: Says() for name in ("m1", "m2", "m3", "agg")})
    keys = [{"name": "me", "sha256": hashlib.sha256(b"secret").hexdigest()}]
    with served(script, keys=keys, anonymous=False) as url, Browser() as browser:
        browser.call("Page.navigate", url=url)
        frame = browser.call("Page.getFrameTree")["frameTree"]["frame"]["id"]
        until(lambda: browser.evaluate(frame, HIDDEN.format("#access")) is False)
        enter = """document.querySelector('#key').value = 'secret';
        document.querySelector('#access').requestSubmit()"""
        browser.evaluate(frame, enter)
        until(lambda: browser.evaluate(frame, "document.querySelector('#model').length") == 5)
        assert browser.evaluate(frame, HIDDEN.format("#access")) is True


def test_who_agreed_may_rate_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = MemoryStore("s3://moaa/use")
    monkeypatch.setattr("moaa.store.Store.of", lambda config, **more: memory)
    script = Script(**{name: Says(("fine",)) for name in ("m1", "m2", "m3", "agg")})
    kept = {"store": {"root": "s3://moaa/use"}}
    with served(script, anonymous={"feedback": True}, feedback=kept) as url, Browser() as browser:
        page = Page(browser, url, 390)
        page.value(ASK.format("why?"))
        until(lambda: page.value(HIDDEN.format(".rating")) is False)
        page.value("document.querySelector('.rating [value=\"1\"]').click()")
        until(lambda: page.text(".thanks") == "Thank you.")
    (data,) = memory.objects.values()
    row = json.loads(zstandard.ZstdDecompressor().decompress(data))
    assert (row["answer"], row["rating"], row["messages"][0]["content"]) == ("fine", 1, "why?")
