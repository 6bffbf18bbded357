"""From an endpoint to a connection that is logged in, or is refused for the right reason."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable

import pytest

from harness.connections import ME, SETTINGS, connected, talking
from mailmill.errors import (
    ArgumentError,
    AuthenticationError,
    CertificateError,
    CommandError,
    ConnectError,
    ConnectionLostError,
    InsecureError,
)
from mailmill.imap.connection import ConnectionSettings, ImapConnection
from mailmill.model import Credentials, Endpoint, Tls
from servers.dovecot import Dovecot
from servers.ports import free_ports
from servers.scripted import ScriptedServer, Talk
from servers.tls import CertificateFiles, make_certificates


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> CertificateFiles:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


# -- Dovecot ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tls", [Tls.STARTTLS, Tls.IMPLICIT])
async def test_an_untrusted_certificate(dovecot: Dovecot, tls: Tls):
    with pytest.raises(CertificateError) as caught:
        await ImapConnection.open(dovecot.endpoint(tls, trusted=False), SETTINGS)
    assert str(dovecot.endpoint(tls)) in str(caught.value)
    assert caught.value.hint


async def test_a_wrong_password(dovecot: Dovecot, mail_user: str):
    connection = await ImapConnection.open(dovecot.endpoint(), SETTINGS)
    with pytest.raises(AuthenticationError) as caught:
        await connection.authenticate(Credentials(mail_user, "wr0ng-passw0rd"))
    assert caught.value.server_code == "AUTHENTICATIONFAILED"
    assert "wr0ng" not in str(caught.value)
    await connection.close()


async def test_passwords_of_any_kind(start_dovecot: Callable[..., Awaitable[Dovecot]]):
    server = await start_dovecot(password="é-☃", tier="plain")
    async with connected(server.endpoint(), server.credentials("anyone")) as connection:
        assert connection.capabilities
        assert "é" not in repr(connection)


# -- the scripted server ---------------------------------------------------------------------------------------------


async def test_plain_text_to_a_network_is_refused_before_a_byte():
    with pytest.raises(InsecureError):
        await ImapConnection.open(Endpoint("imap.example.org", 143, Tls.NONE), SETTINGS)


async def test_nobody_listens():
    [port] = free_ports(1)
    with pytest.raises(ConnectError, match=str(port)):
        await ImapConnection.open(Endpoint("127.0.0.1", port, Tls.NONE), SETTINGS)


async def test_a_server_that_never_greets():
    async def script(talk: Talk) -> None:
        await talk.silence()

    async with ScriptedServer(script) as server:
        with pytest.raises(ConnectError, match="did not answer"):
            await ImapConnection.open(server.endpoint(), ConnectionSettings(connect_timeout_seconds=0.05))


async def test_bye_for_a_greeting():
    async def script(talk: Talk) -> None:
        await talk.bye("too many connections")

    async with ScriptedServer(script) as server:
        with pytest.raises(ConnectionLostError, match="too many connections"):
            await ImapConnection.open(server.endpoint(), SETTINGS)


@pytest.mark.both_loops
@pytest.mark.parametrize("injected", [b"* CAPABILITY IMAP4rev1\r\n", b"half a li", b"A2 OK in\r\n"])
async def test_bytes_between_starttls_and_handshake(certificates: CertificateFiles, injected: bytes):
    async def script(talk: Talk) -> None:
        await talk.start_tls(after=injected)

    async with ScriptedServer(script, certificates=certificates) as server:
        with pytest.raises(InsecureError, match="STARTTLS"):
            await ImapConnection.open(server.endpoint(Tls.STARTTLS), SETTINGS)


async def test_capabilities_from_before_starttls_are_asked_for_again(certificates: CertificateFiles):
    async def script(talk: Talk) -> None:
        await talk.greet(b"* OK [CAPABILITY IMAP4rev1 X-LIE] hi\r\n")
        await talk.start_tls(before=b"* CAPABILITY IMAP4rev1 X-LIE\r\n")
        await talk.expect(rb"LOGOUT")

    async with ScriptedServer(script, certificates=certificates) as server:
        connection = await ImapConnection.open(server.endpoint(Tls.STARTTLS), SETTINGS)
        assert "X-LIE" not in connection.capabilities
        assert "AUTH=PLAIN" in connection.capabilities
        await connection.close()


async def test_no_starttls_means_no_connection(certificates: CertificateFiles):
    async def script(talk: Talk) -> None:
        await talk.bad(await talk.expect(rb"STARTTLS"))
        await talk.silence()

    async with ScriptedServer(script, certificates=certificates) as server:
        with pytest.raises(InsecureError, match="no STARTTLS"):
            await ImapConnection.open(server.endpoint(Tls.STARTTLS), SETTINGS)


async def test_preauth_before_starttls(certificates: CertificateFiles):
    async def script(talk: Talk) -> None:
        await talk.greet(b"* PREAUTH welcome\r\n")
        assert await talk.silence() == b""

    async with ScriptedServer(script, certificates=certificates) as server:
        with pytest.raises(InsecureError, match="PREAUTH"):
            await ImapConnection.open(server.endpoint(Tls.STARTTLS), SETTINGS)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[AUTHENTICATIONFAILED] wrong", AuthenticationError),
        ("just no", AuthenticationError),
        ("[UNAVAILABLE] backend down", CommandError),
        ("[LIMIT] too many", CommandError),
    ],
)
async def test_refused_logins(text: str, error: type[Exception]):
    async def script(talk: Talk) -> None:
        await talk.refuse_login(text)

    async with ScriptedServer(script) as server:
        connection = await ImapConnection.open(server.endpoint(), SETTINGS)
        with pytest.raises(error):
            await connection.authenticate(ME)
        await connection.close()


async def test_a_connect_that_is_refused_leaves_nothing_open():
    hung_up = asyncio.Event()

    async def script(talk: Talk) -> None:
        await talk.refuse_login()
        await talk.silence()
        hung_up.set()

    async with ScriptedServer(script) as server:
        with pytest.raises(AuthenticationError):
            await ImapConnection.connect(server.endpoint(), ME, SETTINGS)
        async with asyncio.timeout(30):
            await hung_up.wait()


async def test_bye_at_login_is_not_about_the_credentials():
    async def script(talk: Talk) -> None:
        await talk.expect(rb"AUTHENTICATE")
        await talk.bye("overloaded")

    async with ScriptedServer(script) as server:
        connection = await ImapConnection.open(server.endpoint(), SETTINGS)
        with pytest.raises(ConnectionLostError, match="overloaded"):
            await connection.authenticate(ME)
        assert connection.closed


async def test_a_password_as_a_literal_waits_for_the_server():
    seen: list[bytes] = []

    async def script(talk: Talk) -> None:
        talk.capabilities = "IMAP4rev1"
        command = await talk.expect(rb"LOGIN")
        seen.append(command.line)
        await talk.ok(command)
        await talk.expect(rb"NOTHING MORE")

    async with ScriptedServer(script) as server, connected(server.endpoint(), Credentials("me", 'gehé"im')):
        pass
    assert seen == ['LOGIN "me" {8}\r\ngehé"im'.encode()]


async def test_sasl_without_an_initial_response():
    async def script(talk: Talk) -> None:
        talk.capabilities = "IMAP4rev1 AUTH=PLAIN"
        command = await talk.expect(rb"AUTHENTICATE PLAIN$")
        await talk.send(b"+ \r\n")
        assert base64.b64decode(await talk.read_line()) == b"\0me\0secret"
        await talk.ok(command)
        await talk.expect(rb"NOTHING MORE")

    async with talking(script) as connection:
        assert connection.capabilities == {"IMAP4REV1", "AUTH=PLAIN"}


async def test_arguments_that_no_command_can_carry():
    async def script(talk: Talk) -> None:
        talk.capabilities = "IMAP4rev1"
        await talk.expect(rb"NOTHING MORE")

    async with ScriptedServer(script) as server:
        connection = await ImapConnection.open(server.endpoint(), SETTINGS)
        with pytest.raises(ArgumentError):
            await connection.authenticate(Credentials("me", "a\r\nA9 LOGOUT"))
        assert not connection.closed
        await connection.close()
