"""docs/gateway.md is the reference: it has every code, metric and address of the gateway."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from moaa.gateway import app, wire
from moaa.gateway.metrics import Metrics
from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "gateway.md").read_text(encoding="utf-8")
SOURCES = sorted((ROOT / "moaa" / "gateway").rglob("*.py"))


def of_errors() -> Iterator[tuple[int, str]]:
    """The status and the code of each error whose code stands in the source."""
    for path in SOURCES:
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
                continue
            if call.func.id not in ("ApiError", "invalid"):
                continue
            named = {each.arg: each.value for each in call.keywords}
            code = named.get("code", (*call.args, None, None)[2])
            status = literal(call.args[0]) if call.func.id == "ApiError" else None
            for part in (code.body, code.orelse) if isinstance(code, ast.IfExp) else (code,):
                if found := literal(part):
                    # A status that is computed (aiohttp's) stands for a wrong request.
                    yield status if isinstance(status, int) else 400, str(found)


def literal(node: ast.expr | None) -> object:
    return node.value if isinstance(node, ast.Constant) else None


CODES = sorted({*of_errors(), *wire._CODES.items()})


def test_the_codes_are_found() -> None:
    assert {(504, "quorum"), (403, "feedback_off"), (400, "invalid_json")} <= set(CODES)


@pytest.mark.parametrize(("status", "code"), CODES)
def test_each_code_has_a_row(status: int, code: str) -> None:
    assert re.search(rf"^\| {status} \|[^|]*`{code}`", PAGE, re.MULTILINE)


def test_a_model_that_a_key_may_not_wake_is_not_asked_again() -> None:
    assert re.search(r"^\| 503 \| `model_asleep` \| .*may not wake it.* \| no \|$", PAGE, re.M)


@pytest.mark.parametrize("metric", vars(Metrics()).values(), ids=lambda each: each.name)
def test_each_metric_has_a_row_with_its_labels(metric) -> None:
    name = metric.name.removeprefix("moaa_gateway_")
    shown = f"{name}{{{','.join(metric.labels)}}}" if metric.labels else name
    assert f"`{shown}`" in PAGE


ADDRESSES = re.findall(
    r"add_(?:get|post)\(\"(/[^\"{]*)", (ROOT / "moaa/gateway/app.py").read_text()
)


@pytest.mark.parametrize("address", [*ADDRESSES, "/", *(f"/v1{path}" for path in app.PATHS)])
def test_each_address_has_a_row(address: str) -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith(("| `GET ", "| `POST "))]
    written = {each for row in rows for each in re.findall(r"[` ](/[\w/]*)[`,]", row)}
    assert address.rstrip("/") in {each.rstrip("/") for each in written}
