"""The page of a report as a browser reads it."""

from __future__ import annotations

from html.parser import HTMLParser

from moaa import report
from tests.support.example_run import ExampleRun

VOID = {"meta", "br", "input", "link", "img", "hr"}
SCRIPT = "<script>alert('moaa')</script>"


class Page(HTMLParser):
    """The page as text, with what stands where: unbalanced tags, attributes, scripts."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.isolated: list[bool] = []
        self.turned: list[str] = []
        """Texts that can turn the direction of the text around them."""
        self.faults: list[str] = []
        self.words: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.feed(html)
        self.close()
        self.faults += [f"<{tag}> is never closed" for tag in self.open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)
            self.isolated.append(tag in ("bdi", "title") or ("dir", "auto") in attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open[-1] != tag:
            self.faults.append(f"</{tag}> at {self.getpos()} closes {self.open[-3:]}")
        else:
            self.open.pop()
            self.isolated.pop()

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self.words.append(data)
            if "\u202e" in data and not self.isolated[-1]:
                self.turned.append(f"<{self.open[-1]}> {data[:80]}")

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def shown(run: ExampleRun) -> Page:
    return Page(report.page(run.view, run.read))
