"""How a login is made, and what a refusal means. Pure: it decides, the connection sends.

Passwords: SASL PLAIN (RFC 4616) where offered, which carries any bytes but NUL; else LOGIN, unless LOGINDISABLED.
XOAUTH2, OAUTHBEARER and SCRAM find their place in `choose`.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field

from mailmill.errors import ArgumentError, AuthenticationError, CommandError, ImapError, InsecureError
from mailmill.imap import commands
from mailmill.imap.providers import Provider
from mailmill.imap.responses import Tagged
from mailmill.model import Credentials

# Refusals that say nothing of the credentials (RFC 5530 §3; THROTTLED is Yahoo's and Gmail's): the same login may
# succeed in a while, so the account must not be stopped.
_TEMPORARY_CODES = frozenset({"UNAVAILABLE", "INUSE", "LIMIT", "SERVERBUG", "THROTTLED", "OVERQUOTA"})


@dataclass(frozen=True, slots=True)
class Login:
    """One login: the command, and what to answer to the server's ``+`` (None: nothing is left to say)."""

    command: commands.Command
    answer: bytes | None = field(default=None, repr=False)


def choose(credentials: Credentials, capabilities: frozenset[str], *, encrypted: bool) -> Login:
    """The strongest way that the server offers. Raises AuthenticationError, InsecureError, ArgumentError."""
    if "AUTH=PLAIN" in capabilities:
        token = _sasl_plain(credentials)
        if "SASL-IR" in capabilities:
            return Login(commands.authenticate("PLAIN", token))
        return Login(commands.authenticate("PLAIN", None), answer=token)
    if "LOGINDISABLED" not in capabilities:
        return Login(commands.login(credentials.username, credentials.password))
    if not encrypted:
        raise InsecureError(
            "the server accepts no password on an unencrypted connection",
            hint="set tls to 'implicit' (port 993) or 'starttls' (port 143)",
        )
    raise AuthenticationError(
        "the server accepts no password login",
        hint="the provider may want OAuth2, or an app password must be switched on in its settings",
        server_code="LOGINDISABLED",
    )


def refusal(tagged: Tagged, command: str, credentials: Credentials, provider: Provider) -> ImapError:
    """What a tagged NO or BAD to a login means: the credentials are wrong, or the server cannot just now."""
    text = _without_secrets(tagged.text, credentials)
    lower = text.lower()
    if tagged.code in _TEMPORARY_CODES or any(phrase in lower for phrase in provider.temporary_login_phrases):
        return CommandError(
            command, tagged.status, tagged.code, text, hint="the server cannot just now; try again later"
        )
    said = f"[{tagged.code}] {text}" if tagged.code else text
    return AuthenticationError(
        f"the server refused the credentials of {credentials.username!r}: {said}".rstrip(": "),
        hint=provider.login_hint or "check the user name and the password",
        server_code=tagged.code,
        server_text=text,
    )


def _sasl_plain(credentials: Credentials) -> bytes:
    try:
        username, password = credentials.username.encode("utf-8"), credentials.password.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ArgumentError("the user name or the password is not valid Unicode") from error
    if b"\0" in username or b"\0" in password:
        raise ArgumentError("the user name or the password holds a NUL, which SASL PLAIN cannot carry")
    return base64.b64encode(b"\0" + username + b"\0" + password)


def _without_secrets(text: str, credentials: Credentials) -> str:
    """A server that echoes the line it refused must not bring the password into our logs."""
    for secret in (credentials.password, base64.b64encode(credentials.password.encode("utf-8", "replace")).decode()):
        if secret:
            text = text.replace(secret, "***")
    try:
        return text.replace(_sasl_plain(credentials).decode("ascii"), "***")
    except ArgumentError:
        return text
