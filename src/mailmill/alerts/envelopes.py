"""Rendered events, kept for a moment: several destinations want the same one at the same time."""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import structlog

from mailmill.alerts.rendering import bare_envelope, event_key, render
from mailmill.errors import MailmillError
from mailmill.store import event_log

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mailmill.store.blobs import BlobStore
    from mailmill.store.database import Database
    from mailmill.store.event_log import EventRow

KEPT_BYTES: Final = 8 << 20

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Envelope:
    """``body`` is the envelope as JSON; ``created_at`` when the event happened (epoch seconds)."""

    key: str
    body: bytes = field(repr=False)
    created_at: float


class Envelopes:
    """Event ids → envelopes; the newest ``KEPT_BYTES`` of them are kept."""

    def __init__(self, database: Database, blobs: BlobStore) -> None:
        self._database = database
        self._blobs = blobs
        self._kept: OrderedDict[int, Envelope] = OrderedDict()
        self._kept_bytes = 0
        # One renders at a time, so that the second destination finds what the first one asked for. What is waited for
        # here is our own disk and CPU, never a destination.
        self._turn = asyncio.Lock()

    async def get(self, event_ids: Sequence[int]) -> dict[int, Envelope]:
        """The envelopes of these events; one that is no longer in the log is left out. Raises StoreError."""
        async with self._turn:
            found = {event_id: self._kept[event_id] for event_id in event_ids if event_id in self._kept}
            missing = [event_id for event_id in event_ids if event_id not in found]
            if missing:
                async with self._database.read() as connection:
                    rows = list((await event_log.get(connection, missing)).values())
                rendered = await self._render(rows)
                for row, body in zip(rows, rendered, strict=True):
                    found[row.id] = Envelope(event_key(row.id), body, row.created_at)
                    self._keep(row.id, found[row.id])
        return found

    async def _render(self, rows: Sequence[EventRow]) -> list[bytes]:
        """The bodies of ``rows``. One that cannot be rendered, for a reason nobody foresaw, goes out bare."""
        try:
            return [_as_json(envelope) for envelope in await render(self._database, self._blobs, rows)]
        except MailmillError:
            raise
        except Exception:  # noqa: BLE001 - one event must not stop its destinations, whatever is wrong with it
            _log.exception("events cannot be rendered", event_ids=[row.id for row in rows])
            if len(rows) == 1:
                return [_as_json(bare_envelope(rows[0], None))]
            return [body for row in rows for body in await self._render([row])]

    def _keep(self, event_id: int, envelope: Envelope) -> None:
        self._kept[event_id] = envelope
        self._kept_bytes += len(envelope.body)
        while self._kept_bytes > KEPT_BYTES:
            _, dropped = self._kept.popitem(last=False)
            self._kept_bytes -= len(dropped.body)


def _as_json(envelope: dict[str, Any]) -> bytes:
    try:
        return json.dumps(envelope, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:  # a lone surrogate in what a user's processor returned: as an escape it is valid JSON
        return json.dumps(envelope, separators=(",", ":")).encode()
