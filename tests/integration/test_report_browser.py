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

WIDER_THAN_THE_PAGE = """[...document.querySelectorAll('.scroll, .row')]
.filter(box => box.scrollWidth > box.clientWidth).map(box => box.innerText)"""
SQUEEZED = """[...document.querySelectorAll('.row .name')]
.filter(name => name.offsetWidth < 100).map(name => name.innerText)"""


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


@pytest.mark.parametrize(
    ("width", "hidden"), [(1280, WIDER_THAN_THE_PAGE), (390, SQUEEZED)], ids=["desk", "phone"]
)
def test_nothing_is_cut_off_at_a_desk_or_squeezed_on_a_phone(
    tmp_path: Path, width: int, hidden: str
) -> None:
    """A table's last column was out of sight, and names stood in lines of four letters."""
    run = whole()
    (tmp_path / "report.html").write_text(report.page(run.view, run.read))
    with Browser() as browser:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        browser.call("Emulation.setDeviceMetricsOverride", **size)
        browser.open(tmp_path / "report.html")
        page = browser.call("Page.getFrameTree")["frameTree"]["frame"]["id"]
        until(lambda: browser.evaluate(page, "document.querySelector('.bar-tools') != null"))
        assert browser.evaluate(page, "document.querySelectorAll('.differences .row').length")
        assert browser.evaluate(page, hidden) == []
