"""Accounts and destinations, from the name lookup to the login. Everything on the outside has a timeout."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Mapping
from typing import Any

from mailmill.cli.diagnosis.findings import Check, fail, from_error, ok, warn
from mailmill.cli.errors import error_of
from mailmill.cli.safe_text import duration
from mailmill.cli.service_client import ServiceClient, route
from mailmill.errors import MailmillError
from mailmill.model import Credentials, Endpoint, Tls
from mailmill.settings import AccountSettings, DestinationSettings, Settings, password_of, secret_of
from mailmill.settings.models import is_loopback

STEP_SECONDS = 10.0
LOGIN_SECONDS = 45.0
CERTIFICATE_WARNING_DAYS = 14
ACCOUNTS_AT_ONCE = 16


async def look(settings: Settings, environ: Mapping[str, str], client: ServiceClient | None) -> list[Check]:
    """All accounts side by side, then the destinations. ``client``: the running service, which knows the passwords."""
    slots = asyncio.Semaphore(ACCOUNTS_AT_ONCE)

    async def one(name: str, account: AccountSettings) -> list[Check]:
        async with slots:
            return await account_checks(name, account, environ, client)

    groups = await asyncio.gather(*(one(name, account) for name, account in settings.accounts.items()))
    checks = [check for group in groups for check in group]
    if not settings.accounts:
        remedy = "set IMAP_SERVER, IMAP_USERNAME and IMAP_PASSWORD, or add [accounts.NAME] to the configuration"
        checks.append(warn("Accounts", "none is configured", remedy))
    return checks + [destination_check(name, each, environ) for name, each in settings.destinations.items()]


async def account_checks(
    name: str, account: AccountSettings, environ: Mapping[str, str], client: ServiceClient | None
) -> list[Check]:
    """Name, connection, certificate, login: up to the first that fails. A password that is missing is told even so."""
    subject = f"Account {name}"
    endpoint = account.imap.endpoint
    checks = [await _reach(subject, endpoint)]
    if checks[0].level != "fail" and endpoint.tls is Tls.IMPLICIT:
        checks.append(await _certificate(subject, endpoint))
    if checks[-1].level == "fail":
        return checks if client else checks + await _password(subject, name, account, environ)
    if endpoint.tls is Tls.NONE and not is_loopback(endpoint.host):
        remedy = "use tls = 'implicit' or 'starttls'"
        checks.append(warn(subject, "the password and all mail go in the clear", remedy))
    login = _login_through(subject, name, client) if client else _login(subject, name, account, environ)
    return [*checks, await login]


async def _reach(subject: str, endpoint: Endpoint) -> Check:
    started = time.monotonic()
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(STEP_SECONDS):
            await loop.getaddrinfo(endpoint.host, endpoint.port)
    except (OSError, TimeoutError):
        remedy = (
            "check accounts.*.imap.host or IMAP_SERVER, and that this machine can look up names: "
            f"getent hosts {endpoint.host}"
        )
        return fail(subject, f"the name {endpoint.host} is not found", remedy, "connect")
    try:
        async with asyncio.timeout(STEP_SECONDS):
            _, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
    except TimeoutError:
        remedy = "check the port; a firewall may drop it"
        return fail(subject, f"{endpoint} did not answer within {STEP_SECONDS:g} s", remedy, "connect")
    except OSError as error:
        return fail(subject, f"{endpoint}: {error.strerror or error}", "check host and port", "connect")
    writer.close()
    return ok(subject, f"{endpoint} answers in {duration(time.monotonic() - started)}")


async def _certificate(subject: str, endpoint: Endpoint) -> Check:
    try:
        context = await asyncio.to_thread(_tls_context, endpoint.ca_file)
        async with asyncio.timeout(STEP_SECONDS):
            _, writer = await asyncio.open_connection(
                endpoint.host, endpoint.port, ssl=context, server_hostname=endpoint.host
            )
    except ssl.SSLCertVerificationError as error:
        remedy = "if the server is yours, name its root in imap.ca_file; otherwise do not trust it"
        return fail(subject, f"certificate not trusted: {error.verify_message}", remedy, "certificate")
    except ssl.SSLError as error:
        remedy = "is the port for TLS? 993 is; 143 wants tls = 'starttls'"
        return fail(subject, f"TLS failed: {error.reason or error}", remedy, "connect")
    except (OSError, TimeoutError) as error:
        return fail(subject, f"TLS failed: {error or 'no answer'}", "check host and port", "connect")
    certificate: dict[str, Any] = writer.get_extra_info("peercert") or {}
    writer.close()
    return certificate_check(subject, certificate, time.time())


def certificate_check(subject: str, certificate: Mapping[str, Any], now: float) -> Check:
    """How long a trusted certificate still holds (``SSLSocket.getpeercert``)."""
    days = (ssl.cert_time_to_seconds(certificate["notAfter"]) - now) / 86_400 if certificate else 0.0
    if days < CERTIFICATE_WARNING_DAYS:
        return warn(subject, f"the certificate ends in {days:.0f} days", "whoever runs the server must renew it")
    return ok(subject, f"certificate trusted, {days:.0f} days left")


def _tls_context(ca_file: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca_file:
        context.load_verify_locations(ca_file)
    return context


async def _login_through(subject: str, name: str, client: ServiceClient) -> Check:
    try:
        answer = await client.post(route("account", name, "check"))
    except MailmillError as error:
        return from_error(subject, error)
    if answer.get("error"):
        code, message, hint = error_of(answer["error"])
        return fail(subject, message, hint, code)
    return ok(subject, f"login accepted, {answer.get('mailboxes')} mailboxes, {answer.get('tier')} sync")


async def _password(subject: str, name: str, account: AccountSettings, environ: Mapping[str, str]) -> list[Check]:
    try:
        await password_of(name, account, environ)
    except MailmillError as error:
        return [from_error(subject, error)]
    return []


async def _login(subject: str, name: str, account: AccountSettings, environ: Mapping[str, str]) -> Check:
    from mailmill.imap.connection import ConnectionSettings, ImapConnection

    try:
        password = await password_of(name, account, environ)
        async with asyncio.timeout(LOGIN_SECONDS):
            connection = await ImapConnection.open(account.imap.endpoint, ConnectionSettings())
            try:
                await connection.authenticate(Credentials(account.username, password))
                await connection.logout()
            finally:
                connection.abort()
    except TimeoutError:
        return fail(subject, f"no answer to the login within {LOGIN_SECONDS:g} s", "try again later", "connectionLost")
    except MailmillError as error:
        return from_error(subject, error)
    return ok(subject, f"login as {account.username} accepted")


def destination_check(name: str, destination: DestinationSettings, environ: Mapping[str, str]) -> Check:
    """The address and the secret. Nothing is sent: a test delivery would be an event that never happened."""
    subject = f"Destination {name}"
    try:
        secret_of(name, destination, environ)
    except MailmillError as error:
        return from_error(subject, error)
    host = destination.hostname
    if is_loopback(host) and not destination.allow_private:
        remedy = "set allow_private = true if that is meant"
        return fail(subject, f"{host} is this machine, which deliveries do not reach", remedy, "configuration")
    if destination.url.startswith("http://") and not is_loopback(host):
        return warn(subject, f"mail goes to {host} in the clear", "use https://")
    return ok(subject, f"{destination.kind} to {destination.shown_url}")
