"""``mailmill sync``: one pass over the accounts, with bars while a first sync runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mailmill.cli.errors import NoAnswerError, ServiceError, error_of, exit_code_of_accounts
from mailmill.cli.invocation import JsonOption, invocation_of
from mailmill.cli.safe_text import duration, one_line, size

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from mailmill.cli.output import Output
    from mailmill.cli.service_client import JsonObject, ServiceClient
    from mailmill.settings import Settings

MOST_BARS = 12

AccountsOption = Annotated[
    list[str] | None, typer.Option("--account", "-a", help="Only this account; may be repeated.", metavar="NAME")
]


def sync(
    context: typer.Context,
    account: AccountsOption = None,
    no_process: Annotated[
        bool, typer.Option("--no-process", help="Leave what came in queued instead of processing it.")
    ] = False,
    json: JsonOption = False,
) -> int:
    """Make one pass over all accounts, process what came, and say what changed."""
    invocation = invocation_of(context)
    output = invocation.output()
    wanted = {"accounts": account or None, "process": not no_process}

    async def work(client: ServiceClient, settings: Settings) -> JsonObject:
        if not client.service_runs and not settings.accounts:
            raise no_account(settings)
        passing = client.post("/v1/sync", wanted, unbounded=True)
        if not output.shows_progress:
            return await passing
        return await _with_bars(asyncio.ensure_future(passing), lambda: client.get("/v1/accounts"), output, account)

    report = invocation.call(work)
    if json:
        output.json(report)
    else:
        show_report(output, report)
    return exit_code_of_accounts(error_of(each["error"])[0] for each in report["accounts"] if each.get("error"))


def no_account(settings: Settings) -> ServiceError:
    """Nothing to sync: what a newcomer does about it."""
    from mailmill.app.newcomers import NO_ACCOUNT, how_to_add_one

    return ServiceError("configuration", NO_ACCOUNT, hint=how_to_add_one(settings))


async def _with_bars(
    passing: asyncio.Future[JsonObject],
    ask: Callable[[], Awaitable[JsonObject]],
    output: Output,
    only: list[str] | None,
) -> JsonObject:
    """Waits for ``passing`` and draws how far first syncs are. A question that fails spoils only the picture."""
    from mailmill.cli.bars import PROGRESS_SECONDS, bars

    with bars(output, time_left=True) as progress:
        drawn = _Bars(progress)
        try:
            while not passing.done():
                await asyncio.wait({passing}, timeout=PROGRESS_SECONDS)
                if passing.done():
                    break
                try:
                    answer = await ask()
                except (ServiceError, NoAnswerError):
                    continue
                drawn.draw([each for each in answer["accounts"] if not only or each["account"] in only])
        finally:
            passing.cancel()
        return await passing


class _Bars:
    """A bar per account in its first sync, the busiest ``MOST_BARS`` of them; before there are any, a spinner."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._waiting: TaskID | None = progress.add_task("syncing", total=None)
        self._tasks: dict[str, TaskID] = {}

    def draw(self, accounts: list[JsonObject]) -> None:
        for account in accounts:
            name, state = str(account["account"]), account.get("progress")
            task = self._tasks.get(name)
            if state is not None and task is None and len(self._tasks) < MOST_BARS:
                if self._waiting is not None:
                    self._progress.remove_task(self._waiting)
                    self._waiting = None
                task = self._tasks[name] = self._progress.add_task(one_line(name, 32), total=None)
            if task is None:
                continue
            if state is None:
                total = self._progress.tasks[self._progress.task_ids.index(task)].total
                self._progress.update(task, completed=total or 0)
            else:
                self._progress.update(task, completed=state["stored"], total=max(state["total"], state["stored"]))


def show_report(output: Output, report: JsonObject) -> None:
    """The summary table; what failed is explained below it, on stderr."""
    from mailmill.cli.output import Cell, Column, stated

    columns = (
        Column("Account", shrinks=True, least=12),
        Column("Mailboxes", "right", leaves=3),
        Column("New", "right"),
        Column("Updated", "right"),
        Column("Expunged", "right"),
        Column("Received", "right", leaves=4),
        Column("Time", "right", leaves=2),
        Column("Round trips", "right", leaves=1),
        Column("Result", shrinks=True, least=16),
    )
    accounts: list[dict[str, Any]] = report["accounts"]
    output.table(
        columns,
        (
            (
                Cell(each["account"], "bold"),
                each["mailboxes"],
                Cell(f"{each['new']:,}", "green" if each["new"] else "dim"),
                Cell(f"{each['updated']:,}", "" if each["updated"] else "dim"),
                Cell(f"{each['expunged']:,}", "" if each["expunged"] else "dim"),
                size(each["bytes"]),
                duration(each["seconds"]),
                each["round_trips"],
                stated("failed", error_of(each["error"])[0]) if each.get("error") else stated("ok"),
            )
            for each in accounts
        ),
        empty="no accounts",
    )
    if len(accounts) > 1:
        total = sum(each["new"] for each in accounts)
        output.remark(f"{len(accounts)} accounts, {total:,} new, {duration(report['seconds'])}")
    for each in accounts:
        if each.get("error"):
            _, message, hint = error_of(each["error"])
            name = each["account"]
            output.remark(message if name in message else f"account {name!r}: {message}", "red")
            if hint:
                output.remark(f"hint: {hint}")
