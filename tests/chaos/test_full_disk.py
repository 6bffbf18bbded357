"""A few times without room, on SQLite: nothing is lost, nothing is done twice, and it goes on by itself. More of them:
``make chaos ARGS="--full-disk 100"``."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from chaos.full_disk import FullDisk, Plan
from harness import small_disk
from servers.dovecot import Dovecot

pytestmark = pytest.mark.children_only

ROUNDS = 6


@pytest.mark.timeout(600)
@pytest.mark.skipif(not small_disk.possible(), reason="this machine gives its users no namespaces to mount a disk in")
async def test_a_disk_that_is_full_again_and_again(dovecot: Dovecot, tmp_path: Path) -> None:
    folder = tmp_path / "embedded"
    await asyncio.to_thread(folder.mkdir)
    outcome = await FullDisk(folder, dovecot, Plan(rounds=ROUNDS, kills=2, seed=1)).run()
    assert outcome.findings == []
    assert outcome.bitten == ROUNDS
    assert outcome.refused["database"] and outcome.refused["segments"]
    assert outcome.transactions["finish"]
    assert (outcome.kills, outcome.given_up) == (2, 0)
    assert outcome.messages > 50 and outcome.events > outcome.messages and outcome.receipts > outcome.messages
