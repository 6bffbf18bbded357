"""Progress bars: on stderr while somebody waits, gone when the work is done. Imported where one is drawn, for Rich
takes its time to load.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from mailmill.cli.errors import NoAnswerError, ServiceError
from mailmill.cli.output import Output
from mailmill.cli.safe_text import one_line
from mailmill.cli.service_client import JsonObject

PROGRESS_SECONDS = 0.2


class _Count(MofNCompleteColumn):
    """``3/9``; nothing before it is known of how many."""

    def render(self, task: Task) -> Text:
        return super().render(task) if task.total is not None else Text()


def bars(output: Output, *, time_left: bool = False) -> Progress:
    """For the length of a block. Descriptions are shown as they are, and must be harmless."""
    columns: list[ProgressColumn] = [
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        _Count(),
    ]
    if time_left:
        columns.append(TimeRemainingColumn(compact=True))
    return Progress(*columns, console=output.remarks, transient=True, disable=not output.shows_progress)


async def with_bar(
    doing: str, asking: Awaitable[JsonObject], ask: Callable[[], Awaitable[JsonObject]], output: Output
) -> JsonObject:
    """Waits for ``asking`` and draws how far it is, which ``ask`` tells: ``{"running": {"phase", "done", "total"}}``,
    or null for ``running``. ``doing`` is what the bar is called before there is a phase. A question that fails spoils
    only the picture.
    """
    if not output.shows_progress:
        return await asking
    working = asyncio.ensure_future(asking)
    with bars(output) as progress:
        bar = progress.add_task(doing, total=None)
        try:
            while not working.done():
                await asyncio.wait({working}, timeout=PROGRESS_SECONDS)
                if working.done():
                    break
                try:
                    running = (await ask())["running"]
                except (ServiceError, NoAnswerError):
                    continue
                if running:
                    phase = one_line(running["phase"], 50) or doing
                    # To `update`, a total of None is none that is given.
                    progress.tasks[0].total = running["total"] or None
                    progress.update(bar, description=phase, completed=running["done"])
        finally:
            working.cancel()
        return await working
