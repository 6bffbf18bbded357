"""Pools of connections to PostgreSQL, as the doors and the migrations use them."""

from __future__ import annotations

import socket
from typing import Any, Final

import asyncpg
from sqlalchemy import event, text
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from mailmill.store.postgres_link import Link

SET_LOCAL: Final = text("SELECT set_config(:name, :value, true)")
"""A setting, until the transaction ends."""

_POOL_WAIT_SECONDS = 30.0
_KEEPALIVE_SECONDS = 30


def make_engine(link: Link, size: int, *, reading: bool = False) -> AsyncEngine:
    """Up to ``size`` connections. READ COMMITTED, or for ``reading`` one REPEATABLE READ snapshot for each use."""
    engine = create_async_engine(
        "postgresql+asyncpg://",
        pool_size=size,
        max_overflow=0,
        pool_timeout=_POOL_WAIT_SECONDS,
        pool_use_lifo=True,  # what a burst needed can be closed by the server afterwards
        hide_parameters=True,  # an error's text would hold mail
        isolation_level="REPEATABLE READ" if reading else "READ COMMITTED",
        connect_args={"async_creator_fn": link.connect, **link.statements},
    )

    @event.listens_for(engine.sync_engine, "connect")
    def connect(connection: Any, _record: object) -> None:
        connection.readonly = reading
        _keep_alive(connection.driver_connection)

    @event.listens_for(engine.sync_engine, "checkout")
    def checkout(connection: Any, _record: object, _proxy: object) -> None:
        # The driver sees the end of a connection as it happens, so this costs no round trip.
        if connection.driver_connection.is_closed():
            raise DisconnectionError("the server has closed this connection")

    return engine


def _keep_alive(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Have the system find out about a peer that is gone without a word."""
    link = connection._transport.get_extra_info("socket")
    if link is not None and link.family in (socket.AF_INET, socket.AF_INET6):
        link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_KEEPIDLE"):
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_SECONDS)
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE_SECONDS // 3)
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
