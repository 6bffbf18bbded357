"""Nodes of one fleet: services on one PostgreSQL and one place of raw messages, begun and ended one by one."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Sequence
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGTERM, Signals
from typing import Any, Self

from bench import service
from bench.processes import Programs
from bench.service import AccountConfig, Service

_KEY = base64.urlsafe_b64encode(bytes(32))
_SPREAD_SECONDS = 120.0


class Fleet:
    """``async with Fleet(…) as fleet``, then `begin`. All nodes have the same accounts and each a folder of its own.

    Leases are as they come: nothing is configured of them.
    """

    def __init__(
        self, programs: Programs, name: str, folder: Path, url: str, accounts: Sequence[AccountConfig]
    ) -> None:
        self.nodes: dict[str, Service] = {}
        self._programs = programs
        self._name = name
        self._folder = folder
        self._accounts = accounts
        self._endings: dict[str, contextlib.AsyncExitStack] = {}
        self._ids: dict[str, str] = {}
        (folder / "blobs").mkdir()
        key_file = folder / "master.key"
        key_file.touch(mode=0o600)
        key_file.write_bytes(_KEY)
        self._shared = {"database_url": url, "blob_url": (folder / "blobs").as_uri(), "key_file": str(key_file)}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for name in reversed(list(self.nodes)):
            await self._gone(name)

    async def begin(self, name: str, *roles: str, observer_port: int | None = None) -> Service:
        """A node with these roles, or all; it has answered once. ``observer_port``: see `service.running`."""
        folder = self._folder / name
        folder.mkdir(exist_ok=True)
        keys = self._shared | ({"roles": roles} if roles else {})
        config = service.write_config(folder, self._accounts, service=keys)
        stack = contextlib.AsyncExitStack()
        running = service.running(self._programs, f"{self._name}-{name}", folder, config, observer_port=observer_port)
        node = await stack.enter_async_context(running)
        self.nodes[name], self._endings[name] = node, stack
        self._ids[name] = (await node.get("/v1/status"))["node"]["id"]
        return node

    async def stop(self, name: str) -> None:
        """In good order; returns when the process is gone."""
        await self._end(name, SIGTERM)

    async def kill(self, name: str) -> None:
        await self._end(name, SIGKILL)

    def id_of(self, name: str) -> str:
        """By which the others know it. A node that begins again has another one."""
        return self._ids[name]

    async def owners(self, asked: str) -> dict[str, str]:
        """Account → id of the node that keeps it in sync, as the node ``asked`` has it; "" for none."""
        listed = await self.nodes[asked].get("/v1/accounts")
        return {each["account"]: each["node"] or "" for each in listed["accounts"]}

    async def until_spread(self, asked: str, *names: str) -> None:
        """Until the nodes ``names`` have equal shares and nobody else has any, and all accounts are connected."""
        wanted = {self._ids[name] for name in names}

        def spread(status: Any) -> bool:
            parts = {each["id"]: each["shards"] for each in status["nodes"] if each["shards"]}
            fair = parts.keys() == wanted and max(parts.values()) - min(parts.values()) <= 1
            whole = sum(parts.values()) == 64
            return fair and whole and bool(status["accounts"].get("connected") == len(self._accounts))

        await self.nodes[asked].until("equal shares", spread, "/v1/status", _SPREAD_SECONDS)

    async def until_renewed(self, asked: str, name: str, within_seconds: float) -> None:
        """Until the node ``name`` has renewed its leases no longer ago than that."""

        def renewed(status: Any) -> bool:
            [age] = [each["heartbeatAgeSeconds"] for each in status["nodes"] if each["id"] == self._ids[name]]
            return float(age) <= within_seconds

        await self.nodes[asked].until("a renewal", renewed, "/v1/status")

    async def _end(self, name: str, number: Signals) -> None:
        node = self.nodes[name]
        node.send_signal(number)
        await node.ended()
        await self._gone(name)

    async def _gone(self, name: str) -> None:
        node = self.nodes.pop(name)
        # One that was stopped in its tracks cannot end.
        node.send_signal(SIGCONT)
        await self._endings.pop(name).aclose()
