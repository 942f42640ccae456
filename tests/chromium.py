"""A headless Chromium, driven over its own pipe in the DevTools protocol; nothing has to be installed for it."""

from __future__ import annotations

import base64
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = Path(os.environ.get("L2D_CHROMIUM", "/usr/bin/chromium"))
PATIENCE = 20.0
"""Seconds after which something that is waited for is missing."""

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe",
    "--no-first-run", "--disable-extensions", "--disable-background-networking", "--disable-component-update",
    "--hide-scrollbars", "--force-color-profile=srgb", "--font-render-hinting=none",
)  # fmt: skip

START = "import os, sys; r, w = map(int, sys.argv[1:3]); os.dup2(r, 103); os.dup2(w, 104); os.dup2(103, 3); "
START += "os.dup2(104, 4); os.execv(sys.argv[3], sys.argv[3:])"
"""Chromium reads commands from descriptor 3 and answers to descriptor 4, whatever we have there."""

KEYS = {"Enter": 13, "Escape": 27, "Tab": 9, "ArrowUp": 38, "ArrowDown": 40, "Delete": 46, "Backspace": 8}


class Tab:
    """A tab of a browser, and what was seen of it.

    Args:
        browser: its pipe.
        session: the protocol's name of the connection to it.
        target: the protocol's name of it.
    """

    def __init__(self, browser: Browser, session: str, target: str) -> None:
        self.browser = browser
        self.session = session
        self.target = target
        self.requested: list[str] = []
        self.complaints: list[str] = []
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self.browser.call(method, self.session, **parameters)

    def see(self, event: dict[str, Any]) -> None:
        """Keeps addresses that were asked for and what the console complains of, but for refused requests."""
        method, told = event["method"], event["params"]
        if method == "Network.requestWillBeSent":
            self.requested.append(told["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(told["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning", "assert"):
            self.complaints.append(json.dumps(told["args"]))
        elif method == "Log.entryAdded" and told["entry"]["source"] != "network":
            self.complaints.append(told["entry"]["text"])

    def go(self, address: str) -> None:
        self.call("Page.navigate", url=address)
        self.until("document.readyState == 'complete'")

    def value(self, expression: str) -> Any:
        """What an expression is, once its promises are kept."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise AssertionError(f"{expression}: {found['exceptionDetails']['exception'].get('description')}")
        return found["result"].get("value")

    def until(self, expression: str, patience: float = PATIENCE) -> None:
        """Waits until an expression holds."""
        ends = time.monotonic() + patience
        while not self.value(f"Boolean({expression})"):
            if time.monotonic() > ends:
                shown = self.value("document.body.innerText")
                raise AssertionError(f"never: {expression}\nthe page:\n{shown}\ncomplaints: {self.complaints}")
            time.sleep(0.02)

    def type(self, text: str) -> None:
        """Types into what has the focus."""
        for letter in text:
            self.call("Input.dispatchKeyEvent", type="keyDown", text=letter, key=letter)
            self.call("Input.dispatchKeyEvent", type="keyUp", key=letter)

    def press(self, *keys: str, modifiers: int = 0) -> None:
        """Presses named keys; modifiers as in the protocol: 1 Alt, 8 Shift."""
        for key in keys:
            code = KEYS[key]
            about = {"key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": modifiers}
            text = {"text": "\r"} if key == "Enter" else {}
            self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", **about, **text)
            self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    def sized(self, width: int, height: int) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    def scheme(self, name: str) -> None:
        features = [{"name": "prefers-color-scheme", "value": name}]
        self.call("Emulation.setEmulatedMedia", features=features)

    def close(self) -> None:
        del self.browser.tabs[self.session]
        self.browser.call("Target.closeTarget", targetId=self.target)

    def picture(self, file: Path) -> None:
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))


class Browser:
    """The pipe to a running Chromium: messages end with a zero byte.

    Args:
        down: where to write.
        up: where to read.
    """

    def __init__(self, down: int, up: int) -> None:
        self.down = down
        self.up = up
        self.tabs: dict[str, Tab] = {}
        self._number = 0
        self._rest = b""

    def open(self) -> Tab:
        """A new tab with storage of its own."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        tab = self.tabs[session] = Tab(self, session, target)
        return tab

    def call(self, method: str, session: str = "", **parameters: Any) -> dict[str, Any]:
        """Sends a command and takes in events until its answer is there."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self.down, json.dumps(message).encode() + b"\0")
        while True:
            told = self._read()
            if told.get("id") == self._number:
                assert "error" not in told, f"{method}: {told.get('error')}"
                found: dict[str, Any] = told["result"]
                return found
            if "method" in told and told.get("sessionId") in self.tabs:
                self.tabs[told["sessionId"]].see(told)

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            assert select.select([self.up], [], [], PATIENCE)[0], "Chromium does not answer"
            read = os.read(self.up, 1 << 16)
            assert read, "Chromium has ended"
            self._rest += read
        first, _, self._rest = self._rest.partition(b"\0")
        found: dict[str, Any] = json.loads(first)
        return found


@contextmanager
def chromium(folder: Path) -> Iterator[Callable[[], Tab]]:
    """A browser that keeps its files in a folder; gives tabs."""
    commands, down = os.pipe()
    up, answers = os.pipe()
    line = [sys.executable, "-S", "-c", START, str(commands), str(answers), str(CHROMIUM), *FLAGS]
    process = subprocess.Popen(
        [*line, f"--user-data-dir={folder}"], pass_fds=(commands, answers), stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    os.close(commands)
    os.close(answers)
    try:
        yield Browser(down, up).open
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        os.close(down)
        os.close(up)
