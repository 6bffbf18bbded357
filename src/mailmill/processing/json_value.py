"""What a processor returned, as JSON text that every database keeps."""

from __future__ import annotations

import json
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from mailmill.errors import ProcessorError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_CHARACTERS: Final = 1 << 20
MAX_DEPTH: Final = 500
_SMALL_CHARACTERS: Final = 8 << 10


def encode(value: Any) -> str:
    """``value`` as compact JSON, its keys in the order given; ProcessorError, permanent, where JSON cannot say it.

    NUL and lone surrogates become U+FFFD: PostgreSQL refuses the one in ``jsonb``, UTF-8 the other.
    """
    if _weigh(value, MAX_CHARACTERS) > MAX_CHARACTERS:
        # Not even encoded: the encoder holds the interpreter until it is through, and shared parts count each time.
        raise ProcessorError(f"returned JSON above the limit of {MAX_CHARACTERS} characters", permanent=True)
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        if "\\u0000" in text or not _is_utf8(text):
            text = json.dumps(_clean(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise ProcessorError(f"returned what JSON cannot say: {error}", permanent=True) from error
    if len(text) > MAX_CHARACTERS:
        raise ProcessorError(
            f"returned {len(text)} characters of JSON, above the limit of {MAX_CHARACTERS}", permanent=True
        )
    return text


def is_small(value: Any) -> bool:
    """Whether encoding ``value`` takes about a millisecond at most. ProcessorError where it is nested too deeply."""
    return _weigh(value, _SMALL_CHARACTERS) <= _SMALL_CHARACTERS


def _weigh(value: Any, enough: int) -> int:
    """How many characters of JSON ``value`` takes at least; counts little further than ``enough``.

    ProcessorError, permanent, for what is nested too deeply or without end.
    """
    # Each item brings a separator or, the last one, its container's closing bracket; the outermost brings neither.
    characters = -1
    open_containers: list[Iterator[Any]] = [iter((value,))]
    while open_containers and characters <= enough:
        if len(open_containers) > MAX_DEPTH:
            raise ProcessorError(
                f"returned what JSON cannot say: nested in more than {MAX_DEPTH} levels", permanent=True
            )
        for item in open_containers[-1]:
            characters += 2
            if isinstance(item, str):
                characters += len(item) + 1
            elif isinstance(item, int):
                characters += item.bit_length() // 4
            elif isinstance(item, dict):
                open_containers.append(chain.from_iterable(item.items()))
                break
            elif isinstance(item, list | tuple):
                open_containers.append(iter(item))
                break
            if characters > enough:
                break
        else:
            open_containers.pop()
    return characters


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return "".join("\ufffd" if c == "\x00" or "\ud800" <= c <= "\udfff" else c for c in value)
    if isinstance(value, dict):
        return {_clean(key): _clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value]
    return value
