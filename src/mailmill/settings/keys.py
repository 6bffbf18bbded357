"""The models as a table of dotted keys, for error messages, the environment and the test of the reference page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr

from mailmill.settings.models import ProcessorOverride, Sections

NAME = "NAME"
"""Stands in a dotted key for what the user names: an account, a destination, a processor."""

_SECRET_BY_USE = frozenset({"password_command", "url"})


@dataclass(frozen=True, slots=True)
class Key:
    """One key. ``path`` has ``NAME`` where the user's own name stands.

    ``wants`` is ``"value"``, ``"path"`` (of a file or folder), ``"list"``, ``"paths"`` (a list of such), ``"table"``,
    or ``"named"`` (a table of tables that the user names). ``secret``: what stands there is never shown.
    """

    path: tuple[str, ...]
    wants: str
    secret: bool

    @property
    def dotted(self) -> str:
        return ".".join(self.path)

    @property
    def variable(self) -> str:
        return "MAILMILL_" + "__".join(part.upper() for part in self.path)


@cache
def all_keys() -> tuple[Key, ...]:
    """Every key of the configuration, tables included, in the order of the models."""
    return tuple(_walk(Sections, ()))


def find_key(path: Sequence[str]) -> Key | None:
    """The key that ``path`` (with the user's own names) stands for."""
    for key in all_keys():
        if len(key.path) == len(path) and all(want in (NAME, got) for want, got in zip(key.path, path, strict=True)):
            return key
    return None


def children(path: Sequence[str]) -> tuple[str, ...]:
    """The names that may stand in the table ``path``; those the user makes up are not among them."""
    depth = len(path)
    parents = [
        key.path
        for key in all_keys()
        if len(key.path) == depth + 1 and all(w in (NAME, g) for w, g in zip(key.path, path, strict=False))
    ]
    return tuple(dict.fromkeys(parent[depth] for parent in parents if parent[depth] != NAME))


def _walk(model: type[BaseModel], prefix: tuple[str, ...]) -> Iterator[Key]:
    for name, field in model.model_fields.items():
        path = (*prefix, field.alias or name)
        inner, wants, secret = _describe(field.annotation)
        yield Key(path, wants, secret or path[-1] in _SECRET_BY_USE)
        if inner is not None and wants == "named":
            yield Key((*path, NAME), "table", secret=False)
            yield from _walk(inner, (*path, NAME))
        elif inner is not None:
            yield from _walk(inner, path)
        if path == ("processors",):
            yield Key((*path, NAME), "table", secret=False)
            yield from _walk(ProcessorOverride, (*path, NAME))


def _describe(annotation: Any) -> tuple[type[BaseModel] | None, str, bool]:
    """(model inside, what it wants, whether it is a secret)."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _describe(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return next(_describe(part) for part in get_args(annotation) if part is not type(None))
    if origin is tuple:
        return None, "paths" if _describe(get_args(annotation)[0])[1] == "path" else "list", False
    if origin is dict:
        return _describe(get_args(annotation)[1])[0], "named", False
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, "table", False
    return None, "path" if annotation is Path else "value", annotation is SecretStr
