"""How a processor function is run: on the loop, in a thread, or in a child process, and always under its timeout."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mailmill.errors import ProcessorError
from mailmill.model import EventName
from mailmill.processing import json_value
from mailmill.processing.children import Children
from mailmill.processing.failures import describe, too_slow
from mailmill.processing.threads import DEFAULT_SIZE, Threads

if TYPE_CHECKING:
    from mailmill.processing.registry import Context, Processor


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run gave: JSON text, and the events to raise."""

    value: str
    announce: tuple[str, ...]


class Runners:
    """The threads and children that all processors of one worker share."""

    def __init__(self, *, threads: int = DEFAULT_SIZE, max_stuck_threads: int | None = None, children: int = 0) -> None:
        self._threads = Threads(threads, max_stuck=max_stuck_threads)
        self._children = Children(children or None)

    @property
    def stuck_threads(self) -> int:
        """Threads whose job outlived its timeout and still runs."""
        return self._threads.stuck

    async def run(self, processor: Processor, message: Any, context: Context, *, size_bytes: int = 0) -> Outcome:
        """Run it once. Raises ProcessorError for all that went wrong; only a cancellation of the caller is let through.

        ``size_bytes`` says about how big ``message`` is.
        """
        try:
            return await self._run(processor, message, context, size_bytes)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Not ours: the function let a cancellation of its own making escape.
            raise describe(error) from error
        except (Exception, SystemExit) as error:
            raise describe(error) from error

    async def close(self) -> None:
        """Kill the children, let the threads end."""
        self._threads.close()
        await self._children.close()

    async def _run(self, processor: Processor, message: Any, context: Context, size_bytes: int) -> Outcome:
        if processor.kind == "process":
            text = await self._children.run(
                processor.function,
                message,
                context,
                timeout_seconds=processor.timeout_seconds,
                size_bytes=size_bytes,
            )
            return Outcome(text, _announced(processor, json.loads(text)) if processor.announce else ())
        if processor.kind == "thread":
            value, text = await self._threads.run(
                _call, processor, message, context, timeout_seconds=processor.timeout_seconds
            )
        else:
            limit = asyncio.timeout(processor.timeout_seconds)
            try:
                async with limit:
                    value = await processor.function(message, context)
            except TimeoutError as error:
                if limit.expired():
                    raise too_slow(processor.timeout_seconds) from error
                raise
            text = json_value.encode(value)
        return Outcome(text, _announced(processor, value))


def _call(processor: Processor, message: Any, context: Context) -> tuple[Any, str]:
    value = processor.function(message, context)
    return value, json_value.encode(value)


def _announced(processor: Processor, value: Any) -> tuple[str, ...]:
    if processor.announce is None:
        return ()
    names = tuple(processor.announce(value))
    for name in names:
        if name not in EventName.__members__.values():
            raise ProcessorError(f"announces {name!r}, which is no event", permanent=True)
    return names
