"""File, environment and models brought together; the only I/O is reading the file and looking at its mode."""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import SecretStr, ValidationError

from mailmill.errors import ConfigurationError
from mailmill.settings.environment import (
    CONFIG_VARIABLE,
    KEY_VARIABLE,
    read_prefixed,
    read_short_form,
)
from mailmill.settings.keys import find_key
from mailmill.settings.models import (
    MIN_WEBHOOK_SECRET_BYTES,
    PASSWORD_SOURCES,
    SECRET_SOURCES,
    Sections,
    Settings,
    check_webhook_secret,
)
from mailmill.settings.problems import Problem, describe, nearest

MAX_FILE_BYTES = 1 << 20
MAX_DEPTH = 32
REFERENCE = "every key is described in docs/configuration.md"

Path_ = tuple[str, ...]


def load_settings(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """The configuration from ``path``, else ``$MAILMILL_CONFIG``, else the default file if any, and from ``environ``.

    Raises ConfigurationError: all problems at once, one a line, also in ``problems``.
    """
    file = _choose_file(path, environ)
    table, warnings = _read_file(file) if file else ({}, [])
    source = str(file) if file else ""
    names = {section: tuple(_table(table.get(section))) for section in ("accounts", "destinations", "processors")}
    prefixed = read_prefixed(environ, names)
    if _nested_too_deeply(prefixed.table):
        raise ConfigurationError("a MAILMILL_ variable of the environment is nested too deeply", hint=REFERENCE)
    short = read_short_form(environ, default_account_in_file="default" in names["accounts"])
    merged = _merge(_merge(_without_rivals(short.table, table), table), prefixed.table, replace_passwords=True)
    origins = {path: name for path, name in short.origins.items() if not _has(table, path)} | prefixed.origins
    _absolute_paths(merged, file, origins, environ)
    try:
        sections = Sections.model_validate(merged)
    except ValidationError as error:
        raise _failure(describe(error, origins, source)) from None
    problems = list(_cross_check(sections, source))
    if problems:
        raise _failure(problems)
    warnings += short.warnings + prefixed.warnings + _secret_warnings(sections)
    if file is not None:
        warnings += _mode_warnings(file, table)
    return _finish(sections, environ, file, warnings)


def check_processor_names(settings: Settings, known: Collection[str]) -> None:
    """For whoever loads the processors: a name in ``[processors]`` that is not ``known`` is a ConfigurationError."""
    source = str(settings.config_file or "")
    listed = [(f"processors.enabled: {name}", name) for name in settings.processors.enabled if name not in known]
    tables = [(f"processors.{name}", name) for name in settings.processors.overrides if name not in known]
    problems = [
        Problem(
            key.partition(":")[0],
            f"{source}: '{key}' names no processor{nearest(name, sorted(known))}".removeprefix(": "),
        )
        for key, name in listed + tables
    ]
    if problems:
        raise _failure(problems)


def _choose_file(path: Path | None, environ: Mapping[str, str]) -> Path | None:
    if path is not None:
        return _expand(str(path), Path.cwd(), environ)
    named = environ.get(CONFIG_VARIABLE)
    if named:
        return _expand(named, Path.cwd(), environ)
    default = _user_folder("XDG_CONFIG_HOME", "~/.config", environ) / "mailmill" / "config.toml"
    return default if default.exists() else None


def _read_file(file: Path) -> tuple[dict[str, Any], list[str]]:
    try:
        content = _content(file)
    except OSError as error:
        raise ConfigurationError(
            f"{file}: cannot read the configuration: {error.strerror or error}",
            hint="name the file with --config FILE or MAILMILL_CONFIG, and let the user that runs mailmill read it",
        ) from None
    try:
        table = tomllib.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ConfigurationError(
            f"{file}: line {line}: not UTF-8 text", hint="save the file as UTF-8", key=""
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(
            f"{file}: {_toml_words(str(error), content)}", hint="correct that line; the file is TOML (https://toml.io)"
        ) from None
    except RecursionError:
        table = None
    if table is None or _nested_too_deeply(table):
        raise ConfigurationError(f"{file}: nested too deeply", hint="the file is TOML (https://toml.io)")
    return table, []


def _content(file: Path) -> bytes:
    """The bytes of a regular file; of the null device, nothing. Anything else could block, or never end."""
    # Opening a FIFO for reading waits for its writer, unless it is opened like this.
    with os.fdopen(os.open(file, os.O_RDONLY | os.O_NONBLOCK), "rb") as opened:
        status = os.fstat(opened.fileno())
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == Path(os.devnull).stat().st_rdev:
            return b""
        if not stat.S_ISREG(status.st_mode):
            raise ConfigurationError(
                f"{file}: cannot read the configuration: it is no regular file",
                hint="write the configuration to a file, and name that with --config FILE or MAILMILL_CONFIG",
            )
        content = opened.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise ConfigurationError(
            f"{file}: larger than {MAX_FILE_BYTES} bytes, which no configuration is", hint="is this the right file?"
        )
    return content


def _nested_too_deeply(table: dict[str, Any]) -> bool:
    """Whether there are more than ``MAX_DEPTH`` levels: what reads the table later calls itself for each of them."""
    level: list[dict[str, Any] | list[Any]] = [table]
    for _ in range(MAX_DEPTH):
        level = [
            below
            for each in level
            for below in (each.values() if isinstance(each, dict) else each)
            if isinstance(below, dict | list)
        ]
        if not level:
            return False
    return True


def _toml_words(said: str, content: bytes) -> str:
    """tomllib's ``Invalid value (at line 3, column 8)`` → ``line 3, column 8: invalid value``."""
    match = re.fullmatch(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", said, re.DOTALL)
    if match is None:
        return said
    words = match[1][:1].lower() + match[1][1:]
    if match[2]:
        return f"line {match[2]}, column {match[3]}: {words}"
    lines = content.decode("utf-8-sig").split("\n")
    return f"line {len(lines)}, column {len(lines[-1]) + 1}: {words} at the end of the file"


def _merge(base: dict[str, Any], over: Mapping[str, Any], *, replace_passwords: bool = False) -> dict[str, Any]:
    """``over`` laid on ``base``, table by table.

    With ``replace_passwords`` a password source in ``over`` replaces whichever source ``base`` names.
    """
    merged = dict(base)
    for rivals in (PASSWORD_SOURCES, SECRET_SOURCES) if replace_passwords else ():
        if any(name in over for name in rivals):
            merged = {name: value for name, value in merged.items() if name not in rivals}
    for name, value in over.items():
        below = merged.get(name)
        if isinstance(below, dict) and isinstance(value, Mapping):
            merged[name] = _merge(below, value, replace_passwords=replace_passwords)
        else:
            merged[name] = value
    return merged


def _without_rivals(short: dict[str, Any], table: Mapping[str, Any]) -> dict[str, Any]:
    """The short form without ``IMAP_PASSWORD`` where the file's ``default`` account names another source."""
    account = _table(_table(short.get("accounts")).get("default"))
    in_file = _table(_table(table.get("accounts")).get("default"))
    if any(name in in_file for name in PASSWORD_SOURCES):
        account.pop("password", None)
    return short


def _absolute_paths(
    merged: dict[str, Any], file: Path | None, origins: Mapping[Path_, str], environ: Mapping[str, str]
) -> None:
    """Relative paths of the file count from its folder, those of the environment from the working one."""
    service = merged.setdefault("service", {})
    if isinstance(service, dict):
        service.setdefault("data_dir", str(_user_folder("XDG_DATA_HOME", "~/.local/share", environ) / "mailmill"))
    here = Path.cwd()
    for path, table in _leaves(merged, ()):
        value = table[path[-1]]
        key = find_key(path)
        base = here if file is None or path in origins else file.parent
        if key is not None and key.wants == "paths" and isinstance(value, list):
            table[path[-1]] = [
                str(_expand(one, base, environ)) if isinstance(one, str) and one else one for one in value
            ]
        if key is None or not isinstance(value, str) or not value:
            continue
        if key.wants == "path":
            table[path[-1]] = str(_expand(value, base, environ))
        elif path == ("service", "database_url"):
            table[path[-1]] = _absolute_sqlite(value, base, environ)


def _absolute_sqlite(url: str, base: Path, environ: Mapping[str, str]) -> str:
    scheme, separator, rest = url.partition(":///")
    if not separator or not scheme.startswith("sqlite") or not rest or rest.startswith(("/", ":memory:")):
        return url
    file, question, query = rest.partition("?")
    return f"{scheme}:///{_expand(file, base, environ)}{question}{query}"


def _expand(path: str, base: Path, environ: Mapping[str, str]) -> Path:
    if path == "~" or path.startswith("~/"):
        path = str(Path(environ.get("HOME") or Path.home()) / path[2:])
    return Path(os.path.normpath(base / path))


def _user_folder(variable: str, usual: str, environ: Mapping[str, str]) -> Path:
    """A folder of the XDG base directory specification: the variable counts only where it is absolute."""
    named = environ.get(variable, "")
    return Path(named) if named.startswith("/") else _expand(usual, Path.cwd(), environ)


def _leaves(table: dict[str, Any], prefix: Path_) -> Iterator[tuple[Path_, dict[str, Any]]]:
    for name, value in list(table.items()):
        if isinstance(value, dict):
            yield from _leaves(value, (*prefix, name))
        else:
            yield (*prefix, name), table


def _table(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _has(table: Mapping[str, Any], path: Path_) -> bool:
    value: object = table
    for part in path:
        if not isinstance(value, Mapping) or part not in value:
            return False
        value = value[part]
    return True


def _cross_check(sections: Sections, source: str) -> Iterator[Problem]:
    """What only the whole shows: names that must exist elsewhere, files that must be there."""
    where = f"{source}: " if source else ""
    for name, destination in sections.destinations.items():
        for account in destination.accounts:
            if account not in sections.accounts:
                key = f"destinations.{name}.accounts"
                near = nearest(account, list(sections.accounts))
                yield Problem(key, f"{where}'{key}' names {account!r}, which is no account{near}")
    for name, each in sections.accounts.items():
        if each.imap.ca_file is not None and not each.imap.ca_file.is_file():
            key = f"accounts.{name}.imap.ca_file"
            yield Problem(key, f"{where}'{key}' names {each.imap.ca_file}, which is no file")


def _secret_warnings(sections: Sections) -> list[str]:
    return [
        f"'destinations.{name}.secret' is shorter than Standard Webhooks' {MIN_WEBHOOK_SECRET_BYTES} bytes"
        for name, destination in sections.destinations.items()
        if destination.secret is not None
        and check_webhook_secret(destination.secret.get_secret_value()) < MIN_WEBHOOK_SECRET_BYTES
    ]


def _mode_warnings(file: Path, table: dict[str, Any]) -> list[str]:
    mode = file.stat().st_mode
    if not mode & (stat.S_IRGRP | stat.S_IROTH):
        return []
    held = [".".join(path) for path, _ in _leaves(table, ()) if _holds_secret(path, table)]
    if not held:
        return []
    return [f"{file} holds {held[0]!r} and can be read by other users; run: chmod 600 {file}"]


def _holds_secret(path: Path_, table: Mapping[str, Any]) -> bool:
    key = find_key(path)
    if key is None or not key.secret or path[-1] in ("password_command", "url"):
        return False
    if path[-1] in ("database_url", "listen_url"):
        return "@" in str(_table(table.get("service")).get(path[-1]))
    return True


def _finish(sections: Sections, environ: Mapping[str, str], file: Path | None, warnings: list[str]) -> Settings:
    service = sections.service
    update: dict[str, Any] = {}
    if not service.database_url.get_secret_value():
        update["database_url"] = SecretStr(f"sqlite+aiosqlite:///{service.data_dir / 'mailmill.db'}")
    if "log_file" not in service.model_fields_set:
        update["log_file"] = service.data_dir / "mailmill.log"
    key = environ.get(KEY_VARIABLE)
    return Settings.model_construct(
        service=service.model_copy(update=update),
        accounts=sections.accounts,
        destinations=sections.destinations,
        processors=sections.processors,
        threat=sections.threat,
        ai=sections.ai,
        master_key=SecretStr(key) if key else None,
        config_file=file,
        warnings=tuple(warnings),
    )


def _failure(problems: list[Problem]) -> ConfigurationError:
    return ConfigurationError(
        "\n".join(problem.text for problem in problems),
        hint=REFERENCE,
        key=problems[0].key,
        problems=tuple(problem.text for problem in problems),
    )
