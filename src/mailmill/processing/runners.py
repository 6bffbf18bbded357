"""How a processor function is run: on the loop, in a thread, or in a child process, and always under its timeout."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from mailmill.errors import ProcessorError
from mailmill.model import EventName
from mailmill.processing import json_value
from mailmill.processing.children import Children
from mailmill.processing.failures import describe, too_slow
from mailmill.processing.threads import DEFAULT_SIZE, Threads, in_default_thread

if TYPE_CHECKING:
    from mailmill.processing.registry import Context, Processor


_CLEAN_UP_SECONDS: Final = 1.0


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
        # The loop keeps weak references only.
        self._tasks: set[asyncio.Task[tuple[Any, BaseException | None]]] = set()

    @property
    def stuck_threads(self) -> int:
        """Threads whose job outlived its timeout and still runs."""
        return self._threads.stuck

    async def run(
        self, processor: Processor, message: Any, context: Context, *, size_bytes: int = 0, apart: bool = False
    ) -> Outcome:
        """Run it once. Raises ProcessorError for all that went wrong (NotStartedError where the machine gave it no
        process or thread); only a cancellation of the caller is let through.

        ``size_bytes`` says about how big ``message`` is. ``apart``: in a child process, of whatever kind the processor
        is; its function must be one that can be imported there, and ``message`` may be raw bytes.
        """
        try:
            return await self._run(processor, message, context, size_bytes, apart)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Not ours: the function let a cancellation of its own making escape.
            raise describe(error) from error
        except ProcessorError:
            raise
        except BaseException as error:
            # A Rust panic, KeyboardInterrupt, SystemExit: raised by the function, they are the row's failure. Ours is
            # a cancellation alone.
            raise describe(error) from error

    async def close(self) -> None:
        """Kill the children, let the threads end."""
        self._threads.close()
        await self._children.close()

    async def _run(self, processor: Processor, message: Any, context: Context, size_bytes: int, apart: bool) -> Outcome:
        if apart or processor.kind == "process":
            text = await self._children.run(
                processor.function,
                message,
                context,
                timeout_seconds=processor.timeout_seconds,
                memory_bytes=processor.memory_bytes,
                size_bytes=size_bytes,
            )
            return Outcome(text, _announced(processor, json.loads(text)) if processor.announce else ())
        if processor.kind == "thread":
            value, text = await self._threads.run(
                _call, processor, message, context, timeout_seconds=processor.timeout_seconds
            )
        else:
            value = await self._run_on_loop(processor, message, context)
            if json_value.is_small(value):
                text = json_value.encode(value)
            else:
                text = await in_default_thread(json_value.encode, value)
        return Outcome(text, _announced(processor, value))

    async def _run_on_loop(self, processor: Processor, message: Any, context: Context) -> Any:
        """What the function returned or raised, in a task of its own.

        One that cancels its task, or leaves a cancellation pending in it, harms that task alone. One that does not end
        when it is cancelled is waited for ``_CLEAN_UP_SECONDS``, then left to itself.
        """
        task = asyncio.create_task(_contained(processor, message, context), name=f"a run of {processor.name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            await asyncio.wait([task], timeout=processor.timeout_seconds)
            if not task.done():
                raise too_slow(processor.timeout_seconds)
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait([task], timeout=_CLEAN_UP_SECONDS)
        value, error = task.result()
        if error is not None:
            raise error
        return value


async def _contained(processor: Processor, message: Any, context: Context) -> tuple[Any, BaseException | None]:
    """(value, None) or (None, what was raised): a task that *raises* KeyboardInterrupt or SystemExit stops the loop."""
    try:
        return await processor.function(message, context), None
    except BaseException as error:  # noqa: BLE001 - handed over, not swallowed
        return None, error


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
