"""Settings turned into the values the engines take. The one place that knows both sides."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from mailmill.alerts.rules import Destination
from mailmill.app.believed_server import believed_server
from mailmill.app.threat_options import threat_options
from mailmill.errors import MailmillError
from mailmill.imap import providers
from mailmill.imap.connection import ConnectionSettings, ImapConnection
from mailmill.imap.host_budget import HostBudgets, HostLimits
from mailmill.imap.pool import PoolSettings
from mailmill.imap.providers import Provider
from mailmill.imap.tls import is_loopback
from mailmill.model import Credentials, Endpoint
from mailmill.processing import registry
from mailmill.processing.builtin import builtin_processors
from mailmill.processing.registry import Processor
from mailmill.settings import AccountSettings, Settings, check_processor_names, password_of, secret_of
from mailmill.store.blob_marker import prove_place
from mailmill.store.blobs import BlobStore
from mailmill.store.database import Database
from mailmill.store.local_segments import LocalSegments
from mailmill.store.object_location import ObjectKind, ObjectLocation
from mailmill.store.object_segments import ObjectSegments
from mailmill.store.retention import Retention
from mailmill.store.segments import Segments
from mailmill.sync.account_sync import AccountSettings as SyncAccountSettings

_DAY_SECONDS = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class ConfiguredAccount:
    """An account as configured, its password resolved (or the error that kept it from being so)."""

    name: str
    email: str
    endpoint: Endpoint
    credentials: Credentials
    settings: AccountSettings
    sync: SyncAccountSettings
    provider: Provider
    problem: MailmillError | None = None

    @property
    def authserv_id(self) -> str | None:
        """Whose Authentication-Results are believed."""
        return believed_server(self.settings)

    def mark_text(self) -> str:
        """What changes when the way in changes: the text whose keyed hash tells old credentials from new."""
        return "\0".join((str(self.endpoint), self.endpoint.tls, self.credentials.username, self.credentials.password))


async def configured_accounts(settings: Settings, environ: Mapping[str, str] = os.environ) -> list[ConfiguredAccount]:
    """All accounts; password commands run side by side. One whose password cannot be had carries its ``problem``."""

    async def one(name: str, account: AccountSettings) -> ConfiguredAccount:
        problem: MailmillError | None = None
        password = ""
        try:
            password = await password_of(name, account, environ)
        except MailmillError as error:
            problem = error
            problem.account = name
        endpoint = account.imap.endpoint
        provider = providers.lookup(endpoint.host)
        return ConfiguredAccount(
            name=name,
            email=account.address,
            endpoint=endpoint,
            credentials=Credentials(account.username, password),
            settings=account,
            sync=SyncAccountSettings(
                mailboxes=account.mailboxes,
                pool=PoolSettings(
                    size=min(account.pool.size, provider.max_connections),
                    max_idle_seconds=account.pool.max_idle_seconds,
                    acquire_timeout_seconds=account.pool.acquire_timeout_seconds,
                ),
                poll_interval_seconds=settings.service.poll_interval_seconds,
                sweep_interval_seconds=settings.service.sweep_interval_seconds,
            ),
            provider=provider,
            problem=problem,
        )

    return list(await asyncio.gather(*(one(name, account) for name, account in settings.accounts.items())))


def kept(settings: Settings, account: AccountSettings) -> Retention:
    """What the account's own words say, else the service's, in seconds; None for good."""

    def seconds(own: float | str | None, common: float | str | None) -> float | None:
        days = common if own is None else own
        return days * _DAY_SECONDS if isinstance(days, int | float) else None

    own, common = account.retention, settings.service.retention
    return Retention(
        raw_seconds=seconds(own.raw_days, common.raw_days),
        results_seconds=seconds(own.results_days, common.results_days),
        deleted_seconds=seconds(own.deleted_days, common.deleted_days),
    )


def host_budgets(settings: Settings) -> HostBudgets:
    """What all accounts of the application share at each host: as configured, else as known of the provider."""
    service = settings.service

    def limits_of(host: str) -> HostLimits:
        provider = providers.lookup(host)
        near = is_loopback(host)
        return HostLimits(
            logins_per_second=service.host_logins_per_second or (500.0 if near else provider.logins_per_second),
            login_burst=service.host_login_burst or (1000 if near else provider.login_burst),
            opening=100 if near else 20,
            connections=service.host_connections,
        )

    return HostBudgets(limits_of)


def blob_store(
    settings: Settings, database: Database, *, observe: Callable[[str, float], None] | None = None
) -> BlobStore:
    """Where raw messages lie, as configured. Nothing is asked of it yet; `BlobStore.prove` does."""
    return BlobStore(segments_of(settings), proof=partial(prove_place, database), observe=observe or _unobserved)


def _unobserved(_stage: str, _seconds: float) -> None:
    return


def segments_of(settings: Settings) -> Segments:
    """Where raw messages lie, as configured. Nothing is asked of it yet."""
    service = settings.service
    place = service.blob_place
    if place is None:
        return LocalSegments(service.data_dir / "blobs")
    if place.folder is not None:
        return LocalSegments(place.folder)
    secret = service.blob_secret_access_key
    return ObjectSegments(
        ObjectLocation(
            kind=ObjectKind(place.scheme),
            bucket=place.bucket,
            prefix=place.prefix,
            endpoint=service.blob_endpoint or "",
            region=service.blob_region or "",
            access_key_id=service.blob_access_key_id or "",
            secret_access_key=secret.get_secret_value() if secret else "",
        )
    )


def connector(
    account: ConfiguredAccount, spool_dir: Path, hosts: HostBudgets, environ: Mapping[str, str] = os.environ
) -> Callable[[], Awaitable[ImapConnection]]:
    """Opens and authenticates a connection of ``account`` when its host's budget allows; its errors name the account.

    A password that could not be had before is asked for again at each call: the password store may be open by now.
    """
    connection_settings = ConnectionSettings(spool_dir=spool_dir)
    host = hosts.of(account.endpoint.host)

    async def connect() -> ImapConnection:
        try:
            credentials = account.credentials
            if account.problem is not None:
                password = await password_of(account.name, account.settings, environ)
                credentials = replace(credentials, password=password)
            return await host.open(account.name, partial(_open, account.endpoint, connection_settings, credentials))
        except MailmillError as error:
            error.account = account.name
            raise

    return connect


async def _open(endpoint: Endpoint, settings: ConnectionSettings, credentials: Credentials) -> ImapConnection:
    connection = await ImapConnection.open(endpoint, settings)
    try:
        await connection.authenticate(credentials)
    except BaseException:
        connection.abort()
        raise
    return connection


def processors(settings: Settings) -> list[Processor]:
    """The processors to run: the built-in ones that are enabled, and the user's own."""
    own = registry.load(settings.processors.import_)
    # Also where `threat` is not enabled: what is wrong with the configuration is told at the start.
    builtin = builtin_processors(threat_options(settings))
    available = {processor.name: processor for processor in (*builtin, *own)}
    check_processor_names(settings, set(available))
    enabled = {*settings.processors.enabled, *(processor.name for processor in own)}
    overrides = settings.processors.overrides
    chosen = []
    for name, processor in available.items():
        if name not in enabled:
            continue
        override = overrides.get(name)
        if override is not None:
            # The configured variant of the same processor.
            given = {key: value for key, value in override if value is not None}
            processor = replace(processor, **given)
            registry.check(processor)
        chosen.append(processor)
    return chosen


def destinations(settings: Settings, environ: Mapping[str, str] = os.environ) -> list[Destination]:
    """Where events go, secrets resolved. Raises ConfigurationError where a named variable is not set."""
    return [
        Destination(
            name=name,
            kind=destination.kind,
            url=destination.url,
            secret=secret_of(name, destination, environ),
            events=frozenset(destination.events),
            accounts=destination.accounts,
            timeout_seconds=destination.timeout_seconds,
            concurrency=destination.concurrency,
            max_attempts=destination.max_attempts,
            allow_private=destination.allow_private,
        )
        for name, destination in settings.destinations.items()
    ]
