"""Puts the API together."""

from __future__ import annotations

import asyncio

from fastapi import FastAPI

from mailmill.api import (
    errors,
    routes_accounts,
    routes_events,
    routes_maintenance,
    routes_messages,
    routes_pages,
    routes_queue,
    routes_reprocess,
    routes_requests,
    routes_service,
    routes_verify,
)
from mailmill.api.access import Access
from mailmill.api.assets import Assets
from mailmill.api.contract import UseCases
from mailmill.api.gate import Gate, SecurityHeaders

_DESCRIPTION = """\
Mailboxes in sync, every message stored, processed and told about.

Send the token as `Authorization: Bearer <token>`. Times are ISO 8601 in UTC, sizes are bytes. Every error is
`{"error": {"code", "message", "hint"}}`: `code` is for programs, `hint` says what to do.
"""

_TAGS = [
    {"name": "service", "description": "Is it alive, is it ready, how is it doing."},
    {"name": "accounts", "description": "Accounts, their mailboxes, and syncing them."},
    {"name": "messages", "description": "Messages with their verdicts and results."},
    {"name": "changes", "description": "What is to be changed on the mail server, and what became of it."},
    {"name": "events", "description": "What happened, in order, to be followed with a cursor."},
    {"name": "queue", "description": "Work that waits, runs or has failed."},
]


def create_app(use_cases: UseCases, access: Access, *, version: str = "0") -> FastAPI:
    """The whole HTTP application. Keeps no state of its own besides ``access``; does no I/O here.

    ``app.state.stopping`` is an event that ends waiting requests at once; ``server`` sets it before it stops.
    """
    app = FastAPI(
        title="mailmill",
        version=version,
        description=_DESCRIPTION,
        openapi_tags=_TAGS,
        docs_url=None,  # the stock pages load scripts from a CDN
        redoc_url=None,
    )
    app.state.use_cases = use_cases
    app.state.access = access
    app.state.assets = Assets()
    app.state.stopping = asyncio.Event()
    errors.install(app)
    for routes in (
        routes_service,
        routes_accounts,
        routes_messages,
        routes_requests,
        routes_events,
        routes_queue,
        routes_reprocess,
        routes_pages,
        routes_verify,
        routes_maintenance,
    ):
        app.include_router(routes.router)
    # The one added last is the outermost.
    app.add_middleware(Gate, access=access)
    app.add_middleware(errors.UnexpectedErrors)
    app.add_middleware(SecurityHeaders)
    return app
