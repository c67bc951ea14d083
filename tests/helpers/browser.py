"""A headless Chromium driven through its DevTools protocol over a pipe: enough to look, point, press and tap.

https://chromedevtools.github.io/devtools-protocol. No package is needed for it; BNKIT_BROWSER names another browser.
"""

import base64
import contextlib
import itertools
import json
import os
import select
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
APPLICATIONS = ("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage", "--hide-scrollbars",
)  # fmt: skip


def find() -> str | None:
    if named := os.environ.get("BNKIT_BROWSER"):
        return named
    return next(filter(None, map(shutil.which, NAMES)), next(filter(os.path.exists, APPLICATIONS), None))


class Browser:
    """One page. `problems` collects exceptions, messages of the console, and what was asked of a network."""

    def __init__(self, to: int, from_: int) -> None:
        self._to, self._from, self._rest = to, from_, b""
        self._ids = itertools.count(1)
        self._session: str | None = None
        self.problems: list[str] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The command's result; RuntimeError with the browser's reason."""
        message: dict[str, Any] = {"id": next(self._ids), "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            got = self._receive()
            if got.get("id") == message["id"]:
                if "error" in got:
                    raise RuntimeError(f"{method}: {got['error']['message']}")
                return got["result"]

    def open(self, path: Path, width: int, *, height: int = 844, dark: bool = False, phone: bool = False) -> None:
        """Load a file into a window of this size, in CSS pixels; `phone` has touches and no mouse."""
        self.problems.clear()
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        self.send("Emulation.setTouchEmulationEnabled", enabled=phone)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        self._loaded = False
        self.send("Page.navigate", url=path.as_uri())
        while not self._loaded:
            self._receive()

    def value(self, expression: str) -> Any:
        """Of a JavaScript expression."""
        got = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in got:
            raise RuntimeError(f"{expression}: {got['exceptionDetails']}")
        return got["result"].get("value")

    def middle(self, selector: str, across: float = 0.5) -> tuple[float, float]:
        """Of an element that is brought into the window: x at `across` of its width, y in the middle."""
        self.value(f"document.querySelector({selector!r}).scrollIntoView({{block: 'center', behavior: 'instant'}})")
        self.settle()
        box = self.value(f"document.querySelector({selector!r}).getBoundingClientRect().toJSON()")
        return box["left"] + across * box["width"], box["top"] + box["height"] / 2

    def hover(self, selector: str, across: float = 0.5) -> None:
        x, y = self.middle(selector, across)
        self.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        self.settle()

    def click(self, selector: str) -> None:
        x, y = self.middle(selector)
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
        self.settle()

    def tap(self, selector: str, across: float = 0.5) -> None:
        x, y = self.middle(selector, across)
        self.send("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x, "y": y}])
        self.send("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
        self.settle()

    def press(self, *keys: str) -> None:
        """Keys by their names, as Tab, ArrowRight, Enter."""
        for key in keys:
            text = {"text": "\r"} if key == "Enter" else {}
            code = {"Enter": 13, "Tab": 9}.get(key, 0)
            self.send("Input.dispatchKeyEvent", type="keyDown", key=key, windowsVirtualKeyCode=code, **text)
            self.send("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)
        self.settle()

    def settle(self) -> None:
        """Two frames: what was asked for is on the page."""
        frames = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
        self.send("Runtime.evaluate", expression=frames, awaitPromise=True)

    def screenshot(self, *, whole: bool = False) -> bytes:
        """A PNG of the window, or of the whole page."""
        clip = {}
        if whole:
            size = self.send("Page.getLayoutMetrics")["cssContentSize"]
            clip = {"clip": size | {"scale": 1}, "captureBeyondViewport": True}
        return base64.b64decode(self.send("Page.captureScreenshot", format="png", **clip)["data"])

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            if not select.select([self._from], [], [], 30)[0]:
                raise TimeoutError("the browser was silent for 30 seconds")
            got = os.read(self._from, 2**16)
            if not got:
                raise RuntimeError("the browser ended")
            self._rest += got
        line, _, self._rest = self._rest.partition(b"\0")
        message = json.loads(line)
        self._note(message.get("method"), message.get("params", {}))
        return message

    def _note(self, method: str | None, told: dict[str, Any]) -> None:
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Runtime.exceptionThrown":
            self.problems.append(str(told["exceptionDetails"].get("exception", told)))
        elif method == "Runtime.consoleAPICalled":
            self.problems.append(str(told["args"]))
        elif method == "Log.entryAdded":
            self.problems.append(told["entry"]["text"])
        elif method == "Network.requestWillBeSent" and not told["request"]["url"].startswith(("file:", "about:")):
            self.problems.append(f"asked for {told['request']['url']}")


@contextlib.contextmanager
def started(program: str, folder: Path) -> Iterator[Browser]:
    """A browser with its profile in `folder`; ended, and waited for, at the end."""
    to_browser, from_browser = os.pipe(), os.pipe()

    def as_3_and_4() -> None:
        # Through copies above 4, since one of the ends may be 3 or 4 itself.
        ends = [os.dup(to_browser[0]), os.dup(from_browser[1])]
        ends = [os.dup2(end, end + 20, inheritable=False) for end in ends]
        os.dup2(ends[0], 3)
        os.dup2(ends[1], 4)

    command = [program, *FLAGS, "--remote-debugging-pipe", f"--user-data-dir={folder}"]
    with (folder / "stderr").open("wb") as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors, close_fds=False, preexec_fn=as_3_and_4
        )
    os.close(to_browser[0])
    os.close(from_browser[1])
    try:
        yield Browser(to_browser[1], from_browser[0])
    finally:
        os.close(to_browser[1])  # at which it ends
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(from_browser[0])
