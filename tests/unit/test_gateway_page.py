"""The page at `/`: off unless it is asked for, and bound to the gateway's own files."""

import re

import aiohttp

from moaa.gateway.page import FILES
from tests.support.mixing import Says, Script
from tests.support.mixing_server import mixing

MODELS = {name: Says() for name in ("m1", "m2", "m3", "agg")}


async def test_there_is_no_page_unless_the_file_says_so():
    async with mixing(Script(**MODELS)) as running, aiohttp.ClientSession() as session:
        answer = await session.get(running.url.removesuffix("/v1") + "/")
        assert answer.status == 404


async def test_only_its_own_script_runs_and_nobody_frames_it():
    async with mixing(Script(**MODELS), page=True) as running, aiohttp.ClientSession() as session:
        for path in FILES:
            async with session.get(running.url.removesuffix("/v1") + path) as answer:
                text, policy = await answer.text(), answer.headers["Content-Security-Policy"]
            assert answer.status == 200
            assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
            assert "unsafe" not in policy
            assert "frame-ancestors 'none'" in policy
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|eval\(", text)
            assert not re.search(r"https?://|<script>|style=|\son\w+=", text), (
                "nothing from elsewhere, and nothing inline"
            )


async def test_the_page_needs_no_key_and_its_requests_do():
    keys = [{"name": "me", "sha256": "0" * 64}]
    config = {"page": True, "keys": keys, "anonymous": False}
    async with mixing(Script(**MODELS), **config) as running, aiohttp.ClientSession() as session:
        page = await session.get(running.url.removesuffix("/v1") + "/")
        models = await session.get(running.url + "/models")
        assert (page.status, models.status) == (200, 401)
