"""A headless Chromium, spoken to by its DevTools protocol through two pipes."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    # A frame in a sandbox stays in the page's process, where this client sees it.
    "--disable-features=IsolateSandboxedIframes",
    "--remote-debugging-pipe",
)


class Browser:
    """One browser with one page: `call` sends a command, `evaluate` runs a script in a frame."""

    def __init__(self) -> None:
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self._ids = itertools.count(1)
        self._session = ""

    def __enter__(self) -> Self:
        assert CHROMIUM
        to_read, to_write = os.pipe()
        from_read, from_write = os.pipe()
        moved = f'exec 3<&{to_read} 4>&{from_write}; exec "$@"'
        self._process = subprocess.Popen(
            ["bash", "-c", moved, "-", CHROMIUM, *FLAGS, f"--user-data-dir={self._profile.name}"],
            pass_fds=(to_read, from_write),
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(from_write)
        self._to, self._from = os.fdopen(to_write, "wb"), os.fdopen(from_read, "rb")
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._to.close()
        self._from.close()
        self._profile.cleanup()

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._ids)
        message = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._to.write(json.dumps(message).encode() + b"\0")
        self._to.flush()
        while True:
            answer = self._next()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return dict(answer["result"])

    def _next(self) -> dict[str, Any]:
        data = bytearray()
        while (byte := self._from.read(1)) != b"\0":
            assert byte, "the browser is gone"
            data += byte
        return dict(json.loads(data))

    def open(self, page: Path) -> None:
        """Show a page."""
        self.call("Page.navigate", url=page.as_uri())

    def frames(self) -> list[dict[str, Any]]:
        """The frames inside the page: each with its `id` and `url`."""
        tree = self.call("Page.getFrameTree")["frameTree"]
        return [dict(child["frame"]) for child in tree.get("childFrames", [])]

    def evaluate(self, frame: str, script: str) -> Any:
        """The value of a script in a frame. The page's policy of scripts does not apply to it."""
        world = self.call("Page.createIsolatedWorld", frameId=frame)["executionContextId"]
        answer = self.call(
            "Runtime.evaluate", expression=script, contextId=world, returnByValue=True
        )
        return answer["result"].get("value")

    def click(self, x: float, y: float) -> None:
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
