"""The master key: is it there, and is it the one that the store was written with. Nothing is made or changed."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from contextlib import closing
from pathlib import Path

from mailmill.cli.diagnosis.findings import Check, fail, from_error, ok, warn
from mailmill.cli.diagnosis.storage import SQLITE, read_only_uri
from mailmill.errors import MasterKeyError
from mailmill.settings import Settings

SUBJECT = "Master key"


async def look(settings: Settings) -> list[Check]:
    """Where no database answers, only whether there is a key: what is wrong with the database is said elsewhere."""
    found = await asyncio.to_thread(place, settings)
    if found.level == "fail":
        return [found]
    url = settings.service.database_url.get_secret_value()
    if url.startswith(SQLITE):
        canary = await asyncio.to_thread(_sqlite_canary, Path(url.removeprefix(SQLITE).partition("?")[0]))
    else:
        canary = await _postgres_canary(url)
    if canary is None:
        return [found]
    return [await asyncio.to_thread(_proven, settings, canary, found)]


def _proven(settings: Settings, canary: str, found: Check) -> Check:
    from mailmill.store.keys import check_key

    service, explicit = settings.service, settings.master_key
    try:
        check_key(
            canary,
            data_dir=service.data_dir,
            explicit=None if explicit is None else explicit.get_secret_value(),
            key_file=service.key_file,
        )
    except MasterKeyError as error:
        return from_error(SUBJECT, error)
    return found


def _sqlite_canary(path: Path) -> str | None:
    from mailmill.store.keys import CANARY_NAME

    if not path.exists():
        return None
    try:
        with closing(sqlite3.connect(read_only_uri(path), uri=True, timeout=5)) as connection:
            row = connection.execute("SELECT value FROM setting WHERE name = ?", (CANARY_NAME,)).fetchone()
    except sqlite3.Error:
        return None
    return None if row is None else str(row[0])


async def _postgres_canary(url: str) -> str | None:
    from mailmill.store import postgres_link
    from mailmill.store.keys import CANARY_NAME

    try:
        connection = await (await postgres_link.find(url)).connect()
        try:
            if await connection.fetchval("SELECT to_regclass('setting')::text") is None:
                return None
            value = await connection.fetchval("SELECT value FROM setting WHERE name = $1", CANARY_NAME)
        finally:
            await connection.close(timeout=postgres_link.CONNECT_SECONDS)
    except Exception:  # noqa: BLE001 - whatever it is, `postgres` has said it
        return None
    return None if value is None else str(value)


def place(settings: Settings) -> Check:
    """Where the key comes from."""
    if settings.master_key is not None:
        return ok(SUBJECT, "from MAILMILL_KEY")
    file = settings.service.key_file
    made = settings.service.data_dir / "master.key"
    chosen = file or made
    if not chosen.exists():
        if file is not None:
            return fail(SUBJECT, f"{file} is missing", "put the key there (service.key_file)", "masterKey")
        if any(settings.service.data_dir.glob("*.db")):
            remedy = (
                "put the file back from a backup, or set MAILMILL_KEY; a new key cannot open what the old one sealed"
            )
            return warn(SUBJECT, f"{made} is missing beside a database", remedy)
        return ok(SUBJECT, f"{made} (made at the first start; back it up)")
    if not os.access(chosen, os.R_OK):
        return fail(SUBJECT, f"{chosen} cannot be read", "let the user mailmill runs as read it", "masterKey")
    if chosen.stat().st_mode & 0o077:
        return warn(SUBJECT, f"{chosen} can be read by others", f"chmod 600 {chosen}")
    return ok(SUBJECT, str(chosen))
