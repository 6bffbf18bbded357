"""What a failure of PostgreSQL means for the person who meets it.

Laws: no value and no password in any error; PostgreSQL puts whole rows into DETAIL, and the driver puts the value that
it cannot encode into its message. Everything that is told here is a `StoreError`.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Awaitable
from typing import Final, TypeVar

import asyncpg
from sqlalchemy.exc import DBAPIError

from mailmill.errors import ConfigurationError, DatabaseUnavailableError, MailmillError, StorageFullError, StoreError

DRIVER_ERRORS: Final = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
"""All that the driver raises where the server, the network or it itself fails."""

_Result = TypeVar("_Result")

_KEY = "service.database_url"
_AGAIN = "a running service goes on by itself as soon as the database answers again"
_VALUE = re.compile(r"(invalid input (?:for query argument \$\d+|syntax for type [\w ]+)).*", re.DOTALL)
_QUOTED_LINE = re.compile(r"\s*\n.*", re.DOTALL)

# By SQLSTATE, the whole one or its class (PostgreSQL manual, appendix A): what happened, what to do.
_MEANINGS = {
    "08": ("the connection to the database was lost", _AGAIN),
    "57P": ("the database server is stopping, starting or has ended the connection", _AGAIN),
    "53300": ("the database server has no connection left", "raise its max_connections, or run fewer nodes"),
    "53": ("the database server lacks memory or another resource", "look into the log of PostgreSQL"),
    "57014": ("a statement took too long and was given up", "look for what holds the database up: pg_stat_activity"),
    "57": ("the database server refused to go on", "look into the log of PostgreSQL"),
    "25P03": ("a transaction was idle for too long and was ended", "the machine may be overloaded, or was suspended"),
    "25006": ("the database can only be read", f"{_KEY} must name the primary server, not a replica"),
    "40P01": ("two transactions waited for each other, and the database ended one", "it is tried again"),
    "40": ("the transaction met another one and was ended", "it is tried again"),
    "55P03": ("another program holds a lock for too long", "look for what holds it: pg_locks, pg_stat_activity"),
    "54": ("what was to be written is beyond the limits of the database", ""),
    "42P01": ("a table of this version is missing", "run: mailmill db upgrade"),
    "42703": ("a column of this version is missing", "run: mailmill db upgrade"),
    "42501": ("the database user lacks a right", f"the user in {_KEY} must own mailmill's tables"),
    "XX": ("the database reports that it is damaged", "stop the service and look into the log of PostgreSQL"),
}
_AWAY = frozenset({"08", "57P", "53300", "53"})
_FULL = frozenset({"53100", "58030"})


def store_error(error: BaseException) -> StoreError:
    """The StoreError that tells of ``error``, which SQLAlchemy or the driver raised. Takes the values out of it."""
    _take_out_values(error)
    cause = _driver_error(error)
    state = getattr(cause, "sqlstate", None) or ""
    text = _first_line(cause)
    if state in _FULL:
        return StorageFullError(
            f"the database cannot grow: {text}",
            hint="free space on the disk of the database server; nothing was lost",
        )
    if isinstance(cause, TimeoutError):
        return DatabaseUnavailableError("the database did not answer in time", hint=_AGAIN)
    if isinstance(cause, OSError):
        return DatabaseUnavailableError(
            f"the database server cannot be reached: {text}", hint=f"is PostgreSQL running? Check {_KEY}; {_AGAIN}"
        )
    # The driver's own errors carry no state: the connection ended under it.
    if not state and _is_cut(cause):
        state = "08006"
    for known in (state, state[:3], state[:2]):
        if meaning := _MEANINGS.get(known):
            kind = DatabaseUnavailableError if known in _AWAY else StoreError
            return kind(f"{meaning[0]}: {text}", hint=meaning[1])
    return StoreError(f"the database failed: {text}")


def opening_error(error: BaseException, key: str) -> StoreError | ConfigurationError:
    """The same for the first connection: what is refused then is the fault of the setting called ``key``."""
    cause = _driver_error(error)
    if isinstance(cause, (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError)):
        return ConfigurationError(
            f"the database refuses us: {_first_line(cause)}",
            key=key,
            hint=f"check user, password and database in {key}; the database must exist",
        )
    if isinstance(cause, ssl.SSLCertVerificationError):
        return ConfigurationError(
            f"the certificate of the database server is not trusted: {_first_line(cause)}",
            key=key,
            hint=f"name its authority in {key} (sslrootcert), or correct the host there",
        )
    if isinstance(cause, (asyncpg.ClientConfigurationError, ValueError, TypeError)):
        text = _first_line(cause)
        if not _SAID_OF_URLS.fullmatch(text):
            return ConfigurationError("the database URL cannot be used", key=key, hint=URL_HINT)
        hint = _ROOT_HINT.format(key=key) if text.startswith("root certificate") else URL_HINT
        return ConfigurationError(f"the database URL cannot be used: {text}", key=key, hint=hint)
    told = store_error(error)
    if isinstance(cause, FileNotFoundError):
        told.hint = f"{key} names a socket, or a file of certificates, that is not there"
    elif _AGAIN in told.hint:
        told.hint = f"is PostgreSQL running? Check {key}, and try again"
    return told


URL_HINT = "use postgresql://USER:PASSWORD@HOST:PORT/DATABASE, options as in a libpq connection URI"
_ROOT_HINT = (
    "put the certificate of the server's authority there, or name a file in {key}: sslrootcert=FILE"
    " (the system's own are mostly in /etc/ssl/certs/ca-certificates.crt)"
)
# What the driver says of a URL repeats pieces of it, and a password that is not percent-encoded may be in any of them.
# These hold none.
_SAID_OF_URLS = re.compile(
    r"root certificate file .*|`\w+` parameter must be one of: [\w, -]+|direct TLS requires .*"
    r"|could not determine (?:user|database) name to connect \w+|could not match \d+ port numbers to \d+ hosts"
)


def is_ending(error: DBAPIError) -> bool:
    """Whether the server has said its last word on this connection, or the driver takes it for ended."""
    cause = _driver_error(error)
    return (getattr(cause, "sqlstate", None) or "").startswith(("08", "57P")) or _is_cut(cause)


def _is_cut(error: BaseException) -> bool:
    # Between the server's last word and the end of the connection nothing can be asked: the driver calls that its own
    # error.
    ended = isinstance(error, asyncpg.InterfaceError) and "clos" in str(error)
    return ended or (isinstance(error, asyncpg.InternalClientError) and "cannot switch to state" in str(error))


def _driver_error(error: BaseException) -> BaseException:
    """The driver's own error within what SQLAlchemy made of it."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        error = error.orig
    return error.__cause__ or error if type(error).__module__.startswith("sqlalchemy") else error


def _first_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return _QUOTED_LINE.sub("", str(error)) or type(error).__name__


def _take_out_values(error: BaseException) -> None:
    seen: BaseException | None = error
    while seen is not None:
        for name in ("detail", "query", "context"):
            if getattr(seen, name, None) is not None and not isinstance(seen, DBAPIError):
                setattr(seen, name, None)
        seen.args = tuple(_VALUE.sub(r"\1", text) if isinstance(text, str) else text for text in seen.args)
        if isinstance(seen, DBAPIError) and seen.orig is not None and seen.__cause__ is not seen.orig:
            _take_out_values(seen.orig)
        seen = seen.__cause__


async def opened(work: Awaitable[_Result], key: str = _KEY) -> _Result:
    """``work``, which opens what is configured under ``key``: its errors say what to correct there."""
    try:
        return await work
    except MailmillError:
        raise
    except (*DRIVER_ERRORS, DBAPIError, ValueError, TypeError) as error:
        raise opening_error(error, key) from error
