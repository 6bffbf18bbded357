"""``mailmill demo`` as a newcomer runs it: mail is processed, an alert comes, and nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

pytestmark = pytest.mark.children_only

_SHOWN_SECONDS = 60.0
_END_SECONDS = 10.0
_LINE_BYTES = 1 << 20


class Demo:
    """A running demo, and what it keeps on the machine."""

    def __init__(self, process: asyncio.subprocess.Process, folder: Path) -> None:
        self.process = process
        self.folder = folder
        self.said: list[str] = []
        self._server: int | None = None

    async def until(self, *words: str) -> str:
        """The first line with all of these words, waiting for it if it was not said yet (new mail goes before old)."""
        assert self.process.stdout is not None
        for said in self.said:
            if all(word in said for word in words):
                return said
        async with asyncio.timeout(_SHOWN_SECONDS):
            while line := (await self.process.stdout.readline()).decode():
                self.said.append(line.rstrip("\n"))
                if all(word in line for word in words):
                    return self.said[-1]
        raise AssertionError(f"it ended without saying {words}:\n" + "\n".join(self.said))

    async def until_json(self, key: str) -> Any:
        """The value under ``key`` of the first line that has it."""
        return json.loads(await self.until(f'{{"{key}"'))[key]

    def watch_server(self) -> None:
        """Keep hold of the mail server, so that its end is seen also after ours."""
        # A process that reads attached files may be there as well.
        [child] = [one for one in children(self.process.pid) if "inside_child" not in command_line(one)]
        self._server = os.pidfd_open(child)

    async def server_ended(self) -> None:
        """Wait for the mail server's end."""
        assert self._server is not None
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(self._server, ended.set)  # a pidfd is readable once the process has ended
        try:
            async with asyncio.timeout(_END_SECONDS):
                await ended.wait()
        finally:
            loop.remove_reader(self._server)

    async def ended(self) -> int:
        """Its exit code. Fails if it takes too long, or anything of it is left."""
        assert self.process.stdout is not None
        async with asyncio.timeout(_END_SECONDS):
            rest = await self.process.stdout.read()
            code = await self.process.wait()
        self.said += rest.decode().splitlines()
        await self.server_ended()
        assert list(self.folder.iterdir()) == []
        return code

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        if self._server is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._server, signal.SIGKILL)
            os.close(self._server)


def command_line(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text()
    return ""


def children(parent: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # pid (name) state parent …; the name may hold anything, brackets too
            if int(stat.read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(stat.parent.name))
    return found


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where temporary folders are made. Short, unlike pytest's: a unix socket's path has at most 108 bytes."""
    with tempfile.TemporaryDirectory(prefix="mm-") as made:
        yield Path(made)


@contextlib.asynccontextmanager
async def demo(folder: Path, *arguments: str) -> AsyncIterator[Demo]:
    """A demo with ``folder`` for temporary files, which it must leave empty."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mailmill", "demo", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        limit=_LINE_BYTES,
        env={**os.environ, "TMPDIR": str(folder), "NO_COLOR": "1"},
        start_new_session=True,
    )
    running = Demo(process, folder)
    try:
        yield running
    finally:
        running.close()
        await process.wait()


async def test_mail_is_processed_and_ctrl_c_leaves_nothing(folder: Path) -> None:
    async with demo(folder) as running:
        link = await running.until("http://127.0.0.1:", "/login?code=")
        running.watch_server()
        await running.until("clean", "newsletter", "Issue 112")
        await running.until("clean", "personal", "Notes from this morning")
        await running.until("webhook", "threatFound", "Your account has been limited")
        async with httpx2.AsyncClient(follow_redirects=True, timeout=30) as browser:
            page = await browser.get(link)
            assert page.status_code == 200
            assert "<title>mailmill" in page.text
            status = (await browser.get(str(page.url.copy_with(path="/v1/status")))).json()
            assert status["accounts"] == {"connected": 1}
            assert status["threats"]["malicious"] >= 1
            assert (await browser.get(link)).status_code == 410
        assert (running.folder / next(iter(os.listdir(running.folder))) / "config.toml").stat().st_mode & 0o077 == 0
        running.process.send_signal(signal.SIGINT)
        assert await running.ended() == 0
        assert running.said[-1].startswith("Processed ")


@pytest.fixture
def port_8025_taken() -> Iterator[None]:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):  # somebody else listens there: that will do
            other.bind(("127.0.0.1", 8025))
            other.listen()
        yield


async def test_the_commands_that_it_names_work_on_it(folder: Path) -> None:
    async with demo(folder) as running:
        await running.until("newsletter", "Issue 112")
        running.watch_server()
        config = running.folder / next(iter(os.listdir(running.folder))) / "config.toml"

        async def command(*words: str) -> str:
            asked = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "mailmill", "--config", str(config), *words),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
            )
            async with asyncio.timeout(_SHOWN_SECONDS):
                said, _ = await asked.communicate()
            assert asked.returncode == 0, words
            return said.decode()

        [message] = json.loads(await command("envelope", "list", "--limit", "1", "--json"))["messages"]
        assert "+flagged" in await command("flag", "add", message["id"], "flagged")
        assert "→ Trash" in await command("message", "delete", message["id"])
        running.process.send_signal(signal.SIGINT)
        assert await running.ended() == 0


async def test_json_and_a_port_that_is_taken(folder: Path, port_8025_taken: None) -> None:
    async with demo(folder, "--json") as running:
        link = await running.until_json("page")
        running.watch_server()
        assert link.startswith("http://127.0.0.1:")
        assert ":8025/" not in link
        message = await running.until_json("processed")
        assert message["threat"]["verdict"] == "clean"
        alerted = await running.until_json("alerted")
        assert alerted["event"] == "threatFound"
        assert alerted["data"]["threat"]["findings"]
        running.process.send_signal(signal.SIGTERM)
        assert await running.ended() == 0
        ended = json.loads(running.said[-1])["ended"]
        assert ended["alerted"] >= 1
        assert ended["processed"] >= 6


async def test_it_ends_with_its_terminal(folder: Path) -> None:
    async with demo(folder) as running:
        await running.until("newsletter", "Issue 112")
        running.watch_server()
        running.process.send_signal(signal.SIGHUP)
        assert await running.ended() == 0


async def test_the_server_does_not_outlive_a_demo_that_was_killed(folder: Path) -> None:
    async with demo(folder) as running:
        await running.until("/login?code=")
        running.watch_server()
        running.process.kill()
        await running.server_ended()
