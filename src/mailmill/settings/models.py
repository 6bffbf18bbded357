"""Every key of the configuration, as frozen pydantic models. The reference for people is ``docs/configuration.md``.

A validator here raises ``ValueError`` with words that complete "'the.key' …" and never repeats a secret.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from mailmill.model import Address, Backlog, Endpoint, EventName, Tls
from mailmill.settings.authserv_ids import check_authserv_id
from mailmill.settings.blob_urls import BlobUrl, parse_blob_url

NAME_PATTERN = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
# A name, then addresses in angle brackets or none. No two repeats can match the same text.
PERSON_PATTERN = re.compile(
    r"[^<>@,;]{2,100}(?:<[^<>@,\s]{1,64}@[^<>@,\s]{1,255}(?:,\s?[^<>@,\s]{1,64}@[^<>@,\s]{1,255}){0,9}>)?"
)
NAME_RULE = "1 to 64 characters of a-z, 0-9, '.', '_' and '-', the first a letter or digit"
COMING_DESTINATIONS = ("slack", "smtp", "apprise")
COMING_EVENTS = frozenset({"messageSent", "messageDeliveryError", "messageBounce"})
# The lease, the others' next look (27 % of it) and four seconds for the accounts to begin: less than 45 s together.
MAX_LEASE_SECONDS = 32
MIN_WEBHOOK_SECRET_BYTES = 24  # Standard Webhooks, "Signature scheme": between 24 and 64 bytes

KEY_PROBLEM = "mailmill_key"


def key_problem(key: str, text: str) -> PydanticCustomError:
    """A problem of the key ``key`` below the model that raises it, in words that complete "'the.key' …"."""
    return PydanticCustomError(KEY_PROBLEM, "{text}", {"key": key, "text": text})


class Role(StrEnum):
    """What a process does; one process does all by default."""

    SYNC = "sync"
    PROCESS = "process"
    ALERT = "alert"
    API = "api"


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, validate_default=False)


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _empty_is_none(value: object) -> object:
    return None if value == "" else value


def _not_bool(value: object) -> object:
    """TOML's ``true`` is no number, though Python's is."""
    if isinstance(value, bool):
        raise PydanticCustomError("int_type", "wants a number")
    return value


def _nonempty(value: tuple[Any, ...]) -> tuple[Any, ...]:
    if not value:
        raise ValueError("wants at least one entry, found an empty list")
    return value


def _distinct(value: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(value))


Text = Annotated[str, Field(min_length=1)]
Secret = Annotated[SecretStr, Field(min_length=1)]
Seconds = Annotated[float, BeforeValidator(_not_bool), Field(gt=0, le=86_400, allow_inf_nan=False)]
Count = Annotated[int, BeforeValidator(_not_bool), Field(ge=1)]
Days = Literal["forever"] | Annotated[float, BeforeValidator(_not_bool), Field(gt=0, le=36_500, allow_inf_nan=False)]


def split_listen(listen: str) -> tuple[str, int]:
    """``host:port`` → (host, port); IPv6 stands in brackets. Raises ValueError."""
    host, colon, port = listen.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"wants HOST:PORT such as 127.0.0.1:8025, found {listen!r}")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"wants an IPv6 address in brackets such as [::1]:8025, found {listen!r}")
    if not host:
        raise ValueError(f"wants a host before the port, such as 127.0.0.1:8025, found {listen!r}")
    return host, int(port)


def is_loopback(host: str) -> bool:
    """True for ``localhost``, names below it and loopback addresses. Nothing is looked up."""
    if host.lower() == "localhost" or host.lower().endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


WILDCARD_HOSTS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # compared, not bound to
DATABASE_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "sqlite+aiosqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "postgresql+asyncpg": "postgresql+asyncpg",
}


def _database_url(value: SecretStr) -> SecretStr:
    scheme, separator, rest = value.get_secret_value().partition("://")
    if not separator or scheme not in DATABASE_DRIVERS:
        raise ValueError("wants sqlite+aiosqlite:///path/to/file.db or postgresql://user:password@host/database")
    if scheme.startswith("sqlite") and (not rest.strip("/") or ":memory:" in rest):
        raise ValueError("wants a file: a database in memory would lose the mail")
    return SecretStr(f"{DATABASE_DRIVERS[scheme]}://{rest}")


def _blob_url(value: str) -> str:
    if value:
        parse_blob_url(value)
    return value


def _blob_endpoint(value: str) -> str:
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.path in ("", "/")
        plain = not (parts.query or parts.fragment or "@" in parts.netloc) and parts.port != 0
    except ValueError:
        usable = plain = False
    if not usable or not plain:
        raise ValueError("wants https://HOST or https://HOST:PORT, and nothing else")
    return value.rstrip("/")


def _lease(value: float) -> float:
    if value > MAX_LEASE_SECONDS:
        raise ValueError(
            f"wants at most {MAX_LEASE_SECONDS}, found {value:g}: with a longer one a takeover after a crash takes more"
            " than 45 s"
        )
    return value


class RetentionSettings(Section):
    """``[service.retention]`` and ``[accounts.NAME.retention]``: how many days things are kept. None in an account:
    as the service says; there: for good.
    """

    raw_days: Annotated[Days | None, BeforeValidator(_lower)] = None
    results_days: Annotated[Days | None, BeforeValidator(_lower)] = None
    deleted_days: Annotated[Days | None, BeforeValidator(_lower)] = None


def _listen_url(value: SecretStr) -> SecretStr:
    scheme, separator, rest = value.get_secret_value().partition("://")
    if not separator or not DATABASE_DRIVERS.get(scheme, "").startswith("postgresql"):
        raise ValueError("wants postgresql://user:password@host/database, the server itself and no pooler")
    return SecretStr(f"postgresql+asyncpg://{rest}")


class ServiceSettings(Section):
    """``[service]``: the process itself. Paths are absolute once loaded."""

    data_dir: Path = Path("~/.local/share/mailmill")
    database_url: Annotated[Secret, AfterValidator(_database_url)] = SecretStr("")
    database_connections: Count = 8
    listen_url: Annotated[Secret, AfterValidator(_listen_url)] | None = None
    listen: str = "127.0.0.1:8025"
    roles: Annotated[tuple[Role, ...], AfterValidator(_distinct), AfterValidator(_nonempty)] = tuple(Role)
    log_file: Annotated[Path | None, BeforeValidator(_empty_is_none)] = None
    log_format: Annotated[Literal["console", "json"], BeforeValidator(_lower)] = "console"
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)] = "info"
    key_file: Path | None = None
    blob_url: Annotated[str, AfterValidator(_blob_url)] = ""
    blob_endpoint: Annotated[str, AfterValidator(_blob_endpoint)] | None = None
    blob_region: Text | None = None
    blob_access_key_id: Text | None = None
    blob_secret_access_key: Secret | None = None
    blob_allow_insecure: bool = False
    poll_interval_seconds: Seconds = 300
    sweep_interval_seconds: Seconds = 60
    verify_interval_seconds: Annotated[
        float, BeforeValidator(_not_bool), Field(ge=0, le=604_800, allow_inf_nan=False)
    ] = 86_400
    sync_concurrency: Count = 16
    lease_seconds: Annotated[
        float, BeforeValidator(_not_bool), Field(ge=1, allow_inf_nan=False), AfterValidator(_lease)
    ] = 30
    host_logins_per_second: Annotated[float, BeforeValidator(_not_bool), Field(gt=0, allow_inf_nan=False)] | None = None
    host_login_burst: Count | None = None
    host_connections: Count | None = None
    max_message_bytes: Count = 100 * 1024 * 1024
    retention: RetentionSettings = RetentionSettings()
    keep_events_days: Annotated[Days, BeforeValidator(_lower)] = 90
    allowed_hosts: tuple[Text, ...] = ()

    @field_validator("listen")
    @classmethod
    def _check_listen(cls, value: str) -> str:
        split_listen(value)
        return value

    @model_validator(mode="after")
    def _check_blobs(self) -> Self:
        own = ("blob_endpoint", "blob_region", "blob_access_key_id", "blob_secret_access_key")
        given = [name for name in own if getattr(self, name) is not None]
        if given and (self.blob_place is None or self.blob_place.scheme != "s3"):
            raise key_problem(given[0], "goes with a service.blob_url of s3:// only")
        if (self.blob_access_key_id is None) != (self.blob_secret_access_key is None):
            missing = "blob_secret_access_key" if self.blob_secret_access_key is None else "blob_access_key_id"
            raise key_problem(missing, "is missing: the two halves of a key are given together, or none")
        endpoint = urlsplit(self.blob_endpoint or "")
        if endpoint.scheme == "http" and not self.blob_allow_insecure and not is_loopback(endpoint.hostname or ""):
            raise key_problem(
                "blob_endpoint",
                f"would send the mail to {endpoint.hostname} in the clear; use https (only loopback hosts, or"
                " blob_allow_insecure = true, go without)",
            )
        return self

    @property
    def blob_place(self) -> BlobUrl | None:
        """``blob_url`` taken apart; None where none is given, and raw messages lie in ``data_dir``."""
        return parse_blob_url(self.blob_url) if self.blob_url else None

    @property
    def listen_host(self) -> str:
        return split_listen(self.listen)[0]

    @property
    def listen_port(self) -> int:
        return split_listen(self.listen)[1]

    def page_url(self, port: int | None = None) -> str:
        """Where a browser on this machine finds the page. ``port`` is the real one, where ``listen`` says any (0)."""
        host = WILDCARD_HOSTS.get(self.listen_host, self.listen_host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.listen_port if port is None else port}"

    @property
    def socket_path(self) -> Path:
        """The unix socket on which a running service answers the command line."""
        return self.data_dir / "mailmill.sock"


def _not_empty(value: object) -> object:
    if value == "":
        raise ValueError("wants a path, not nothing")
    return value


Paths = Annotated[tuple[Annotated[Path, BeforeValidator(_not_empty)], ...], AfterValidator(_distinct)]


def _person(entry: str) -> str:
    if not PERSON_PATTERN.fullmatch(entry):
        raise ValueError(
            f"wants a name, or a name and addresses as in 'Dana Harbour <dana@example.org>', found {entry!r}"
        )
    return entry


class OwnWordsSettings(Section):
    """``[accounts.NAME.threat]``: what the user says of own people and of other people's addresses, for one account.

    What an entry of ``allow`` and ``block`` may be is checked where the engine is built, with that of the files.
    """

    allow: Annotated[tuple[Text, ...], AfterValidator(_distinct)] = ()
    allow_files: Paths = ()
    block: Annotated[tuple[Text, ...], AfterValidator(_distinct)] = ()
    block_files: Paths = ()
    people: Annotated[tuple[Annotated[Text, AfterValidator(_person)], ...], AfterValidator(_distinct)] = ()
    domains: Annotated[tuple[Text, ...], AfterValidator(_distinct)] = ()

    @property
    def persons(self) -> tuple[Address, ...]:
        """``people``, one entry for each address; "" where none was given."""
        found = []
        for entry in self.people:
            name, _, addresses = entry.removesuffix(">").partition("<")
            found += [Address(name.strip(), address.strip().lower()) for address in addresses.split(",")]
        return tuple(found)


class ThreatSettings(OwnWordsSettings):
    """``[threat]``: the threat engine, for all accounts."""

    scoring_file: Path | None = None
    yara_rules: Paths = ()
    inspect_files: bool = True
    verify_dkim: bool = False


class PoolSettings(Section):
    """``[accounts.NAME.pool]``: connections to this account's server."""

    size: Annotated[int, BeforeValidator(_not_bool), Field(ge=1, le=100)] = 3
    max_idle_seconds: Seconds = 300
    acquire_timeout_seconds: Seconds = 30


class ImapSettings(Section):
    """``[accounts.NAME.imap]``: where the mail is."""

    host: Text
    port: Annotated[int, BeforeValidator(_not_bool), Field(ge=1, le=65535)] | None = None
    tls: Annotated[Tls, BeforeValidator(_lower)] = Tls.IMPLICIT
    allow_insecure: bool = False
    ca_file: Path | None = None

    @field_validator("host")
    @classmethod
    def _check_host(cls, value: str) -> str:
        host = value.strip().removeprefix("[").removesuffix("]")
        if "://" in host or "/" in host or any(character.isspace() for character in host):
            raise ValueError(f"wants a host name alone, such as imap.example.org, found {value!r}")
        if host.count(":") == 1:
            raise ValueError(f"wants a host name without a port (that is 'port'), found {value!r}")
        return host

    @model_validator(mode="after")
    def _check_protection(self) -> Self:
        if self.tls is Tls.NONE and not self.allow_insecure and not is_loopback(self.host):
            raise key_problem(
                "tls",
                f"is 'none', which would send the password to {self.host} in the clear; "
                "use 'implicit' or 'starttls' (only loopback hosts, or allow_insecure = true, go without)",
            )
        return self

    @property
    def effective_tls(self) -> Tls:
        """``tls`` as given; without one, port 143 means STARTTLS (required, never opportunistic)."""
        return Tls.STARTTLS if self.port == 143 and "tls" not in self.model_fields_set else self.tls

    @property
    def effective_port(self) -> int:
        return self.port if self.port is not None else (993 if self.tls is Tls.IMPLICIT else 143)

    @property
    def endpoint(self) -> Endpoint:
        """The value that ``mailmill.imap`` speaks in."""
        ca_file = str(self.ca_file) if self.ca_file else None
        return Endpoint(self.host, self.effective_port, self.effective_tls, self.allow_insecure, ca_file)


SECRET_SOURCES = ("secret", "secret_env")
PASSWORD_SOURCES = ("password", "password_env", "password_command")


class AccountSettings(Section):
    """``[accounts.NAME]``: one mailbox owner on one server."""

    email: str = ""
    mailboxes: Annotated[tuple[Text, ...], AfterValidator(_distinct), AfterValidator(_nonempty)] = ("*",)
    backlog: Annotated[Backlog, BeforeValidator(_lower)] = Backlog.PROCESS
    authserv_id: Annotated[str, AfterValidator(check_authserv_id)] | None = None
    pool: PoolSettings = PoolSettings()
    retention: RetentionSettings = RetentionSettings()
    threat: OwnWordsSettings = OwnWordsSettings()
    imap: ImapSettings
    username: Text
    password: Secret | None = None
    password_env: Text | None = None
    password_command: Text | None = Field(default=None, repr=False)

    @model_validator(mode="before")
    @classmethod
    def _refuse_oauth2(cls, value: Any) -> Any:
        if isinstance(value, dict) and "oauth2" in value:
            raise key_problem(
                "oauth2", "is not supported yet; use an app password with password, password_env or password_command"
            )
        return value

    @model_validator(mode="after")
    def _check_password(self) -> Self:
        given = [name for name in PASSWORD_SOURCES if getattr(self, name) is not None]
        if not given:
            raise key_problem("password", "is missing: give one of password, password_env or password_command")
        if len(given) > 1:
            raise key_problem(given[0], f"and {' and '.join(given[1:])} are given: keep one of them")
        return self

    @property
    def address(self) -> str:
        """The account's own address: ``email``, else the user name where that is an address, else empty."""
        return self.email or (self.username if "@" in self.username else "")


def _webhook_secret(value: SecretStr) -> SecretStr:
    check_webhook_secret(value.get_secret_value())
    return value


def check_webhook_secret(secret: str) -> int:
    """The size in bytes of a Standard Webhooks secret (``whsec_`` + base64). Raises ValueError without repeating it."""
    try:
        size_bytes = len(base64.b64decode(secret.removeprefix("whsec_"), validate=True))
    except (binascii.Error, ValueError):
        size_bytes = 0
    if not secret.startswith("whsec_") or not size_bytes:
        raise ValueError(
            "wants 'whsec_' followed by base64; make one with: echo \"whsec_$(openssl rand -base64 32)\"",
        )
    return size_bytes


def _events(value: object) -> object:
    """``"*"`` stands for all; a name that the contract promises for later is told apart from a typing mistake."""
    if not isinstance(value, (list, tuple)):
        return value
    if "*" in value:
        return tuple(EventName)
    coming = [entry for entry in value if isinstance(entry, str) and entry in COMING_EVENTS]
    if coming:
        raise ValueError(f"names {', '.join(map(repr, coming))}, which this version does not raise yet")
    return value


class DestinationSettings(Section):
    """``[destinations.NAME]``: where events are sent."""

    kind: Literal["webhook"]
    url: str = Field(repr=False)
    secret: Annotated[Secret, AfterValidator(_webhook_secret)] | None = None
    secret_env: Text | None = None
    events: Annotated[
        tuple[EventName, ...], BeforeValidator(_events), AfterValidator(_distinct), AfterValidator(_nonempty)
    ] = tuple(EventName)
    accounts: tuple[Text, ...] = ()
    timeout_seconds: Annotated[float, BeforeValidator(_not_bool), Field(gt=0, le=300, allow_inf_nan=False)] = 5
    concurrency: Annotated[int, BeforeValidator(_not_bool), Field(ge=1, le=1000)] = 4
    max_attempts: Annotated[int, BeforeValidator(_not_bool), Field(ge=1, le=100)] = 12
    allow_private: bool = False

    @field_validator("kind", mode="before")
    @classmethod
    def _check_kind(cls, value: object) -> object:
        if value in COMING_DESTINATIONS:
            raise ValueError(f"is {value!r}, which is coming and not supported yet; this version sends to 'webhook'")
        return value

    @field_validator("url")
    @classmethod
    def _check_url(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
            usable = (
                parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
            )
        except ValueError:
            usable = False
        if not usable or any(character.isspace() for character in value):
            raise ValueError("wants a full address such as https://example.org/hook")
        if parts.username or parts.password:
            raise ValueError("carries a user name or password; put the credential in the path or rely on the signature")
        return value

    @model_validator(mode="after")
    def _check_secret(self) -> Self:
        if self.secret is None and self.secret_env is None:
            raise key_problem("secret", "is missing: webhooks are signed; give secret or secret_env")
        if self.secret is not None and self.secret_env is not None:
            raise key_problem("secret", "and secret_env are given: keep one of them")
        return self

    @property
    def hostname(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def shown_url(self) -> str:
        """Scheme and host only: paths of webhooks often carry a token."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"


class ProcessorOverride(Section):
    """``[processors.PROCESSOR]``: overrides what the processor says of itself; None keeps its own word."""

    concurrency: Annotated[int, BeforeValidator(_not_bool), Field(ge=1, le=1000)] | None = None
    account_concurrency: Count | None = None
    rate_per_minute: (
        Annotated[float, BeforeValidator(_not_bool), Field(gt=0, le=1_000_000, allow_inf_nan=False)] | None
    ) = None
    timeout_seconds: Seconds | None = None
    max_attempts: Annotated[int, BeforeValidator(_not_bool), Field(ge=1, le=100)] | None = None
    memory_bytes: Annotated[int, BeforeValidator(_not_bool), Field(ge=16 * 1024 * 1024)] | None = None


class ProcessorsSettings(Section):
    """``[processors]``: what is done with each message. ``overrides`` are the tables below it, by processor name."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, ProcessorOverride] = Field(init=False)

    enabled: Annotated[tuple[Text, ...], AfterValidator(_distinct)] = ("threat", "summary", "category")
    import_: Annotated[tuple[Text, ...], AfterValidator(_distinct)] = Field(default=(), alias="import")

    @property
    def overrides(self) -> dict[str, ProcessorOverride]:
        return dict(self.__pydantic_extra__ or {})


class AiSettings(Section):
    """``[ai]``: accepted and kept for a later version; nothing reads it yet."""

    cerebras_api_key: Secret | None = None
    openai_api_key: Secret | None = None
    openai_base_url: Text | None = None


def _account_names(value: object) -> object:
    if isinstance(value, dict):
        for name in value:
            if not NAME_PATTERN.fullmatch(name):
                raise key_problem(name, f"is not a usable name: wants {NAME_RULE}")
    return value


class Sections(Section):
    """What may stand in the file."""

    service: ServiceSettings = ServiceSettings()
    accounts: Annotated[dict[str, AccountSettings], BeforeValidator(_account_names)] = {}
    destinations: Annotated[dict[str, DestinationSettings], BeforeValidator(_account_names)] = {}
    processors: ProcessorsSettings = ProcessorsSettings()
    threat: ThreatSettings = ThreatSettings()
    ai: AiSettings = AiSettings()


class Settings(Sections):
    """All that was configured. ``master_key`` is ``$MAILMILL_KEY``; ``config_file`` is None when there was none.

    ``warnings`` are lines for the log: nothing is wrong enough to stop, yet the user should know.
    """

    master_key: SecretStr | None = None
    config_file: Path | None = None
    warnings: tuple[str, ...] = ()
