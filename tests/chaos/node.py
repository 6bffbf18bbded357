"""One node of the fleet, as the test holds it: born, given orders, killed, stopped and born again."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx2

from chaos import journal, orders
from chaos.holders import holders
from mailmill.store.database import uncut

_START_SECONDS = 60.0


class Node:
    """``folder/NAME`` is its data folder, ``folder/NAME.toml`` its configuration, ``folder/NAME.log`` what it says.

    ``inside`` is put before its command (`harness.small_disk`), ``seen`` is where its data folder is seen from here.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        environ: Mapping[str, str],
        *,
        inside: Sequence[str] = (),
        seen: Path | None = None,
    ) -> None:
        self.name = name
        self.config = folder / f"{name}.toml"
        self.log = folder / f"{name}.log"
        self.lock = folder / name / "lock"
        self.pid = 0
        self.lives = 0
        self.exit_codes: list[int] = []
        self.http = httpx2.AsyncClient(
            transport=httpx2.AsyncHTTPTransport(uds=str((seen or folder / name) / "mailmill.sock")),
            base_url="http://mailmill",
            timeout=30,
        )
        self._journals = folder / "journal"
        self._order = folder / f"{name}.order"
        self._environ = dict(environ)
        self._inside = tuple(inside)
        self._process: asyncio.subprocess.Process | None = None
        self._ended = asyncio.Event()
        self._ending: asyncio.Task[None] | None = None

    # -- the program that all lives are forks of ----------------------------------------------------------------------

    async def open(self) -> None:
        self.order()
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._inside,
                sys.executable,
                str(Path(__file__).with_name("node_program.py")),
                str(self.config),
                str(self._order),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path]),
                    **self._environ,
                },
                start_new_session=True,
            )
        await self._hear()

    async def close(self) -> list[dict[str, Any]]:
        """Who still held the data folder though no life did. They are killed, whatever group they are in."""
        await self.http.aclose()
        left = [] if self.alive else await asyncio.to_thread(holders, self.lock)
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()
        for holder in await asyncio.to_thread(holders, self.lock):
            with contextlib.suppress(ProcessLookupError):
                os.kill(holder["pid"], signal.SIGKILL)
        if self._ending is not None:
            self._ending.cancel()
            await asyncio.wait((self._ending,))
        return left

    async def _hear(self) -> dict[str, Any]:
        assert self._process is not None and self._process.stdout is not None
        async with asyncio.timeout(_START_SECONDS):
            line = await self._process.stdout.readline()
        if not line:
            raise AssertionError(f"node {self.name} is no more:\n{self.said()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def said(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-4000:]

    # -- a life -------------------------------------------------------------------------------------------------------

    @property
    def life(self) -> str:
        return f"{self.name}-{self.lives:04}"

    @property
    def alive(self) -> bool:
        return bool(self.pid) and not self._ended.is_set()

    async def begin(self) -> None:
        assert self._process is not None and self._process.stdin is not None
        self.lives += 1
        job = {"journal": str(self._journals), "life": self.life}
        self._process.stdin.write(json.dumps(job).encode() + b"\n")
        self._ended.clear()
        # Whoever waits may give up; what the program says must be heard all the same, or it is taken for later news.
        await uncut(self._hear_birth())

    async def _hear_birth(self) -> None:
        self.pid = (await self._hear())["pid"]
        self._ending = asyncio.create_task(self._await_end())

    async def _await_end(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        line = await self._process.stdout.readline()
        if line:
            self.exit_codes.append(json.loads(line)["ended"])
        self._ended.set()

    async def ended(self) -> int:
        """The exit code, minus the signal's number where one killed it, as soon as this life is over."""
        await self._ended.wait()
        if not self.exit_codes:
            raise AssertionError(f"node {self.name} is no more:\n{self.said()}")
        return self.exit_codes[-1]

    def order(self, how: str = "", phases: Iterable[str] = ()) -> None:
        """See `orders.give`; nothing takes the order back."""
        orders.give(self._order, how, phases)

    def signal(self, number: signal.Signals) -> None:
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def records(self, kind: str) -> list[dict[str, Any]]:
        """What this life wrote of one kind until now."""
        path = self._journals / f"{self.life}.jsonl"
        return [record for record in journal.lines(path) if record["kind"] == kind] if path.exists() else []

    async def answers(self) -> bool:
        try:
            return (await self.http.get("/health")).status_code == 200
        except httpx2.TransportError:
            return False
