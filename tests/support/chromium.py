"""A headless Chromium that is driven through a pipe (the DevTools protocol), where there is one."""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome")

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--remote-debugging-pipe",
)  # fmt: skip

COMPLAINTS = ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")


def installed() -> str | None:
    """Return the browser's path."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


@dataclass
class Tab:
    """One page.

    Attributes:
        to: the end of the pipe that commands are written to.
        answers: the end that answers and events come from.
        session: which page they are about; empty for the browser itself.
        complaints: what the console said: errors, refusals, exceptions.
    """

    to: int
    answers: Any
    session: str = ""
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._numbers = itertools.count(1)

    def call(self, method: str, **options: Any) -> Any:
        """Send a command and return its result."""
        number = next(self._numbers)
        session = {"sessionId": self.session} if self.session else {}
        message = {"id": number, "method": method, "params": options, **session}
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != number:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def wait(self, event: str) -> None:
        """Wait for an event."""
        while self._next().get("method") != event:
            pass

    def _next(self) -> Any:
        data = bytearray()
        while (byte := self.answers.read(1)) != b"\0":
            assert byte, "the browser has ended"
            data += byte
        message = json.loads(data)
        if message.get("method") in COMPLAINTS:
            self.complaints.append(json.dumps(message["params"]))
        return message

    def run(self, script: str) -> Any:
        """Return what an expression gives."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def show(self, page: Path, width: int, height: int, *, dark: bool) -> None:
        """Load a page into a window of this size."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.call("Page.navigate", url=page.as_uri())
        self.wait("Page.loadEventFired")

    def press(self, key: str) -> None:
        """Press a key."""
        text = {"Enter": "\r"}.get(key)
        code = {"Enter": 13, "Tab": 9}[key]
        options = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.call(
            "Input.dispatchKeyEvent", type="keyDown", **options, **({"text": text} if text else {})
        )
        self.call("Input.dispatchKeyEvent", type="keyUp", **options)

    def picture(self, target: Path) -> None:
        """Save the whole page as PNG."""
        data = self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        target.write_bytes(base64.b64decode(data))


@contextmanager
def browsing(folder: Path) -> Iterator[Tab]:
    """Start a browser whose profile is in `folder`, and end it."""
    command_in, command_out = os.pipe()
    answer_in, answer_out = os.pipe()
    line = [installed() or "", *FLAGS, f"--user-data-dir={folder / 'profile'}"]

    def place() -> None:
        # The browser reads from descriptor 3 and writes to 4.
        for source, target in ((command_in, 13), (answer_out, 14), (13, 3), (14, 4)):
            os.dup2(source, target)

    process = subprocess.Popen(
        line,
        preexec_fn=place,
        pass_fds=(3, 4),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(command_in)
    os.close(answer_out)
    try:
        with os.fdopen(answer_in, "rb") as answers:
            tab = Tab(command_out, answers)
            target = tab.call("Target.createTarget", url="about:blank")["targetId"]
            found = tab.call("Target.attachToTarget", targetId=target, flatten=True)
            tab.session = found["sessionId"]
            for domain in ("Page", "Runtime", "Log"):
                tab.call(f"{domain}.enable")
            yield tab
    finally:
        process.kill()
        process.wait()
        os.close(command_out)
