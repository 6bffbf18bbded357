"""From an endpoint to a connection that is logged in: TCP, TLS or STARTTLS, greeting, login, ID, ENABLE."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from pathlib import Path

from mailmill.errors import ConnectError, ConnectionLostError, InsecureError
from mailmill.imap import auth, commands, providers
from mailmill.imap.collectors import Collector
from mailmill.imap.commands import Command, Literal
from mailmill.imap.dialogue import Dialogue
from mailmill.imap.limits import DEFAULT_LIMITS, Limits
from mailmill.imap.link import Link
from mailmill.imap.session import Session, State
from mailmill.imap.tls import client_context, connect_failure, is_loopback, refuse_plain_text
from mailmill.model import Credentials, Endpoint, Tls

# Seconds, but for the number of probes.
_KEEPALIVE_IDLE = 60
_KEEPALIVE_INTERVAL = 15
_KEEPALIVE_PROBES = 4


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """``connect_timeout_seconds`` covers name, TCP, TLS and greeting.

    ``command_timeout_seconds`` is silence: no byte at all while an exchange is under way. Literals above
    ``stream_literal_bytes`` go to files in ``spool_dir``, where there is one; else they stay in memory.
    """

    connect_timeout_seconds: float = 15
    command_timeout_seconds: float = 60
    limits: Limits = DEFAULT_LIMITS
    spool_dir: Path | None = None
    stream_literal_bytes: int = 1024 * 1024


async def connect(endpoint: Endpoint, settings: ConnectionSettings) -> Dialogue:
    """Up to the capabilities; see `ImapConnection.open` for the errors."""
    refuse_plain_text(endpoint)
    session = Session(must_start_tls=endpoint.tls is Tls.STARTTLS)
    link = Link(
        str(endpoint),
        session,
        settings.limits,
        silence_seconds=settings.command_timeout_seconds,
        spool_dir=settings.spool_dir,
        stream_above_bytes=settings.stream_literal_bytes,
    )
    dialogue = Dialogue(endpoint, session, link, providers.lookup(endpoint.host))
    try:
        async with asyncio.timeout(settings.connect_timeout_seconds):
            await _connect(dialogue)
    except TimeoutError as error:
        link.lose(ConnectionLostError(f"{endpoint}: not connected in time"))
        raise ConnectError(
            f"{endpoint} did not answer within {settings.connect_timeout_seconds:g} seconds",
            hint="check host, port, firewall, and that tls fits the port (993 implicit, 143 starttls)",
        ) from error
    except BaseException:
        link.lose(ConnectionLostError(f"{endpoint}: not connected"))
        raise
    return dialogue


async def _connect(dialogue: Dialogue) -> None:
    endpoint, session, link = dialogue.endpoint, dialogue.session, dialogue.link
    context = None if endpoint.tls is Tls.NONE else await client_context(endpoint.ca_file)
    implicit = endpoint.tls is Tls.IMPLICIT
    try:
        await asyncio.get_running_loop().create_connection(
            lambda: link,
            endpoint.host,
            endpoint.port,
            ssl=context if implicit else None,
            server_hostname=endpoint.host if implicit else None,
        )
    except UnicodeError as error:
        raise ConnectError(f"{endpoint}: not a host name", hint="check the host") from error
    except OSError as error:
        raise connect_failure(endpoint, error) from error
    _keep_alive(link.transport)
    if endpoint.tls is Tls.NONE and not endpoint.allow_insecure:
        _check_loopback_peer(endpoint, link.transport)
    await link.wait(lambda: session.state is not State.GREETING)
    dialogue.check_bye()
    dialogue.proven()
    if endpoint.tls is Tls.STARTTLS:
        assert context is not None
        [starttls] = await dialogue.send([(commands.simple("STARTTLS"), Collector())])
        link.expect_handshake(starttls)
        await dialogue.finish()
        if starttls.tagged is None or starttls.tagged.status != "OK":
            raise InsecureError(f"{endpoint}: the server offers no STARTTLS", hint="try tls = 'implicit' on port 993")
        try:
            await link.start_tls(context, endpoint.host)
        except OSError as error:
            raise connect_failure(endpoint, error) from error
        session.started_tls()
    dialogue.provider = providers.lookup(endpoint.host, greeting=session.greeting)
    if not session.capabilities_known:
        await dialogue.run(commands.simple("CAPABILITY"))


async def authenticate(dialogue: Dialogue, credentials: Credentials) -> None:
    """Log in; see `ImapConnection.authenticate`."""
    session = dialogue.session
    if session.state is State.NOT_AUTHENTICATED:
        await _login(dialogue, credentials)
    if not session.capabilities_known:
        await dialogue.run(commands.simple("CAPABILITY"))
    extras: list[tuple[Command, Collector]] = []
    if session.features.id:
        extras.append((commands.identify([("name", "mailmill")]), Collector()))
    if session.features.enable and session.features.condstore:
        extension = "QRESYNC" if "QRESYNC" in session.capabilities else "CONDSTORE"
        extras.append((commands.enable(extension), Collector()))
    if extras:
        # Both are offers: a server that refuses one has only one feature less.
        await dialogue.burst(extras)
    dialogue.provider = providers.lookup(dialogue.endpoint.host, greeting=session.greeting, server_id=session.server_id)


async def _login(dialogue: Dialogue, credentials: Credentials) -> None:
    session, link = dialogue.session, dialogue.link
    encrypted = dialogue.endpoint.tls is not Tls.NONE
    login = auth.choose(credentials, session.capabilities, encrypted=encrypted)
    literals = sum(isinstance(part, Literal) for part in login.command.parts)
    is_sasl = login.command.verb == "AUTHENTICATE"
    [exchange] = await dialogue.send([(login.command, Collector())], continuations=1 if is_sasl else 0)
    if is_sasl:
        await link.wait(lambda: exchange.done or exchange.continued > literals or session.bye is not None)
        if not exchange.done and session.bye is None:
            # With an initial response there is nothing left to say: a "+" then is a challenge we cannot answer.
            link.write((login.answer if login.answer is not None else b"*") + b"\r\n")
            dialogue.round_trips += 1
    await dialogue.finish()
    tagged = exchange.tagged
    assert tagged is not None
    if tagged.status != "OK":
        raise auth.refusal(tagged, login.command.verb, credentials, dialogue.provider)


def _keep_alive(transport: asyncio.Transport) -> None:
    """The kernel finds a dead peer within two minutes, also while nothing is under way, and hides little of what is
    written: megabytes in its buffer would leave in a silence that looks like the server's.

    What is sent and never acknowledged would keep it trying for a quarter of an hour, and keepalive waits meanwhile:
    TCP_USER_TIMEOUT bounds that by the same time.
    """
    sock = transport.get_extra_info("socket")
    if sock is None:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    options = {
        "TCP_KEEPIDLE": _KEEPALIVE_IDLE,
        "TCP_KEEPINTVL": _KEEPALIVE_INTERVAL,
        "TCP_KEEPCNT": _KEEPALIVE_PROBES,
        "TCP_USER_TIMEOUT": 1000 * (_KEEPALIVE_IDLE + _KEEPALIVE_PROBES * _KEEPALIVE_INTERVAL),
        "TCP_NOTSENT_LOWAT": 256 * 1024,
    }
    for option, value in options.items():
        if hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def _check_loopback_peer(endpoint: Endpoint, transport: asyncio.Transport) -> None:
    peer = transport.get_extra_info("peername")
    if isinstance(peer, tuple) and not is_loopback(str(peer[0])):
        raise InsecureError(f"{endpoint}: the name leads to another machine, and the connection is unencrypted")
