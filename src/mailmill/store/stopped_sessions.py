"""Ends sessions whose process was stopped between two messages of one statement.

The driver has a statement prepared before it runs it (Parse, Flush; later Bind, Execute, Sync). In between the server
waits for its client and counts the session as active: neither `idle_in_transaction_session_timeout` nor
`statement_timeout` ends it, and a process that is stopped there would hold its locks for as long as it is. So all
processes look for such sessions of each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import text

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

STOPPED_SECONDS: Final = 10.0
LOOK_SECONDS: Final = 5.0

_END: Final = text(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND usename = current_user AND application_name = 'mailmill'"
    " AND state = 'active' AND wait_event = 'ClientRead' AND xact_start IS NOT NULL"
    " AND state_change < clock_timestamp() - make_interval(secs => :seconds)"
)


async def end_stopped(connection: AsyncConnection) -> int:
    """End those that have waited for so long; returns how many there were."""
    return len((await connection.execute(_END, {"seconds": STOPPED_SECONDS})).all())
