"""Validation errors as lines for people. Pure.

A line names the dotted key and where it was read, what was found (never for a secret, never a whole table) and what is
wanted, and the nearest known name where one was mistyped.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from mailmill.settings.keys import children, find_key
from mailmill.settings.models import KEY_PROBLEM

_SHOWN_CHARACTERS = 60

_WANTED = {
    "string": "text in quotes",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "path": "a path in quotes",
    "tuple": 'a list such as ["a", "b"]',
    "list": 'a list such as ["a", "b"]',
    "dict": "a table",
    "model": "a table",
}
_BOUNDS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong: ``key`` is dotted, ``text`` the whole line."""

    key: str
    text: str


def describe(error: ValidationError, origins: Mapping[tuple[str, ...], str], source: str) -> list[Problem]:
    """All problems of ``error``, one each. ``source`` names the file, or is empty; ``origins`` is by path."""
    problems = (_describe_one(details, origins, source) for details in error.errors(include_url=False))
    return list(dict.fromkeys(problems))


def nearest(name: str, known: Sequence[str]) -> str:
    """``; did you mean 'x'?`` or nothing."""
    near = get_close_matches(name.lower(), known, n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


def _describe_one(details: ErrorDetails, origins: Mapping[tuple[str, ...], str], source: str) -> Problem:
    location = tuple(str(part) for part in details["loc"] if part != "[key]")
    context: dict[str, Any] = details.get("ctx", {})
    kind = details["type"]
    if kind == KEY_PROBLEM:
        path = (*location, context["key"])
        return _problem(path, f"'{'.'.join(path)}' {context['text']}", origins, source)
    if kind in ("extra_forbidden", "model_type", "model_attributes_type") and _is_unknown(location):
        known = children(location[:-1])
        near = nearest(location[-1], known)
        if near:
            near = near.replace(f"'{_name_in(near)}'", f"'{'.'.join((*location[:-1], _name_in(near)))}'")
        elif known:
            near = f"; known here: {', '.join(known)}"
        return _problem(location, f"unknown key '{'.'.join(location)}'{near}", origins, source)
    dotted = ".".join(location)
    if kind == "missing":
        return _problem(location, f"'{dotted}' is missing", origins, source)
    if kind == "value_error":
        return _problem(location, f"'{dotted}' {context['error']}", origins, source)
    found = _found(location, details["input"])
    return _problem(location, f"'{dotted}' wants {wanted(details)}{found}", origins, source)


def _name_in(near: str) -> str:
    return near.split("'")[1]


def _is_unknown(location: tuple[str, ...]) -> bool:
    """A table of the user's own naming (``processors.x``) whose value is no table is most likely a mistyped key."""
    key = find_key(location)
    return key is None or (
        location[0] == "processors" and len(location) == 2 and location[1] not in children(location[:1])
    )


def wanted(details: ErrorDetails) -> str:
    """What would do in place of what was found: ``at least 1``, ``a whole number``."""
    kind, context = details["type"], details.get("ctx", {})
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        bound = context[name]
        return f"{words} {bound:g}" if isinstance(bound, float) else f"{words} {bound}"
    if kind in ("literal_error", "enum"):
        expected = str(context["expected"])
        value = details["input"]
        names = [part.strip("' ") for part in expected.replace(" or ", ", ").split(",")]
        return f"one of {', '.join(names)}" + (nearest(value, names) if isinstance(value, str) else "")
    if kind in ("string_too_short", "too_short"):
        return "something, not nothing"
    if kind == "finite_number":
        return "a finite number"
    return _WANTED.get(kind.split("_", 1)[0], details["msg"].lower())


def _found(location: tuple[str, ...], value: object) -> str:
    key = find_key(location) or find_key(location[:-1])
    if (key is not None and key.secret) or value == "":
        return ""
    if isinstance(value, str) and key is not None and key.wants in ("table", "named"):
        return " (found text)"  # which may be a secret that lost its place
    if isinstance(value, str):
        shown = value if len(value) <= _SHOWN_CHARACTERS else value[:_SHOWN_CHARACTERS] + "…"
        return f" (found {shown!r})"
    if isinstance(value, bool):
        return f" (found {str(value).lower()})"
    if isinstance(value, (int, float, dt.date, dt.time)):
        return f" (found {value})"
    if isinstance(value, Mapping):
        return " (found a table)"
    if isinstance(value, (list, tuple)):
        return " (found a list)"
    return ""


def _problem(path: tuple[str, ...], text: str, origins: Mapping[tuple[str, ...], str], source: str) -> Problem:
    origin = next((origins[path[:end]] for end in range(len(path), 0, -1) if path[:end] in origins), "")
    where = f"{origin} in the environment" if origin else source
    return Problem(".".join(path), f"{where}: {text}" if where else text)
