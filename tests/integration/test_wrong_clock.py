"""A node whose wall clock is hours off says of the store what the others say of it."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path

import pytest
from blockbuster import BlockBuster

from mailmill.app.application import open_application
from mailmill.app.use_cases import UseCases
from mailmill.model import EventName
from mailmill.settings import load_settings
from mailmill.store import dialect, event_log
from mailmill.store.event_log import NewEvent

HOURS = 3600.0


@pytest.fixture(autouse=True)
def processors_are_imported_at_the_start(blockbuster: BlockBuster) -> None:
    """Before anything runs, imports and their metadata may be read on the loop."""
    for function in blockbuster.functions.values():
        function.can_block_in("mailmill/app/wiring.py", {"processors"})


@pytest.mark.parametrize("off_hours", [3, -3])
async def test_the_age_of_what_waits_is_told_by_the_databases_clock(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, off_hours: int
) -> None:
    environ = {
        "HOME": str(tmp_path),
        "MAILMILL_KEY": "A" * 43 + "=",
        "MAILMILL_SERVICE__DATABASE_URL": postgres_url,
        "MAILMILL_SERVICE__BLOB_URL": (tmp_path / "blobs").as_uri(),
    }
    file = tmp_path / "empty.toml"
    file.touch()
    settings = await asyncio.to_thread(load_settings, file, environ)
    async with open_application(settings) as application:
        async with application.database.write() as connection:
            waits_since = await dialect.read_now(connection) - HOURS
            await event_log.append(connection, [NewEvent("default", EventName.CONNECT_ERROR, waits_since)])
        right = time.time
        monkeypatch.setattr(time, "time", lambda: right() + off_hours * HOURS)
        use_cases = UseCases(application)
        text = (await use_cases.metrics()).decode()
        [lag] = re.findall(r"^mailmill_event_lag_seconds (\S+)$", text, re.MULTILINE)
        assert HOURS <= float(lag) < 2 * HOURS
        assert 0 <= (await use_cases.health())["uptimeSeconds"] < HOURS, "a clock that is set makes nobody older"
