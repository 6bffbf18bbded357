"""What a processor raised, as a ProcessorError (pure)."""

from __future__ import annotations

from typing import Final

from mailmill.errors import ProcessorError

_MAX_CHARACTERS: Final = 1000


def describe(error: BaseException) -> ProcessorError:
    """What is recorded of ``error``: its type and message. A ProcessorError stays itself, permanent or not."""
    if isinstance(error, ProcessorError):
        return error
    try:
        text = str(error)
    except BaseException:  # noqa: BLE001 - the user's __str__ may raise anything, SystemExit too
        text = "(its message cannot be shown)"
    name = type(error).__name__
    return ProcessorError((f"{name}: {text}" if text else name)[:_MAX_CHARACTERS])


def too_slow(timeout_seconds: float) -> ProcessorError:
    """Our timeout, told apart from a TimeoutError that the processor itself ran into."""
    return ProcessorError(f"took longer than {timeout_seconds:g} s")


def out_of_memory(memory_bytes: int) -> ProcessorError:
    """A run that wanted more than its ``memory_bytes``."""
    return ProcessorError(f"wanted more memory than memory_bytes = {memory_bytes:,} allows")
