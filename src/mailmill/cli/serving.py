"""The layer above the application while the service runs: its API, its socket, and the link to its page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version

from mailmill.api.access import Access
from mailmill.api.application import create_app
from mailmill.api.server import ListenSettings, listening
from mailmill.app.application import Application
from mailmill.app.use_cases import UseCases
from mailmill.settings import Role


@asynccontextmanager
async def serve(application: Application, *, announce: Callable[[str], None]) -> AsyncIterator[None]:
    """The API listening for the length of the block.

    The unix socket is always there, so that the command line finds the service; TCP only in the role ``api``.
    ``announce`` gets the one-time link to the page, once it can be opened. Raises AddressInUseError where the address
    is taken, ConfigurationError where it cannot be had at all.
    """
    service = application.settings.service
    access = Access(application.token, frozenset({service.listen_host, *service.allowed_hosts}))
    app = create_app(UseCases(application), access, version=version("mailmill"))
    public = application.has(Role.API)
    where = ListenSettings(
        host=service.listen_host if public else None,
        port=service.listen_port if public else None,
        socket_path=service.socket_path,
    )
    async with listening(app, where) as server:
        if server.port is not None:
            announce(f"{service.page_url(server.port)}/login?code={access.new_link_code()}")
        yield
