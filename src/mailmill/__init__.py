"""mailmill keeps a fleet of mailboxes in sync over IMAP, stores every message durably, processes each one and tells
people and programs about it.

The way a message goes::

    IMAP server ──▶ imap (protocol, pool, IDLE) ──▶ sync (plan, apply) ──▶ store, in ONE transaction:
                                                                 message + places + work + event + cursor
    store.work ──claim──▶ processing (threat, summary, category, yours) ──finish, fenced──▶ store: result + event
    store.event ──rules──▶ store.delivery (outbox) ──▶ alerts (webhook …)
    store.event ──▶ api: /v1/events, the dashboard

Mail flows one way. The database is the truth; every notification (IDLE, an asyncio event) is only a hint that there is
something to look at, and a poll stands behind each.

The layers, imports pointing to the left (a test reads them and fails on an upward or sideways edge)::

    model, errors, uid_set ◀─ message_parser, imap, store ◀─ sync, processing, alerts ◀─ app, settings ◀─ api ◀─ cli

``imap`` never sees the database, ``store`` never sees a socket; the engines ``sync``, ``processing`` and ``alerts``
never import each other: they meet in tables. Each package's docstring says what its room is for, its laws and its
files.

For writing processors::

    from mailmill import processor

    @processor("invoice", version=1, timeout_seconds=30)
    async def invoice(message, context): ...

A processor that hands mail to a model asks ``mailmill.speaks_to_assistant(message, context)`` first.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mailmill.processing.registry import Context, processor
    from mailmill.processing.threat.for_assistants import speaks_to_assistant

__all__ = ["Context", "processor", "speaks_to_assistant"]

_HOMES = {
    "Context": "mailmill.processing.registry",
    "processor": "mailmill.processing.registry",
    "speaks_to_assistant": "mailmill.processing.threat.for_assistants",
}


def __getattr__(name: str) -> Any:
    # Lazily, so that `import mailmill.imap` alone does not load the store.
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'mailmill' has no attribute {name!r}")
