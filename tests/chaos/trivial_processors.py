"""Two processors that do next to nothing: one on the loop, one in a thread. What they return says which mail it was.

Some mail is too much for the first at its first try.
"""

from __future__ import annotations

from typing import Any

from mailmill import processor

VERSIONS = {"on_loop": 1, "in_thread": 1}


@processor("on_loop", version=VERSIONS["on_loop"])
async def on_loop(message: Any, context: Any) -> str:
    if context.attempt == 1 and context.message_id % 9 == 0:
        raise RuntimeError("not at the first try")
    return str(message.summary.subject)


@processor("in_thread", version=VERSIONS["in_thread"])
def in_thread(message: Any, _context: Any) -> str:
    return str(message.summary.subject)
