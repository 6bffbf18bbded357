"""The steps of a worker's round with the queue, each by itself, as tests want them."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from mailmill.store.queue import Ask, Claim, Failed, Finished, FinishReport, Moment
from mailmill.store.queue_claims import claim_within
from mailmill.store.queue_front import Front
from mailmill.store.queue_outcomes import finish_within


async def claim(
    connection: AsyncConnection,
    *,
    processor: str,
    worker_id: str,
    limit: int,
    deadline_seconds: float,
    now: Moment,
    version: int | None = None,
    crashed: bool = False,
    front: Front | None = None,
) -> list[Claim]:
    ask = Ask(processor, limit, deadline_seconds, version, crashed, front)
    return await connection.run_sync(claim_within, worker_id, ask, now)


async def finish(
    connection: AsyncConnection, worker_id: str, finished: Sequence[Finished], failed: Sequence[Failed], now: float
) -> FinishReport:
    return await connection.run_sync(finish_within, worker_id, finished, failed, now)
