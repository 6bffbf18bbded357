"""Connections that exist in memory only, for tests of the pool: every step is released by the test."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from mailmill.errors import ConnectionLostError


@dataclass(frozen=True, slots=True)
class FakeSelected:
    path: str


@dataclass(eq=False)
class FakeConnection:
    """``noop`` and ``logout`` return at once unless given a future to wait for; ``broken`` makes ``noop`` fail."""

    number: int = 0
    last_proven_at: float = 0.0
    selected: FakeSelected | None = None
    busy: bool = False
    closed: bool = False
    broken: bool = False
    noops: int = 0
    logouts: int = 0
    noop_waits_for: asyncio.Future[None] | None = None
    logout_waits_for: asyncio.Future[None] | None = None
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.last_proven_at = asyncio.get_running_loop().time()

    def forget_selected(self) -> None:
        self.selected = None

    async def noop(self) -> None:
        self.noops += 1
        if self.noop_waits_for is not None:
            await self.noop_waits_for
        if self.broken or self.closed:
            raise ConnectionLostError("gone")
        self.last_proven_at = asyncio.get_running_loop().time()

    async def logout(self) -> None:
        self.logouts += 1
        if self.logout_waits_for is not None:
            await self.logout_waits_for
        self.abort()

    def abort(self) -> None:
        self.closed = True
        self.gone.set()
