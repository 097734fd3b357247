"""A headless Chromium, driven through its debugging pipe (Chrome DevTools Protocol), without further packages."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome-headless-shell")
OPTIONS = (
    "--headless", "--no-sandbox", "--remote-debugging-pipe", "--disable-gpu", "--enable-unsafe-swiftshader",
    "--hide-scrollbars", "--no-first-run", "--disable-extensions", "--disable-background-networking",
    "--disable-dev-shm-usage", "--force-color-profile=srgb",
)  # fmt: skip

SEEN = """new Promise((done) => {
  const drawn = (box) => box.dataset.drawn === "yes";
  const ask = () => plots().every((box) => drawn(box) || distance(box) > 0) ? done() : setTimeout(ask, 10);
  ask();
})"""
"""Awaits that every figure on the screen is drawn."""


def executable() -> str | None:
    """The program named by CHROMIUM, or else the first one on the PATH; None where there is none."""
    return os.environ.get("CHROMIUM") or next((found for name in NAMES if (found := shutil.which(name))), None)


class Browser:
    """One page of a browser."""

    def __init__(self, send: int, receive: int) -> None:
        self._send, self._receive = os.fdopen(send, "wb", buffering=0), os.fdopen(receive, "rb", buffering=0)
        self._number, self._buffer, self._session = 0, b"", ""
        self.problems: list[str] = []
        """Uncaught errors, errors on the console, and blocked loads of the page."""
        self.requests: list[str] = []
        """Every address that the page has asked for."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol; returns its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._send.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return dict(answer["result"])

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            part = self._receive.read(1 << 20)
            if not part:
                raise RuntimeError("the browser has ended")
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        self._note(message.get("method", ""), message.get("params", {}))
        return message

    def _note(self, method: str, params: Mapping[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.problems.append(str(params["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.problems.append(str([part.get("value", part) for part in params["args"]]))
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.problems.append(str(params["entry"]))
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression, a promise awaited."""
        done = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in done:
            raise RuntimeError(str(done["exceptionDetails"]))
        return done["result"].get("value")

    def show(self, address: str, *, width: int = 1200, height: int = 900, dark: bool = False) -> None:
        """Open a page in a window of this size, light or dark, and wait until its scripts have run."""
        self.look(width=width, height=height, dark=dark)
        self.call("Page.navigate", url=address)
        ready = "new Promise((done) => { const ask = () => document.readyState === 'complete' && location.href !== "
        self.run(f"{ready} 'about:blank' ? done() : setTimeout(ask, 20); ask(); }})")

    def look(self, *, width: int, height: int = 900, dark: bool = False) -> None:
        """Give the window another size, and the reader's wish for light or dark."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, path: Path, *, whole: bool = False) -> None:
        """Write what the window shows, or the whole page, as PNG."""
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def browser(program: str, profile: Path) -> Iterator[Browser]:
    """A browser with a fresh profile; it has ended when the block is left."""
    here_reads, there_writes = os.pipe()
    there_reads, here_writes = os.pipe()
    # The browser reads commands from descriptor 3 and answers on 4. Not every sh knows descriptors above 9.
    shell = ["bash", "-c", f'exec "$0" "$@" 3<&{there_reads} 4>&{there_writes}', program]
    process = subprocess.Popen(
        [*shell, *OPTIONS, f"--user-data-dir={profile}"],
        pass_fds=(there_reads, there_writes),
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(there_reads)
    os.close(there_writes)
    try:
        yield Browser(here_writes, here_reads)
    finally:
        process.terminate()
        process.wait(30)
