"""PostgreSQL's own tools for its own data: pg_dump and pg_restore, of the same or a newer version than the server.

The password goes through the environment: an argument could be read by every user of the machine.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from asyncio.subprocess import PIPE
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import make_url

from mailmill.errors import StoreError

_ERROR_CHARACTERS = 500
_GONE_SECONDS = 10.0


async def dump(url: str, target: Path) -> None:
    """The database at ``url`` (one snapshot) as an archive of pg_restore's. Raises StoreError."""
    await _run(url, "pg_dump", ["--format=custom", "--no-owner", "--no-privileges", f"--file={target}"])


async def restore(url: str, source: Path) -> None:
    """An archive into the empty database at ``url``: all of it or nothing. Raises StoreError."""
    options = ["--no-owner", "--no-privileges", "--exit-on-error", "--single-transaction"]
    await _run(url, "pg_restore", [*options, str(source)])


def without_password(url: str) -> tuple[str, str]:
    """``url`` as libpq reads it and may be shown to everyone, and the password that was in it; empty where none was."""
    parsed = make_url(url)
    asked = parsed.query.get("password", "")
    # libpq takes the query's word over the other, and the last of several.
    password = (asked if isinstance(asked, str) else asked[-1]) or str(parsed.password or "")
    # Not by `set`, to which None means: as it was.
    plain = parsed.difference_update_query(["password"])._replace(drivername="postgresql", password=None)
    return plain.render_as_string(hide_password=False), password


async def _run(url: str, program: str, options: Sequence[str]) -> None:
    """It takes what it takes: a large database takes hours. A cancellation ends the program too."""
    found = await asyncio.to_thread(shutil.which, program)
    if found is None:
        raise StoreError(
            f"{program} is not on this machine, and PostgreSQL's data is its to copy",
            hint="install postgresql-client (of the server's version or newer), or run it where it is",
        )
    plain, password = without_password(url)
    environ = dict(os.environ)
    if password:
        environ["PGPASSWORD"] = password
    process = await asyncio.create_subprocess_exec(
        found,
        "--no-password",
        f"--dbname={plain}",
        *options,
        env=environ,
        stdin=asyncio.subprocess.DEVNULL,
        stderr=PIPE,
    )
    try:
        _nothing, said = await process.communicate()
    except BaseException:
        if process.returncode is None:
            process.kill()
            async with asyncio.timeout(_GONE_SECONDS):
                await process.wait()
        raise
    if process.returncode:
        words = " ".join(said.decode("utf-8", "replace").split())[:_ERROR_CHARACTERS]
        raise StoreError(f"{program} failed: {words}", hint="nothing was changed; its words say what it wants")
