"""Environment variables as a table shaped like the file's. Pure: the caller passes the variables in.

``MAILMILL_SERVICE__LISTEN`` is ``service.listen``; two underscores part the levels. ``MAILMILL_KEY`` (the master key)
and ``MAILMILL_CONFIG`` (the file) have no dotted key. Lists are comma-separated or JSON, tables are JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from mailmill.settings.keys import NAME, all_keys, find_key

PREFIX = "MAILMILL_"
KEY_VARIABLE = "MAILMILL_KEY"
CONFIG_VARIABLE = "MAILMILL_CONFIG"
DEFAULT_ACCOUNT = "default"

SHORT_FORM = {
    "IMAP_SERVER": ("accounts", DEFAULT_ACCOUNT, "imap", "host"),
    "IMAP_PORT": ("accounts", DEFAULT_ACCOUNT, "imap", "port"),
    "IMAP_TLS": ("accounts", DEFAULT_ACCOUNT, "imap", "tls"),
    "IMAP_USERNAME": ("accounts", DEFAULT_ACCOUNT, "username"),
    "IMAP_PASSWORD": ("accounts", DEFAULT_ACCOUNT, "password"),
    "DATABASE_URL": ("service", "database_url"),
    "CEREBRAS_API_KEY": ("ai", "cerebras_api_key"),
    "OPENAI_API_KEY": ("ai", "openai_api_key"),
    "OPENAI_BASE_URL": ("ai", "openai_base_url"),
}

# Kubernetes puts these into every pod beside a service called "mailmill"; they are none of ours.
_KUBERNETES = re.compile(r"MAILMILL_(SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_(TCP|UDP)(_(PROTO|PORT|ADDR))?)?)")


@dataclass(slots=True)
class Variables:
    """``table`` is shaped like the file's; ``origins`` says which variable each value came from, by its path."""

    table: dict[str, Any] = field(default_factory=dict)
    origins: dict[tuple[str, ...], str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def read_prefixed(environ: Mapping[str, str], known_names: Mapping[str, Collection[str]]) -> Variables:
    """The ``MAILMILL_…__…`` variables.

    ``known_names`` holds the names the file uses below ``accounts``, ``destinations`` and ``processors``: a variable
    cannot spell ``.`` and ``-``, so ``MAILMILL_ACCOUNTS__MY_WORK__PASSWORD`` also means an account called ``my-work``.
    """
    found = Variables()
    mine = [name for name in environ if name.startswith(PREFIX) and name not in (KEY_VARIABLE, CONFIG_VARIABLE)]
    for name in sorted(mine, key=lambda each: (each.count("__"), each)):
        parts = tuple(part.lower() for part in name.removeprefix(PREFIX).split("__"))
        if len(parts) == 1:
            warning = _lonely_warning(name)
            if warning:
                found.warnings.append(warning)
            continue
        path = _with_real_name(parts, known_names)
        _put(found, path, _convert(path, environ[name]), name)
    return found


def read_short_form(environ: Mapping[str, str], *, default_account_in_file: bool) -> Variables:
    """The short form: one account called ``default``, the database, the AI keys. Empty variables count as not set."""
    found = Variables()
    given = {name: environ[name] for name in SHORT_FORM if environ.get(name)}
    imap = [name for name in given if name.startswith("IMAP_")]
    if imap and "IMAP_SERVER" not in given and not default_account_in_file:
        found.warnings.append(f"{', '.join(imap)} in the environment has no effect without IMAP_SERVER")
        given = {name: value for name, value in given.items() if name not in imap}
    for name, value in given.items():
        _put(found, SHORT_FORM[name], value, name)
    return found


def _lonely_warning(name: str) -> str:
    if _KUBERNETES.fullmatch(name):
        return ""
    known = [key.variable for key in all_keys() if NAME not in key.path and key.wants not in ("table", "named")]
    near = get_close_matches(name, [*known, KEY_VARIABLE, CONFIG_VARIABLE], n=1, cutoff=0.85)
    return f"{name} in the environment has no effect; did you mean {near[0]}?" if near else ""


def _with_real_name(parts: tuple[str, ...], known_names: Mapping[str, Collection[str]]) -> tuple[str, ...]:
    names = known_names.get(parts[0], ())
    if len(parts) < 2 or parts[1] in names:
        return parts
    alike = [name for name in names if re.sub(r"[.-]", "_", name) == parts[1]]
    return (parts[0], alike[0], *parts[2:]) if len(alike) == 1 else parts


def _convert(path: tuple[str, ...], value: str) -> Any:
    key = find_key(path)
    wants = key.wants if key else "value"
    opener = {"list": "[", "paths": "[", "table": "{", "named": "{"}.get(wants)
    if opener and value.lstrip().startswith(opener):
        try:
            return json.loads(value)
        except ValueError:
            return value
    if wants in ("list", "paths"):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def _put(found: Variables, path: tuple[str, ...], value: Any, variable: str) -> None:
    table = found.table
    for part in path[:-1]:
        below = table.setdefault(part, {})
        if not isinstance(
            below, dict
        ):  # MAILMILL_SERVICE__LISTEN and MAILMILL_SERVICE__LISTEN__PORT: the deeper one wins
            below = table[part] = {}
        table = below
    table[path[-1]] = value
    found.origins[path] = variable
