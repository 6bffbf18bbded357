"""The PostgreSQL server that is configured: reached, of a version we know, its schema not ahead of ours."""

from __future__ import annotations

from mailmill.cli.diagnosis.findings import Check, fail, from_error, ok, warn
from mailmill.errors import MailmillError
from mailmill.settings import Settings

OLDEST_VERSION = 14


async def look(settings: Settings) -> list[Check]:
    """Nothing on SQLite. Connects, and changes nothing."""
    from mailmill.store.migrate import HEAD
    from mailmill.store.postgres_schema import inspect

    url = settings.service.database_url.get_secret_value()
    if not url.startswith("postgresql"):
        return []
    try:
        found = await inspect(url)
    except MailmillError as error:
        return [from_error("Database", error)]
    shown = f"PostgreSQL {found.server_version}"
    major = found.server_version.partition(".")[0]
    if major.isdigit() and int(major) < OLDEST_VERSION:
        return [fail("Database", shown, f"upgrade the server to PostgreSQL {OLDEST_VERSION} or newer", "store")]
    if found.revision is None:
        checks = [ok("Database", f"{shown}, empty so far")]
    elif found.revision > HEAD:
        checks = [
            fail(
                "Database", f"{shown} has schema {found.revision}, newer than {HEAD}", "use the newer mailmill", "store"
            )
        ]
    elif found.revision < HEAD:
        checks = [ok("Database", f"{shown}, schema {found.revision}; the next start brings it to {HEAD}")]
    else:
        checks = [ok("Database", f"{shown}, schema {found.revision}")]
    return checks + await _hints(settings, pooled=found.pooled)


async def _hints(settings: Settings, *, pooled: bool) -> list[Check]:
    from mailmill.store.postgres_schema import inspect

    if settings.service.listen_url is not None:
        try:
            found = await inspect(settings.service.listen_url.get_secret_value(), "service.listen_url")
        except MailmillError as error:
            return [from_error("Wake-ups", error)]
        pooled = found.pooled
    if pooled:
        return [
            warn(
                "Wake-ups",
                "a pooler stands before PostgreSQL, so work of other nodes is found by polling",
                "set service.listen_url to the server itself",
            )
        ]
    return []
