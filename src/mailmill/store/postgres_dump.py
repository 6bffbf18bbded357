"""PostgreSQL's own tools for its own data: pg_dump, pg_restore, psql; of the server's version or newer.

Laws:

* A restore is one transaction, and what marks the database as a restored one is a part of it: there is no moment at
  which a service could take a copy for the store that it was copied from. It holds the lock of the schema
  (`postgres_schema`) to its end, which may come after that of the tools: a COMMIT that was sent is carried out.
* The password goes through the environment: an argument could be read by every user of the machine.
* psql says what failed, but not of which row: rows are mail.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy import make_url

from mailmill import programs
from mailmill.errors import StoreError
from mailmill.programs import Program
from mailmill.store.migrate import SCHEMA_LOCK

_ERROR_BYTES = 64 * 1024
_ERROR_CHARACTERS = 500
_GONE_SECONDS = 10.0
_UNCHANGED = "nothing was changed; its words say what it wants"


async def dump(url: str, target: Path) -> None:
    """The database at ``url`` (one snapshot) as an archive of pg_restore's. Raises StoreError."""
    await _run(url, "pg_dump", ["--format=custom", "--no-owner", "--no-privileges", f"--file={target}"])


async def find_tools_to_restore() -> None:
    """Raises StoreError where they are not on this machine."""
    for program in ("psql", "pg_restore"):
        await _find(program)


def of_schema(revision: str) -> str:
    """The statement that fails where the database is of another schema: for `restore`, which then changes nothing.

    ``revision`` is letters and digits (`backup_manifest`).
    """
    return (
        "DO $$ DECLARE found text := (SELECT version_num FROM alembic_version); BEGIN"  # noqa: S608 - no word of anybody's
        f" IF found IS DISTINCT FROM '{revision}' THEN"
        f" RAISE EXCEPTION 'the backup has schema %, and the manifest beside it says {revision}', found;"
        " END IF; END $$"
    )


async def restore(url: str, source: Path, *, then: str) -> None:
    """An archive into the empty database at ``url``, and the statement ``then`` after it: all of it or nothing,
    whatever ends the tools or this process. Raises StoreError.
    """
    # pg_restore writes a script to psql, in one pipe with the lines of ours that are around it. Where pg_restore fails,
    # or somebody dies, the COMMIT is never written: psql ends, and the server with it rolls all back.
    reading, writing = os.pipe()
    try:
        quiet = ("--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--set=VERBOSITY=terse", "--set=SHOW_CONTEXT=never")
        async with _running(url, "psql", [*quiet, "--file=-"], stdin=reading) as loading:
            # Of its two ends each has one holder here: psql's death is seen by who writes, and the end by psql.
            os.close(reading)
            reading = -1
            loaded = asyncio.create_task(_end(loading))
            try:
                failure = await _script(writing, source, then)
                os.close(writing)
                writing = -1
                # psql's words come first: where it failed, all that pg_restore knows is that nobody reads.
                _refuse("psql", *await loaded)
            finally:
                loaded.cancel()
            if failure is not None:
                raise failure
    finally:
        for descriptor in (reading, writing):
            if descriptor >= 0:
                os.close(descriptor)


async def _script(writing: int, source: Path, then: str) -> StoreError | None:
    """Write it; what went wrong, where not all of it was written."""
    try:
        await asyncio.to_thread(os.write, writing, f"BEGIN;\nSELECT pg_advisory_xact_lock({SCHEMA_LOCK});\n".encode())
        options = ["--no-owner", "--no-privileges", "--file=-", str(source)]
        async with _running(None, "pg_restore", options, stdout=writing) as unpacking:
            _refuse("pg_restore", *await _end(unpacking))
        # The script has emptied the search path.
        await asyncio.to_thread(os.write, writing, f"RESET search_path;\n{then};\nCOMMIT;\n".encode())
    except BrokenPipeError:
        return StoreError("psql ended before it was told", hint=_UNCHANGED)
    except StoreError as error:
        return error
    return None


def without_password(url: str) -> tuple[str, str]:
    """``url`` as libpq reads it and may be shown to everyone, and the password that was in it; empty where none was."""
    parsed = make_url(_of_one_host(url))
    asked = parsed.query.get("password", "")
    # libpq takes the query's word over the other, and the last of several.
    password = (asked if isinstance(asked, str) else asked[-1]) or str(parsed.password or "")
    # Not by `set`, to which None means: as it was.
    plain = parsed.difference_update_query(["password"])._replace(drivername="postgresql", password=None)
    return plain.render_as_string(hide_password=False), password


def _of_one_host(url: str) -> str:
    """``url`` with its hosts in the query where it names several: libpq reads both forms, SQLAlchemy that one."""
    scheme, separator, rest = url.partition("://")
    authority, slash, rest = rest.partition("/")
    access, at, hosts = authority.rpartition("@")
    if "," not in hosts:
        return url
    named = [host.rpartition(":") if ":" in host else (host, "", "5432") for host in hosts.split(",")]
    path, _, query = rest.partition("?")
    where = f"host={','.join(one[0] for one in named)}&port={','.join(one[2] for one in named)}"
    return f"{scheme}{separator}{access}{at}{slash}{path}?{where}{'&' if query else ''}{query}"


async def _find(program: str) -> str:
    found = await asyncio.to_thread(shutil.which, program)
    if found is None:
        raise StoreError(
            f"{program} is not on this machine, and PostgreSQL's data is its to copy",
            hint="install postgresql-client (of the server's version or newer), or run it where it is",
        )
    return found


async def _run(url: str, program: str, options: Sequence[str]) -> None:
    """It takes what it takes: a large database takes hours. A cancellation ends the program too."""
    async with _running(url, program, options) as process:
        _refuse(program, *await _end(process))


@asynccontextmanager
async def _running(
    url: str | None,
    program: str,
    options: Sequence[str],
    *,
    stdin: int = programs.DEVNULL,
    stdout: int = programs.DEVNULL,
) -> AsyncIterator[Program]:
    """``program`` on the database at ``url`` (None: on none) for the length of the block: it is killed at its end."""
    found = await _find(program)
    environ = dict(os.environ)
    where: list[str] = []
    if url is not None:
        plain, password = without_password(url)
        where = ["--no-password", f"--dbname={plain}"]
        if password:
            environ["PGPASSWORD"] = password
    running = await programs.start(
        [found, *where, *options], stdin=stdin, stdout=stdout, stderr=programs.PIPE, environ=environ
    )
    try:
        yield running
    finally:
        if running.returncode is None:
            running.kill()
            async with asyncio.timeout(_GONE_SECONDS):
                await running.wait()


async def _end(program: Program) -> tuple[int, bytes]:
    """How it ended, and what it said."""
    _nothing, said = await program.output(_ERROR_BYTES)
    return await program.wait(), said


def _refuse(program: str, code: int, said: bytes) -> None:
    if code:
        words = " ".join(said.decode("utf-8", "replace").split())[:_ERROR_CHARACTERS]
        raise StoreError(f"{program} failed: {words}", hint=_UNCHANGED)
