"""What an embedded store holds, for `history`, where only a process inside of its disk's namespace can read it.

``sqlite_store.py count FOLDER`` has every result counted from now on, before a service uses the store;
``sqlite_store.py read FOLDER`` writes the pickled `Store` to stdout, ``sqlite_store.py check FOLDER`` what SQLite
finds wrong with the file. While a service writes, all others only read (see `mailmill.store.sqlite_database`).
"""

from __future__ import annotations

import asyncio
import os
import pickle
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from chaos import evidence
from chaos.history import Store
from harness.small_disk import SmallDisk


async def count_results(disk: SmallDisk) -> None:
    await _inside(disk, "count")


async def read_store(disk: SmallDisk) -> Store:
    found: Store = pickle.loads(await _inside(disk, "read"))
    return found


async def damage(disk: SmallDisk) -> str:
    """What SQLite says of the file's integrity where that is not ``ok``."""
    said = (await _inside(disk, "check")).decode()
    return "" if said == "ok" else said


async def _inside(disk: SmallDisk, what: str) -> bytes:
    process = await asyncio.create_subprocess_exec(
        *(*disk.inside, sys.executable, __file__, what, str(disk.folder)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])},
    )
    async with asyncio.timeout(60):
        said, error = await process.communicate()
    assert process.returncode == 0, f"{what} of {disk.folder}: {error.decode(errors='replace')[-1500:]}"
    return said


# -- inside -----------------------------------------------------------------------------------------------------------


def main() -> None:
    what, folder = sys.argv[1], Path(sys.argv[2])
    match what:
        case "count":
            with closing(sqlite3.connect(folder / "mailmill.db")) as connection:
                for statement in evidence.COUNT_RESULTS_ON_SQLITE:
                    connection.execute(statement)
        case "read":
            sys.stdout.buffer.write(pickle.dumps(asyncio.run(_read(folder))))
        case "check":
            with _reading(folder) as connection:
                said = [row[0] for row in connection.execute("PRAGMA integrity_check")]
            sys.stdout.write("; ".join(said))


@contextmanager
def _reading(folder: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(f"file:{folder / 'mailmill.db'}?mode=ro", uri=True, isolation_level=None)) as found:
        found.row_factory = sqlite3.Row
        # PostgreSQL has it, and the statements are the same for both.
        found.create_function("encode", 2, lambda value, _form: value.hex())
        found.execute("BEGIN")
        yield found


async def _read(folder: Path) -> Store:
    with _reading(folder) as connection:

        async def fetch(statement: str) -> Sequence[Any]:
            return connection.execute(statement).fetchall()

        return await evidence.store(fetch, folder / "blobs", position="id")


if __name__ == "__main__":
    main()
