"""The values that the queue takes and gives, and the fence: shared by the modules that change rows of ``work``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Float, and_, bindparam, literal

from mailmill.store.tables import work
from mailmill.store.work_state import PROCESSING_BY_KEY

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


class Claim(NamedTuple):
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


KEY: Final = {"message_id": work.c.message_id, "processor": work.c.processor, "fence": work.c.fence}
"""The values of a :class:`Key`, as :class:`mailmill.store.row_changes.RowChanges` is told of them."""


def held(given: Any) -> ColumnElement[bool]:
    """The fence: true of the row of a given :class:`Key` where it is as its claim left it.

    Its worker's name is the parameter ``holder``.
    """
    return and_(
        work.c.message_id == given.message_id,
        work.c.processor == given.processor,
        work.c.fence == given.fence,
        PROCESSING_BY_KEY,
        work.c.worker_id == bindparam("holder", type_=work.c.worker_id.type),
    )


def moment(now: Moment) -> ColumnElement[float]:
    return literal(now, Float) if isinstance(now, int | float) else now
