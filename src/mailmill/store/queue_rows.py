"""The values that the queue takes and gives, and the fence: shared by the modules that change rows of ``work``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Float, and_, bindparam, literal, select, tuple_

from mailmill.store import dialect
from mailmill.store.given_rows import GivenRows
from mailmill.store.tables import work
from mailmill.store.work_state import PROCESSING_BY_KEY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

NEW_MAIL: Final = 0
BACKLOG: Final = 10
"""Priorities; a lower one is claimed first."""

MAX_CRASHES: Final = 3
"""A row whose workers died more often than this is failed."""

MAX_ERROR_CHARACTERS: Final = 2000

Moment = ColumnElement[float] | float
"""A time to compare with: what nodes compare goes by ``dialect.now``, so that nobody's wall clock matters."""


@dataclass(frozen=True, slots=True)
class NewWork:
    """One processor to run over one message."""

    message_id: int
    account_id: int
    shard: int
    processor: str
    version: int
    priority: int


@dataclass(frozen=True, slots=True)
class Claim:
    """A row that a worker holds. ``attempt`` counts the failures so far: 0 on the first run.

    ``errors`` is the list of them as the row holds it (:mod:`mailmill.store.work_errors`); nobody else adds to it
    while the claim stands.
    """

    message_id: int
    account_id: int
    processor: str
    version: int
    attempt: int
    crashes: int
    fence: int
    enqueued_at: float
    priority: int
    errors: str = "[]"


@dataclass(frozen=True, slots=True)
class Finished:
    """A processor ran. ``value`` is JSON text; ``announce`` names the events to raise besides (``threatFound``)."""

    claim: Claim
    value: str
    seconds: float
    announce: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """A processor did not succeed; it is tried again after so many seconds, or never where that is None."""

    claim: Claim
    error: str
    retry_after_seconds: float | None


@dataclass(frozen=True, slots=True)
class FinishReport:
    """``recorded`` outcomes were written, ``stale`` ones were not the worker's any more; all processors are done
    with the messages ``processed_ids``."""

    recorded: int
    stale: int
    processed_ids: tuple[int, ...]


class Key(NamedTuple):
    """What names a claim of a row. One batch may hold outcomes of several claims of a row, all stale but one."""

    message_id: int
    processor: str
    fence: int


def key(of: Claim) -> Key:
    return Key(of.message_id, of.processor, of.fence)


_CLAIMS: Final = GivenRows("claims", work.c.message_id, work.c.processor, work.c.fence)


def held(connection: AsyncConnection) -> ColumnElement[bool]:
    """The fence: true of the rows that are as their claims left them. Its parameters are those of :func:`holding`."""
    claimed = _CLAIMS.table(connection)
    fenced = tuple_(work.c.message_id, work.c.processor, work.c.fence)
    fence = and_(
        fenced.in_(select(claimed.c.message_id, claimed.c.processor, claimed.c.fence)),
        PROCESSING_BY_KEY,
        work.c.worker_id == bindparam("holder"),
    )
    if dialect.is_postgresql(connection):
        return fence
    # Says no more, but SQLite finds no index for a row value that the key does not cover.
    return and_(work.c.message_id.in_(select(claimed.c.message_id)), fence)


def holding(connection: AsyncConnection, worker_id: str, claims: Sequence[Claim]) -> Mapping[str, Any]:
    """What a statement with :func:`held` in it is executed with. There must be a claim."""
    keys = [(claim.message_id, claim.processor, claim.fence) for claim in claims]
    return {**_CLAIMS.parameters(connection, keys), "holder": worker_id}


def moment(now: Moment) -> ColumnElement[float]:
    return literal(now, Float) if isinstance(now, int | float) else now
