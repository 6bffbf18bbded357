"""What a kind of destination has to offer. One so far: ``webhook``."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from mailmill.alerts.webhook import WebhookSender
from mailmill.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from mailmill.alerts.rules import Destination


@dataclass(frozen=True, slots=True)
class Outgoing:
    """An event on its way out. ``id`` is the same at every try; ``body`` is its envelope as JSON, UTF-8."""

    id: str
    body: bytes


class Sender(Protocol):
    """Takes events to one destination. Several calls may run at once."""

    async def send(self, outgoing: Outgoing) -> int | None:
        """Deliver; the answer is the destination's status, if it has one. Raises DeliveryError. Can be cancelled."""

    async def close(self) -> None: ...


def make_sender(destination: Destination, clock: Callable[[], float] = time.time) -> Sender:
    """``clock`` tells seconds since the epoch. Raises ConfigurationError for a kind that does not exist, or a secret
    that is none.
    """
    if destination.kind == "webhook":
        return WebhookSender(destination, clock)
    raise ConfigurationError(
        f"destination {destination.name!r} is of kind {destination.kind!r}, which does not exist",
        hint='use kind = "webhook"',
        key=f"destinations.{destination.name}.kind",
    )
