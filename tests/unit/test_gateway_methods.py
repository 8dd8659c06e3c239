"""Every address of a gateway refuses the methods that it does not take, and names those it does."""

import aiohttp

from moaa.gateway.app import build
from tests.support.mixing import Says, Script
from tests.support.mixing_server import mixing

MODELS = {name: Says() for name in ("m1", "m2", "m3", "agg")}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY")


async def test_a_wrong_method_is_refused_with_the_right_ones():
    async with mixing(Script(**MODELS), page=True) as running, aiohttp.ClientSession() as session:
        takes: dict[str, set[str]] = {}
        for route in build(running.gateway).router.routes():
            assert route.resource is not None
            path = route.resource.canonical.replace("{name}", "mix")
            takes.setdefault(path, set()).add(route.method)
        takes.pop("/{anything}")
        assert takes["/v1/feedback"] == takes["/v1/chat/completions"] == {"POST"}
        assert takes["/"] == takes["/health"] == takes["/v1/models/mix"] == {"GET", "HEAD"}
        for path, allowed in takes.items():
            url = running.url.removesuffix("/v1") + path
            for method in set(METHODS) - allowed:
                async with session.request(method, url) as answer:
                    assert answer.status == 405, (method, path)
                    assert answer.headers["Allow"] == ", ".join(sorted(allowed))
                    assert answer.headers["x-request-id"].startswith("req_")
                    if method != "HEAD":
                        error = (await answer.json())["error"]
                        assert error["code"] == "method_not_allowed"
                        said = f"{path} takes {' or '.join(sorted(allowed))}, not {method}."
                        assert error["message"] == said
            for method in allowed & {"GET", "HEAD"}:
                async with session.request(method, url) as answer:
                    assert answer.status == 200, (method, path)
