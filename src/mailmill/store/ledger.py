"""The processing ledger of a message: what each processor returned, version by version, what it took, what went wrong
on the way, and what is still to be done.

Law: of each processor's results the one of the newest version is served (listings, verdicts, webhooks); those of older
versions stay beside it, as they were recorded.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from mailmill.store import work_errors
from mailmill.store.tables import result, work

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from mailmill.store.work_errors import WorkError


@dataclass(frozen=True, slots=True)
class RecordedResult:
    """One version's result. ``attempts`` counts its runs, the last of which took ``seconds`` and ended at
    ``finished_at`` (epoch seconds); ``errors`` are those of the runs before it. ``served``: it is the one shown."""

    processor: str
    version: int
    value: Any
    attempts: int
    seconds: float
    finished_at: float
    errors: tuple[WorkError, ...]
    served: bool


@dataclass(frozen=True, slots=True)
class OpenWork:
    """A processor that has yet to run (``state`` pending, waiting for ``run_at``, or processing), or has failed for
    good, with what went wrong so far. ``attempt`` counts runs that failed, ``crashes`` workers that died."""

    processor: str
    version: int
    state: str
    priority: int
    attempt: int
    crashes: int
    run_at: float
    enqueued_at: float
    errors: tuple[WorkError, ...]


@dataclass(frozen=True, slots=True)
class Ledger:
    """Results by processor, newest version first; work by processor."""

    results: tuple[RecordedResult, ...]
    work: tuple[OpenWork, ...]


async def of_message(connection: AsyncConnection, message_id: int) -> Ledger:
    """Everything recorded about the processing of a message; empty for one that is not there."""
    results = select(result).where(result.c.message_id == message_id)
    seen: set[str] = set()
    recorded = []
    for row in await connection.execute(results.order_by(result.c.processor, result.c.version.desc())):
        recorded.append(
            RecordedResult(
                processor=row.processor,
                version=row.version,
                value=json.loads(row.value),
                attempts=row.attempts,
                seconds=row.seconds,
                finished_at=row.finished_at,
                errors=work_errors.read(row.errors),
                served=row.processor not in seen,
            )
        )
        seen.add(row.processor)
    rows = await connection.execute(select(work).where(work.c.message_id == message_id).order_by(work.c.processor))
    return Ledger(
        tuple(recorded),
        tuple(
            OpenWork(
                processor=row.processor,
                version=row.version,
                state=row.state,
                priority=row.priority,
                attempt=row.attempt,
                crashes=row.crashes,
                run_at=row.run_at,
                enqueued_at=row.enqueued_at,
                errors=work_errors.read(row.errors),
            )
            for row in rows
        ),
    )
