"""Which destinations want an event, and when a delivery is tried again. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

from mailmill.store.event_log import DEFAULT_TENANT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mailmill.errors import DeliveryError
    from mailmill.store.event_log import EventRow

FIRST_WAIT_SECONDS: Final = 5.0
LONGEST_WAIT_SECONDS: Final = 6 * 3600.0
WAIT_FACTOR: Final = 4.0

TEMPORARY_STATUSES: Final = frozenset({408, 425, 429})


@dataclass(frozen=True, slots=True)
class Destination:
    """Where events are sent. ``accounts`` are globs over account names, empty for all; ``events`` may hold ``*``.

    ``timeout_seconds`` bounds one whole exchange, ``concurrency`` the exchanges at a time, ``max_attempts`` the tries
    of one delivery. ``allow_private`` lets it be an address inside our own network. Neither the secret nor the URL
    (whose path is often one) shows in a repr.
    """

    name: str
    kind: str = "webhook"
    url: str = field(default="", repr=False)
    secret: str = field(default="", repr=False)
    events: frozenset[str] = frozenset({"*"})
    accounts: tuple[str, ...] = ()
    timeout_seconds: float = 5.0
    concurrency: int = 8
    max_attempts: int = 12
    allow_private: bool = False
    tenant_id: str = DEFAULT_TENANT


def matching(event: EventRow, destinations: Iterable[Destination], account: str | None) -> list[str]:
    """The names of the destinations that want ``event``; ``account`` is the name of its account, where it has one.

    History (what was there before its account was added) is not delivered. An event of no account goes to those that
    want all accounts.
    """
    if event.historical:
        return []
    return [one.name for one in destinations if _wants(one, event, account)]


def _wants(destination: Destination, event: EventRow, account: str | None) -> bool:
    if event.tenant_id != destination.tenant_id:
        return False
    if event.event not in destination.events and "*" not in destination.events:
        return False
    if not destination.accounts:
        return True
    return account is not None and any(fnmatchcase(account, glob) for glob in destination.accounts)


def retry_after(destination: Destination, error: DeliveryError, attempts: int, chance: float) -> float | None:
    """In how many seconds a delivery that failed ``attempts`` times (this one included) is tried again; None to give it
    up.

    Given up: what is permanent (410, an address that may not be called), and anything after ``max_attempts``. A refusal
    is not: a receiver in the middle of a bad deployment answers 404 too. The wait is exponential with full jitter,
    ``chance`` being a random number in 0–1; the destination's Retry-After lengthens it, up to
    ``LONGEST_WAIT_SECONDS``. Twelve attempts stretch over 16 hours on average.
    """
    if error.permanent or attempts >= destination.max_attempts:
        return None
    longest = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * WAIT_FACTOR ** min(attempts - 1, 20))
    return min(LONGEST_WAIT_SECONDS, max(longest * chance, error.retry_after_seconds or 0.0))


def is_refusal(error: DeliveryError) -> bool:
    """The destination is there and does not want this one: nothing against its health."""
    status = error.status
    return error.permanent or (status is not None and 300 <= status < 500 and status not in TEMPORARY_STATUSES)
