"""``mailmill status``: how the service, its accounts and its queue are doing; ``--watch`` keeps looking."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mailmill.cli.commands.sync import no_account
from mailmill.cli.errors import NoAnswerError
from mailmill.cli.invocation import JsonOption, invocation_of
from mailmill.cli.safe_text import ago, duration, one_line

if TYPE_CHECKING:
    from rich.console import RenderableType

    from mailmill.cli.output import Cell, Output, Value
    from mailmill.cli.service_client import JsonObject, ServiceClient
    from mailmill.settings import Settings

WATCH_SECONDS = 1.0
MOST_ACCOUNTS = 30


def status(
    context: typer.Context,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Keep looking, until Ctrl-C.")] = False,
    json: JsonOption = False,
) -> None:
    """Show how the service, its accounts and its queue are doing."""
    invocation = invocation_of(context)
    output = invocation.output()

    async def work(client: ServiceClient, settings: Settings) -> None:
        if watch:
            await _watch(client, output)
            return
        figures, accounts = await _ask(client)
        if json:
            output.json(figures)
        else:
            show(output, figures, accounts, service_runs=client.service_runs)
            if not accounts and not settings.accounts:
                missing = no_account(settings)
                output.remark(missing.message, "yellow")
                output.remark(f"hint: {missing.hint}")
            link = await _page_link(client, settings, figures)
            if link:
                output.remark(f"its page (the link works once): {link}")

    invocation.call(work)


async def _page_link(client: ServiceClient, settings: Settings, figures: JsonObject) -> str:
    """A one-time link to the running service's page, or nothing where it has none that we could name."""
    if not client.service_runs or "api" not in figures["node"].get("roles", ()) or not settings.service.listen_port:
        return ""
    return f"{settings.service.page_url()}{(await client.post('/v1/login-link'))['path']}"


async def _ask(client: ServiceClient) -> tuple[JsonObject, list[JsonObject]]:
    figures, accounts = await asyncio.gather(client.get("/v1/status"), client.get("/v1/accounts"))
    return figures, accounts["accounts"]


async def _watch(client: ServiceClient, output: Output) -> None:
    if not output.on_terminal or output.as_json:
        while True:
            figures, _ = await _ask(client)
            output.json(figures, indent=None)
            await asyncio.sleep(WATCH_SECONDS)
    from rich.live import Live

    with Live(console=output.console, auto_refresh=False, screen=True) as live:
        while True:
            try:
                figures, accounts = await _ask(client)
            except NoAnswerError as error:
                raise NoAnswerError("the service has stopped", hint="start it with: mailmill run") from error
            seen = picture(figures, accounts, service_runs=client.service_runs, width=output.console.width)
            live.update(seen, refresh=True)
            await asyncio.sleep(WATCH_SECONDS)


def show(output: Output, figures: JsonObject, accounts: list[JsonObject], *, service_runs: bool) -> None:
    """Once: the same picture on a terminal, plain lines into a pipe."""
    if output.on_terminal:
        output.console.print(picture(figures, accounts, service_runs=service_runs, width=output.console.width))
        return
    output.fields(fields(figures, service_runs=service_runs))
    output.line("")
    if is_fleet(figures):
        output.table(node_columns(), node_rows(figures), empty="no nodes")
        output.line("")
    if accounts:
        output.table(account_columns(figures), account_rows(accounts, figures, service_runs=service_runs), empty="")


def picture(figures: JsonObject, accounts: list[JsonObject], *, service_runs: bool, width: int) -> RenderableType:
    """All of it as one Rich renderable."""
    from rich.table import Table
    from rich.text import Text

    from mailmill.cli.output import as_text, stacked

    grid = Table.grid(padding=(0, 2, 0, 0))
    for name, values in fields_in_parts(figures, service_runs=service_runs):
        grid.add_row(Text(name, style="dim"), Text.assemble(*(as_text(value) for value in values)))
    parts: list[RenderableType] = [grid]
    if is_fleet(figures):
        parts += [Text(), *_table(node_columns(), node_rows(figures), width)]
    if accounts:
        worst_first = sorted(accounts, key=lambda each: (not str(each["state"]).endswith("Error"), each["account"]))
        rows = account_rows(worst_first[:MOST_ACCOUNTS], figures, service_runs=service_runs)
        parts += [Text(), *_table(account_columns(figures), rows, width)]
        if len(accounts) > MOST_ACCOUNTS:
            parts.append(Text(f"… and {len(accounts) - MOST_ACCOUNTS} more: mailmill account list", style="dim"))
    return stacked(*parts)


def _table(columns: tuple[Any, ...], rows: list[tuple[Value, ...]], width: int) -> list[RenderableType]:
    from rich.text import Text

    from mailmill.cli.output import rich_table

    table, left_out = rich_table(columns, rows, width)
    return [table, Text(left_out, style="dim")] if left_out else [table]


def fields(figures: JsonObject, *, service_runs: bool) -> list[tuple[str, str]]:
    from mailmill.cli.output import plain

    parts = fields_in_parts(figures, service_runs=service_runs)
    return [(name, "".join(plain(value) for value in values)) for name, values in parts]


def fields_in_parts(figures: JsonObject, *, service_runs: bool) -> list[tuple[str, list[Value]]]:
    """Each line's name and its coloured pieces."""
    from mailmill.cli.output import Cell, stated

    node, queue, deliveries = figures["node"], figures["queue"], figures["deliveries"]
    runs = stated("ok", "running") if service_runs else Cell("not running", "yellow")
    about = f"  mailmill {node['version']}"
    if service_runs:
        about += f" · up {_up(node.get('startedAt'))} · {', '.join(node.get('roles', ()))}"
    accounts = figures["accounts"]
    if is_unserved(figures, service_runs=service_runs):
        accounts = {"without a service" if state == "disconnected" else state: accounts[state] for state in accounts}
    # Of what waits for its next attempt alone there is no oldest.
    oldest = queue["oldestSeconds"] if queue["pending"] else None
    waits: list[Value] = [] if oldest is None else [Cell(f" · oldest waits {duration(oldest)}")]
    if queue["paused"]:
        waits.append(Cell(f" · paused: {', '.join(queue['paused'])}", "yellow"))
    return [
        ("Service", [runs, Cell(about, "dim")]),
        ("Accounts", _counts(accounts, hide_zero=True) or [Cell("none", "dim")]),
        ("Messages", [f"{figures['messages']:,}", *_in_brackets(_counts(figures["threats"], hide_zero=True))]),
        ("Queue", [*_counts(queue, ("pending", "processing", "completed", "failed")), *waits]),
        ("Deliveries", _counts(deliveries, ("pending", "sending", "delivered", "failed"))),
    ]


def _counts(counts: dict[str, Any], names: tuple[str, ...] | None = None, *, hide_zero: bool = False) -> list[Value]:
    from mailmill.cli.output import Cell, stated

    parts: list[Value] = []
    for name in names or tuple(counts):
        if hide_zero and not counts[name]:
            continue
        if parts:
            parts.append(Cell(" · ", "dim"))
        text = f"{counts[name]:,} {one_line(name)}"
        parts.append(stated(name, text) if counts[name] else Cell(text, "dim"))
    return parts


def _in_brackets(parts: list[Value]) -> list[Value]:
    return ["  (", *parts, ")"] if parts else []


def _up(started_at: str | None) -> str:
    return ago(started_at, time.time()).removesuffix(" ago")


def is_fleet(figures: JsonObject) -> bool:
    """Whether there are nodes besides the one that answers."""
    return len(figures.get("nodes", ())) > 1


def node_columns() -> tuple[Any, ...]:
    from mailmill.cli.output import Column

    return (
        Column("Node", shrinks=True, least=16),
        Column("State"),
        Column("Heard", "right", leaves=4),
        Column("Shards", "right", leaves=2),
        Column("Accounts", "right"),
        Column("Up", "right", leaves=3),
        Column("Roles", leaves=1),
    )


def node_rows(figures: JsonObject) -> list[tuple[Value, ...]]:
    """A row per node, the one that answers in bold."""
    from mailmill.cli.output import Cell, stated

    here = figures["node"]["id"]
    return [
        (
            Cell(each["id"], "bold" if each["id"] == here else ""),
            stated(each["state"]),
            f"{duration(each['heartbeatAgeSeconds'])} ago",
            each["shards"],
            each["accounts"],
            "-" if each["state"] == "silent" else _up(each.get("startedAt")),
            ", ".join(each["roles"]) or "a command",
        )
        for each in figures["nodes"]
    ]


def account_columns(figures: JsonObject) -> tuple[Any, ...]:
    from mailmill.cli.output import Column

    node = (Column("Node", shrinks=True, least=8, leaves=5),) if is_fleet(figures) else ()
    return (
        Column("Account", shrinks=True, least=12),
        Column("State"),
        Column("Messages", "right", leaves=4),
        Column("Last full pass", "right", leaves=3),
        Column("Push", leaves=2),
        Column("Heard", "right", leaves=1),
        *node,
        Column("Remark", shrinks=True, least=32),
    )


def _push(account: JsonObject) -> str:
    """How news comes; with how late it may be of mailboxes that are not pushed."""
    push, sweep = account.get("push") or "-", account.get("sweepSeconds")
    return push if push == "notify" or not sweep else f"{push}, {duration(sweep)}"


def is_elsewhere(account: JsonObject, figures: JsonObject) -> bool:
    """Whether another node keeps it in sync: how that goes, only that node can say."""
    return is_fleet(figures) and account.get("node") != figures["node"]["id"]


def is_unserved(figures: JsonObject, *, service_runs: bool) -> bool:
    """Whether no service could keep an account connected: that none is says nothing of its server then."""
    return not service_runs and not is_fleet(figures)


def account_state(account: JsonObject, figures: JsonObject, *, service_runs: bool) -> Cell:
    from mailmill.cli.output import Cell, stated

    if account["state"] == "disconnected" and is_unserved(figures, service_runs=service_runs):
        return Cell("no service", "dim")
    return stated(account["state"])


def account_rows(accounts: list[JsonObject], figures: JsonObject, *, service_runs: bool) -> list[tuple[Value, ...]]:
    """A row per account; the remark is how far a first sync is, or why it is in the state it is in."""
    from mailmill.cli.output import Cell

    fleet = is_fleet(figures)
    rows: list[tuple[Value, ...]] = []
    for each in accounts:
        elsewhere = is_elsewhere(each, figures)
        progress, heard = each.get("progress"), each.get("secondsSinceLastRoundTrip")
        # Only the process that keeps it in sync can say how that goes.
        unknown = elsewhere or (heard is None and not each.get("lastSyncAt"))
        remark: Cell = Cell(each.get("stateReason") or "", "dim")
        if progress and progress["total"]:
            done = 100 * progress["stored"] // progress["total"]
            remark = Cell(f"first sync {done} %, {progress['stored']:,} of {progress['total']:,}", "cyan")
        rows.append(
            (
                Cell(each["account"], "bold"),
                account_state(each, figures, service_runs=service_runs),
                each["messages"],
                "-" if unknown else ago(each.get("lastSyncAt")),
                "-" if unknown else _push(each),
                "-" if heard is None or elsewhere else f"{duration(heard)} ago",
                *((each.get("node") or "-",) if fleet else ()),
                remark,
            )
        )
    return rows
