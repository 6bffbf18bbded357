"""A few kills of a whole fleet, so that the run of three hundred (`make chaos`) is known to work: its nodes, orders,
journals and checker. What it proves takes the long run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from chaos.under_fire import Plan, UnderFire
from servers.dovecot import Dovecot
from servers.postgres import Postgres

pytestmark = pytest.mark.children_only

KILLS = 8


@pytest.mark.timeout(900)
async def test_a_fleet_under_fire_for_a_moment(
    dovecot: Dovecot, start_postgres: Callable[..., Awaitable[Postgres]], tmp_path: Path
) -> None:
    folder = tmp_path / "fleet"
    await asyncio.to_thread(folder.mkdir)
    fleet = UnderFire(folder, await start_postgres(), dovecot, Plan(kills=KILLS, freezes=(), cuts=1, seed=1))
    outcome = await fleet.run()
    assert outcome.findings == []
    assert outcome.unknown == []
    assert KILLS <= outcome.kills <= 2 * KILLS
    assert (outcome.cuts, outcome.restarts) == (1, 1)
    assert outcome.messages > 20 and outcome.events > outcome.messages and outcome.receipts
