"""Drives a headless Chromium over the DevTools pipe: no port, no WebSocket library, nothing left behind.

Chromium reads commands on file descriptor 3 and answers on 4, one JSON object each, ended by NUL.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

# subprocess can pass descriptors on but not renumber them; this puts them where Chromium looks.
_LAUNCHER = """
import fcntl, os, sys
read, write = (fcntl.fcntl(int(held), fcntl.F_DUPFD, 10) for held in sys.argv[1:3])  # out of the way of 3 and 4
os.dup2(read, 3)
os.dup2(write, 4)
os.execvp(sys.argv[3], sys.argv[3:])
"""

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)

_STEP_SECONDS = 30


class Page:
    """One tab. ``problems``: uncaught exceptions, console errors, what the content security policy refused."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.WriteTransport) -> None:
        self._reader = reader
        self._writer = writer
        self._session: str | None = None
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._sent = 0
        self.problems: list[str] = []
        self.requested: list[str] = []

    async def call(self, method: str, **params: object) -> dict[str, Any]:
        self._sent += 1
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._answers[self._sent] = answer
        command: dict[str, object] = {"id": self._sent, "method": method, "params": params}
        if self._session:
            command["sessionId"] = self._session
        self._writer.write(json.dumps(command).encode() + b"\0")
        async with asyncio.timeout(_STEP_SECONDS):
            return await answer

    async def open_tab(self) -> None:
        target = await self.call("Target.createTarget", url="about:blank")
        attached = await self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.call(f"{domain}.enable")

    async def listen(self) -> None:
        while frame := await self._reader.readuntil(b"\0"):
            said = json.loads(frame[:-1])
            if (answer := self._answers.pop(said.get("id", 0), None)) is not None:
                if not answer.done():
                    if "error" in said:
                        answer.set_exception(AssertionError(f"the browser refused: {said['error']}"))
                    else:
                        answer.set_result(said["result"])
                continue
            match said["method"], said["params"]:
                case "Runtime.exceptionThrown", params:
                    self.problems.append(
                        str(params["exceptionDetails"].get("exception", {}).get("description", params))
                    )
                case "Log.entryAdded", params if params["entry"]["level"] == "error":
                    self.problems.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
                case "Network.requestWillBeSent", params:
                    self.requested.append(params["request"]["url"])

    async def go(self, url: str) -> None:
        await self.call("Page.navigate", url=url)

    async def run(self, script: str) -> Any:
        """The value of a JavaScript expression (awaited, if it is a promise)."""
        answer = await self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise AssertionError(answer["exceptionDetails"])
        return answer["result"].get("value")

    async def wait_until(self, condition: str) -> None:
        """Waits until a JavaScript expression is true, also across navigations; one that throws is not true yet."""
        script = f"""new Promise((resolve) => {{
            const holds = () => {{ try {{ return {condition}; }} catch {{ return false; }} }};
            const look = () => holds() ? resolve(true) : setTimeout(look, 20);
            look();
        }})"""
        async with asyncio.timeout(_STEP_SECONDS):
            while True:
                try:
                    if await self.run(script):
                        return
                except AssertionError as navigated:  # the page went away under the question: ask the next one
                    if "context" not in str(navigated) and "navigated" not in str(navigated):
                        raise

    async def look(self, *, width: int, height: int, dark: bool = False, scale: float = 1) -> None:
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=False
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])

    async def press(self, key: str) -> None:
        """One key, by its name: ``Enter``, ``Tab``, ``Escape``."""
        text = {"text": "\r"} if key == "Enter" else {}
        code = {"Enter": 13, "Tab": 9, "Escape": 27}[key]
        for kind in ("keyDown", "keyUp"):
            await self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text)
            text = {}

    async def screenshot(self) -> bytes:
        answer = await self.call("Page.captureScreenshot", format="png")
        return base64.b64decode(answer["data"])


@contextlib.asynccontextmanager
async def browser(executable: str, profile: Path) -> AsyncIterator[Page]:
    """A Chromium with an own, empty profile, showing one tab; ended and waited for at the end of the block."""
    commands_out, commands_in = os.pipe()
    answers_out, answers_in = os.pipe()
    loop = asyncio.get_running_loop()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _LAUNCHER,
        str(commands_out),
        str(answers_in),
        executable,
        *_FLAGS,
        f"--user-data-dir={profile}",
        pass_fds=(commands_out, answers_in),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, "HOME": str(profile)},
    )
    os.close(commands_out)
    os.close(answers_in)
    reader = asyncio.StreamReader(limit=64 * 1024 * 1024)
    receiving, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(answers_out, "rb", buffering=0)
    )
    sending, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(commands_in, "wb", buffering=0))
    page = Page(reader, sending)
    listening = asyncio.create_task(page.listen())
    try:
        await page.open_tab()
        yield page
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        sending.close()  # Chromium leaves when its pipe ends
        receiving.close()
        try:
            async with asyncio.timeout(5):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
