"""What a processor returned, as JSON text that every database keeps."""

from __future__ import annotations

import json
from typing import Any, Final

from mailmill.errors import ProcessorError

MAX_CHARACTERS: Final = 1 << 20


def encode(value: Any) -> str:
    """``value`` as compact JSON, its keys in the order given; ProcessorError, permanent, where JSON cannot say it.

    NUL and lone surrogates become U+FFFD: PostgreSQL refuses the one in ``jsonb``, UTF-8 the other.
    """
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
