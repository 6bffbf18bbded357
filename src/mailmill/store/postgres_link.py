"""How a connection to PostgreSQL is made: where to, within what time, with which limits.

A pooler that lends a server's connection for one transaction (pgbouncer's transaction mode) forgets all that belongs to
a session: settings, prepared statements, LISTEN. It is recognised by its backend's process id, which is not the one it
told at the start; then settings travel with each transaction and no statement is kept prepared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import asyncpg

CONNECT_SECONDS: Final = 10.0
STATEMENT_SECONDS: Final = 60.0
"""A statement that takes longer is ended by the server, waiting for locks included."""
ANSWER_SECONDS: Final = STATEMENT_SECONDS + 15
"""After that without an answer the connection is given up: the server can no longer be reached."""

SESSION: Final[Mapping[str, str]] = {
    "statement_timeout": f"{STATEMENT_SECONDS:.0f}s",
    # A process that was stopped within a transaction must not hold locks, nor keep old rows from being removed: who
    # waits for its turn or its shard waits so long. No transaction of ours waits for anything but the database.
    "idle_in_transaction_session_timeout": "10s",
    # Compiling costs more than any statement of ours takes.
    "jit": "off",
}
"""Settings of each session."""

_STATEMENTS: Final = 500


@dataclass(frozen=True, slots=True)
class Link:
    """Where a PostgreSQL server is, as a libpq connection URI. ``pooled``: a pooler stands before it. An answer is
    waited for ``answer_seconds``; None: for as long as the connection stands.
    """

    uri: str = field(repr=False)  # holds the password
    pooled: bool = False
    answer_seconds: float | None = ANSWER_SECONDS

    @classmethod
    def of_url(cls, url: str, *, pooled: bool = False) -> Link:
        """Of SQLAlchemy's form of the URI (``postgresql+asyncpg://``), or of libpq's own."""
        _scheme, _, rest = url.partition("://")
        return cls(f"postgresql://{rest}", pooled)

    async def connect(self, **_sqlalchemy: Any) -> asyncpg.Connection[asyncpg.Record]:
        """One connection. Raises what the driver raises (``postgres_errors``)."""
        settings = {"application_name": "mailmill"}
        return await asyncpg.connect(
            self.uri,
            timeout=CONNECT_SECONDS,
            command_timeout=self.answer_seconds,
            statement_cache_size=0 if self.pooled else _STATEMENTS,
            # A pooler refuses the start of a session whose settings it does not know.
            server_settings=settings if self.pooled else {**settings, **SESSION},
        )

    @property
    def unhurried(self) -> Link:
        """The same, for statements that take any time. That the server is gone is the system's to find out."""
        return replace(self, answer_seconds=None)

    @property
    def statements(self) -> dict[str, Any]:
        """How SQLAlchemy is to prepare statements: kept by name, or unnamed and parsed again each time."""
        if self.pooled:
            return {"prepared_statement_cache_size": 0, "prepared_statement_name_func": str}
        return {"prepared_statement_cache_size": _STATEMENTS}


async def find(url: str) -> Link:
    """Connect once, to see that it works and whether a pooler answers."""
    # As to a pooler: both take that.
    link = Link.of_url(url, pooled=True)
    connection = await link.connect()
    try:
        pooled = await connection.fetchval("SELECT pg_backend_pid()") != connection.get_server_pid()
    finally:
        await connection.close(timeout=CONNECT_SECONDS)
    return Link(link.uri, pooled)
