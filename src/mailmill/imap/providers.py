"""What is known of providers beforehand: limits and quirks as data, and one lookup. Facts, not behaviour.

A provider is recognised by the end of the host name, else by what the server says of itself (greeting, ID).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Provider:
    """``max_connections``: how many at once one account may hold, as the provider documents it.

    ``idle_probe_seconds``: how long an idle connection may stay silent before it must be proven alive.
    ``pipelines_idle``: takes ``DONE``, a command and ``IDLE`` in one write.
    ``authserv_id``: whose Authentication-Results its mail carries; ``*.`` stands for every host of a domain,
    ``microsoft`` for a topmost field that names no host.
    ``logins_per_second`` and ``login_burst``: what all our accounts there together may ask for. No provider publishes
    a number, so these are careful guesses, and lower where floods are known to be answered with refusals.
    ``temporary_login_phrases``: lower-case words in a refused login that mean "not now" where no response code does.
    """

    name: str
    host_suffixes: tuple[str, ...] = ()
    said: tuple[str, ...] = ()
    max_connections: int = 10
    idle_probe_seconds: float = 540
    pipelines_idle: bool = True
    temporary_login_phrases: tuple[str, ...] = ()
    login_hint: str = ""
    authserv_id: str | None = None
    logins_per_second: float = 20
    login_burst: int = 40


GENERIC = Provider("generic")

PROVIDERS: tuple[Provider, ...] = (
    Provider(
        "gmail",
        host_suffixes=("gmail.com", "googlemail.com"),
        said=("gimap",),
        max_connections=15,
        idle_probe_seconds=270,
        temporary_login_phrases=("too many simultaneous connections",),
        login_hint="Gmail wants an app password: https://myaccount.google.com/apppasswords",
        authserv_id="mx.google.com",
        logins_per_second=10,
        login_burst=20,
    ),
    Provider(
        "microsoft365",
        host_suffixes=("office365.com", "outlook.com", "hotmail.com"),
        said=("microsoft.exchange", "microsoft exchange imap4"),
        max_connections=16,
        temporary_login_phrases=("server busy", "too many"),
        login_hint="Microsoft 365 takes no passwords any more, only OAuth2",
        authserv_id="microsoft",
        logins_per_second=10,
        login_burst=20,
    ),
    Provider(
        "yahoo",
        host_suffixes=("yahoo.com", "yahoodns.net", "aol.com"),
        max_connections=5,
        idle_probe_seconds=270,
        login_hint="Yahoo and AOL want an app password, made in the account's security settings",
        authserv_id="*.yahoo.com",
        logins_per_second=2,
        login_burst=10,
    ),
    Provider(
        "icloud",
        host_suffixes=("mail.me.com", "icloud.com"),
        max_connections=10,
        login_hint="iCloud wants an app-specific password: https://account.apple.com",
        authserv_id="*.icloud.com",
        logins_per_second=5,
        login_burst=10,
    ),
    Provider(
        "gmx",
        host_suffixes=("gmx.net", "gmx.com", "gmx.de", "web.de", "mail.com"),
        max_connections=10,
        login_hint="IMAP must be switched on in the web mail's settings first",
        logins_per_second=5,
        login_burst=10,
    ),
    Provider("pymap", said=("pymap",), max_connections=100),
)


def lookup(host: str, *, greeting: str = "", server_id: Mapping[str, str] | None = None) -> Provider:
    """The provider behind ``host``, or of a server that says ``greeting`` or ``server_id``; else `GENERIC`."""
    name = host.lower().rstrip(".")
    for provider in PROVIDERS:
        if any(name == suffix or name.endswith("." + suffix) for suffix in provider.host_suffixes):
            return provider
    said = " ".join([greeting, (server_id or {}).get("name", ""), (server_id or {}).get("vendor", "")]).lower()
    for provider in PROVIDERS:
        if any(word in said for word in provider.said):
            return provider
    return GENERIC
