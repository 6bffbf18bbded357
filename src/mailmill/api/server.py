"""Listens: uvicorn's protocol inside our own loop, on TCP and on the service's unix socket.

Laws: signals belong to the supervisor, so no handler is installed here. The unix socket's file is 0600 before anybody
can connect to it, and what comes over it needs no token. Stopping is bounded: waiting requests end at once, others get
``grace_seconds``, then they are cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog
import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from mailmill.api.gate import LOCAL_PEER
from mailmill.errors import AddressInUseError, ConfigurationError

_log = structlog.get_logger(__name__)

_BACKLOG = 512
_KEEP_ALIVE_SECONDS = 75
_CANCEL_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class ListenSettings:
    """Where to listen.

    ``host`` or ``port`` None: no TCP; ``port`` 0: any free one; ``socket_path`` None: no unix socket.
    """

    host: str | None = "127.0.0.1"
    port: int | None = 8025
    socket_path: Path | None = None
    grace_seconds: float = 2.0


class _LocalPeer:
    """Marks requests that came over the service's own socket. A client cannot set a scope key."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[LOCAL_PEER] = True
        await self._app(scope, receive, send)


class _Uvicorn(uvicorn.Server):
    """One server with two doors, and without its signal handlers and its ten wake-ups a second."""

    def __init__(
        self, app: FastAPI, tcp: list[socket.socket], unix: socket.socket | None, grace_seconds: float
    ) -> None:
        super().__init__(_config(app, grace_seconds))
        self._local_config = _config(_LocalPeer(app), grace_seconds)
        self._tcp = tcp
        self._unix = unix
        self.stopping = asyncio.Event()
        self.listening = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        loop = asyncio.get_running_loop()
        self.servers = [
            await loop.create_server(lambda: self._protocol(self.config), sock=listener, backlog=_BACKLOG)
            for listener in self._tcp
        ]
        if self._unix is not None:
            self._local_config.load()
            self.servers.append(
                await loop.create_unix_server(
                    lambda: self._protocol(self._local_config), sock=self._unix, backlog=_BACKLOG
                )
            )
        self.started = True
        self.listening.set()

    def _protocol(self, config: uvicorn.Config) -> asyncio.Protocol:
        make = config.http_protocol_class
        return make(config=config, server_state=self.server_state, app_state={})  # type: ignore[call-arg]  # uvicorn's own call

    async def main_loop(self) -> None:
        while not self.stopping.is_set():
            await self.on_tick(0)  # renews the Date header, which counts in seconds
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await self.stopping.wait()


def _config(app: ASGIApp, grace_seconds: float) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,  # paths may hold a login code, queries a cursor; errors are logged by the app
        proxy_headers=False,  # or a header would pass for a loopback peer
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=grace_seconds,  # type: ignore[arg-type]  # goes to wait_for, which takes a float
    )


class HttpServer:
    """The API while it listens. ``port`` is the real one, also where any free one was asked for; None without TCP."""

    def __init__(self, server: _Uvicorn, port: int | None) -> None:
        self._server = server
        self.port = port

    async def stopped(self) -> None:
        """Returns when it is being stopped. May be cancelled."""
        await self._server.stopping.wait()


@contextlib.asynccontextmanager
async def listening(app: FastAPI, settings: ListenSettings) -> AsyncIterator[HttpServer]:
    """Listens inside the block, stops at its end (also when cancelled), within ``grace_seconds`` and about two more.

    ``app`` is ``create_app``'s. Raises ``ConfigurationError`` where an address cannot be had, before anything listens
    (``AddressInUseError`` where another program has it).
    """
    tcp, unix = await asyncio.to_thread(_bind, settings)
    server = _Uvicorn(app, tcp, unix, settings.grace_seconds)
    serving = asyncio.create_task(server.serve(), name="http server")
    try:
        listens = asyncio.create_task(server.listening.wait())
        await asyncio.wait([serving, listens], return_when=asyncio.FIRST_COMPLETED)
        listens.cancel()
        if serving.done():
            await serving
        port = tcp[0].getsockname()[1] if tcp else None
        _log.info("http listening", host=settings.host, port=port, socket=str(settings.socket_path or ""))
        yield HttpServer(server, port)
    finally:
        app.state.stopping.set()
        server.stopping.set()
        await asyncio.shield(_finish(serving, settings))
        for listener in (*tcp, *((unix,) if unix else ())):
            listener.close()  # where starting failed half-way; closed already otherwise


async def _finish(serving: asyncio.Task[None], settings: ListenSettings) -> None:
    done, _ = await asyncio.wait([serving], timeout=settings.grace_seconds + _CANCEL_SECONDS)
    if not done:
        serving.cancel()
        await asyncio.wait([serving], timeout=_CANCEL_SECONDS)
    if settings.socket_path is not None:
        await asyncio.to_thread(settings.socket_path.unlink, missing_ok=True)


# -- addresses --------------------------------------------------------------------------------------------------------


def _bind(settings: ListenSettings) -> tuple[list[socket.socket], socket.socket | None]:
    """All listeners or none."""
    with contextlib.ExitStack() as undo:
        tcp = []
        if settings.host is not None and settings.port is not None:
            tcp = _bind_tcp(settings.host, settings.port)
            for listener in tcp:
                undo.callback(listener.close)
        unix = None if settings.socket_path is None else _bind_unix(settings.socket_path)
        undo.pop_all()
        return tcp, unix


def _bind_tcp(host: str, port: int) -> list[socket.socket]:
    """One listener for each address that ``host`` stands for, all on one port."""
    shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on {shown}: the name has no address",
            hint="set service.listen to host:port",
            key="service.listen",
        ) from error
    listeners: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            try:
                listener = socket.socket(family, kind, protocol)
                listeners.append(listener)
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                listener.bind((address[0], port, *address[2:]))
                listener.setblocking(False)
                port = listener.getsockname()[1]
            except OSError as error:
                # `localhost` often names ::1 on a machine without IPv6: the other address is enough.
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT) or len(found) == 1:
                    raise
                if listeners and listeners[-1].family == family:
                    listeners.pop().close()
        if not listeners:
            raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    except OSError as error:
        for listener in listeners:
            listener.close()
        hints = {
            errno.EADDRINUSE: "another program listens there: stop it, or set service.listen to another port",
            errno.EACCES: "ports below 1024 need a privilege: set service.listen to a higher port",
            errno.EADDRNOTAVAIL: "this machine does not have that address: set service.listen to one it has",
        }
        wrong = AddressInUseError if error.errno == errno.EADDRINUSE else ConfigurationError
        raise wrong(
            f"cannot listen on {shown}: {error.strerror}",
            hint=hints.get(error.errno or 0, "set service.listen to another address"),
            key="service.listen",
        ) from error
    return listeners


def _bind_unix(path: Path) -> socket.socket:
    """The service's own socket, mode 0600.

    The data folder's lock says that no other service lives, so a socket that lies there is left over from a crash.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISSOCK(path.lstat().st_mode):
                path.unlink()
        listener.bind(str(path))
        path.chmod(0o600)  # nobody can connect before listen(), so there is no moment with another mode
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        too_long = "AF_UNIX" in str(error)
        raise ConfigurationError(
            f"cannot make the service socket {path}: {error.strerror or error}",
            hint="choose a data_dir with a shorter path" if too_long else "the data folder must be ours to write",
            key="service.data_dir",
        ) from error
    return listener
