"""The report in a real browser, as Kubeflow's UI shows it: a frame without an address, in a sandbox
that only allows scripts."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import pytest

from moaa import report
from tests.support.browser import CHROMIUM, Browser
from tests.support.example_run import whole
from tests.support.waiting import until

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium here")
FILL = "position: fixed; inset: 0; width: 100%; height: 100%; border: 0"
LINKS = "[...document.querySelectorAll('nav a')].map(link => link.getAttribute('href'))"
MIDDLE = """(link => {{ const box = link.getBoundingClientRect();
return [box.x + box.width / 2, box.y + box.height / 2] }})(
document.querySelector('nav [href="{}"]'))"""
VISIBLE = """(box => box.top < innerHeight && box.bottom > 0)(
document.querySelector('{}').getBoundingClientRect())"""


def test_a_click_on_a_link_of_the_report_does_not_leave_it(tmp_path: Path) -> None:
    """Before, each of its links emptied the frame in Kubeflow's UI."""
    run = whole()
    page = html.escape(report.page(run.view, run.read))
    (tmp_path / "ui.html").write_text(
        f'<iframe sandbox="allow-scripts" style="{FILL}" srcdoc="{page}"></iframe>'
    )
    with Browser() as browser:
        browser.open(tmp_path / "ui.html")
        (frame,) = until(browser.frames)

        def evaluate(script: str) -> Any:
            return browser.evaluate(frame["id"], script)

        until(lambda: evaluate("document.querySelector('.bar-tools') != null"))
        names = evaluate(LINKS)
        assert len(names) == 9
        for name in names:
            evaluate("document.querySelector('nav').scrollIntoView({behavior: 'instant'})")
            browser.click(*evaluate(MIDDLE.format(name)))
            until(lambda name=name: evaluate(VISIBLE.format(name)), name)  # type: ignore[misc]
            assert [each["url"] for each in browser.frames()] == ["about:srcdoc"]
        assert "Mixture of Agents" in evaluate("document.body.innerText")
