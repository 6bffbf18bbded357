"""Where an account's password and a destination's secret come from, asked for when the service starts.

Not at loading: ``mailmill status`` must work in a shell without the service's variables and password store.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Mapping

from mailmill import programs
from mailmill.errors import ConfigurationError
from mailmill.settings.models import AccountSettings, DestinationSettings, check_webhook_secret

COMMAND_TIMEOUT_SECONDS = 30
MAX_PASSWORD_BYTES = 64 * 1024
_STDERR_SHOWN_CHARACTERS = 200


async def password_of(
    name: str, account: AccountSettings, environ: Mapping[str, str], *, timeout_seconds: float = COMMAND_TIMEOUT_SECONDS
) -> str:
    """The password of account ``name``. Raises ConfigurationError, which never holds it. May be cancelled.

    ``password_command`` runs without a shell, with no input, for at most ``timeout_seconds``; it and what it started
    are killed then. Its last newline is no part of the password.
    """
    key = f"accounts.{name}"
    if account.password is not None:
        return account.password.get_secret_value()
    if account.password_env is not None:
        return _from_variable(f"{key}.password_env", account.password_env, environ)
    return await _from_command(f"{key}.password_command", account.password_command or "", environ, timeout_seconds)


def secret_of(name: str, destination: DestinationSettings, environ: Mapping[str, str]) -> str:
    """The signing secret of destination ``name`` (``whsec_…``). Raises ConfigurationError, which never holds it."""
    if destination.secret is not None:
        return destination.secret.get_secret_value()
    key = f"destinations.{name}.secret_env"
    secret = _from_variable(key, destination.secret_env or "", environ)
    try:
        check_webhook_secret(secret)
    except ValueError as error:
        raise ConfigurationError(f"the variable {destination.secret_env!r} of '{key}' {error}", key=key) from None
    return secret


def _from_variable(key: str, variable: str, environ: Mapping[str, str]) -> str:
    value = environ.get(variable, "")
    if not value:
        raise ConfigurationError(
            f"'{key}' names the environment variable {variable!r}, which is not set",
            hint=f"set {variable} where the service starts",
            key=key,
        )
    return value


async def _from_command(key: str, command: str, environ: Mapping[str, str], timeout_seconds: float) -> str:
    try:
        arguments = shlex.split(command)
    except ValueError as error:
        raise ConfigurationError(f"'{key}' cannot be read as a command: {error}", key=key) from None
    if not arguments:
        raise ConfigurationError(f"'{key}' is empty", key=key)
    program = arguments[0]
    hint = "run the command by hand, as the user the service runs as; it must print the password and nothing else"
    try:
        running = await programs.start(arguments, stdout=programs.PIPE, stderr=programs.PIPE, environ=environ)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConfigurationError(f"'{key}': cannot run {program!r}: {reason}", hint=hint, key=key) from None
    code: int | None = None
    try:
        async with asyncio.timeout(timeout_seconds):
            output, complaint = await running.output(MAX_PASSWORD_BYTES + 1)
            code = await running.wait()
    except TimeoutError:
        raise ConfigurationError(
            f"'{key}': {program!r} did not finish within {timeout_seconds:g} s", hint=hint, key=key
        ) from None
    finally:
        if code is None:
            # What it started may go on where it has ended.
            running.kill()
            await asyncio.shield(running.wait())
    if code != 0:
        said = complaint.decode("utf-8", "replace").strip().rpartition("\n")[2][:_STDERR_SHOWN_CHARACTERS]
        said = "".join(character if character.isprintable() else "?" for character in said)
        raise ConfigurationError(
            f"'{key}': {program!r} ended with {code}" + (f": {said}" if said else ""), hint=hint, key=key
        )
    unusable = ConfigurationError(f"'{key}': {program!r} printed no usable password", hint=hint, key=key)
    if len(output) > MAX_PASSWORD_BYTES:
        raise unusable
    try:
        password = output.decode("utf-8")
    except UnicodeDecodeError:
        raise ConfigurationError(f"'{key}': {program!r} printed what is not UTF-8", hint=hint, key=key) from None
    password = password.removesuffix("\n").removesuffix("\r")
    if not password:
        raise unusable
    return password
