"""``mailmill envelope``: who wrote, about what, and what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mailmill.cli.invocation import JsonOption, invocation_of
from mailmill.cli.safe_text import moment, one_line

if TYPE_CHECKING:
    from mailmill.cli.output import Value
    from mailmill.cli.service_client import JsonObject, ServiceClient
    from mailmill.settings import Settings

app = typer.Typer(help="Messages at a glance.")

MOST_PER_PAGE = 500


@app.command("list")
def list_envelopes(
    context: typer.Context,
    account: Annotated[str | None, typer.Option("--account", "-a", help="Only this account.", metavar="NAME")] = None,
    mailbox: Annotated[
        str | None, typer.Option("--mailbox", "-m", help="Only this mailbox (needs --account).", metavar="PATH")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=100_000, help="At most so many.", metavar="N")] = 25,
    status: Annotated[
        Literal["pending", "processing", "completed", "failed"] | None,
        typer.Option(help="Where its processing stands: pending, processing, completed or failed.", metavar="STATE"),
    ] = None,
    verdict: Annotated[
        Literal["clean", "suspicious", "malicious"] | None,
        typer.Option(help="What the threat scan says: clean, suspicious or malicious.", metavar="VERDICT"),
    ] = None,
    json: JsonOption = False,
) -> None:
    """List messages, newest first."""
    from mailmill.cli.errors import UsageError
    from mailmill.cli.service_client import route

    if mailbox and not account:
        raise UsageError("--mailbox needs --account", hint="mailmill envelope list --account NAME --mailbox PATH")
    invocation = invocation_of(context)
    output = invocation.output()

    async def work(client: ServiceClient, _settings: Settings) -> JsonObject:
        path = route("account", account, "messages") if account else "/v1/messages"
        messages: list[JsonObject] = []
        cursor: str | None = None
        while True:
            page = await client.get(
                path,
                path=mailbox,
                pageSize=min(limit - len(messages), MOST_PER_PAGE),
                cursor=cursor,
                status=status,
                verdict=verdict,
            )
            messages += page["messages"]
            cursor = page.get("nextCursor")
            if cursor is None or not page["messages"] or len(messages) >= limit:
                return {"messages": messages, "nextCursor": cursor}

    answer = invocation.call(work)
    if json:
        output.json(answer)
        return
    from mailmill.cli.output import Column

    columns = (
        Column("Id", "right"),
        Column("Date", leaves=4),
        Column("From", shrinks=True, least=12),
        Column("Subject", shrinks=True, least=24),
        Column("Mailbox", shrinks=True, least=8, leaves=2),
        Column("Category", leaves=1),
        Column("Verdict"),
        Column("Status", leaves=3),
    )
    output.table(columns, (_row(each) for each in answer["messages"]), empty="no messages")
    if answer["nextCursor"]:
        output.remark(f"there are more; show them with --limit {limit * 4}")


def _row(message: JsonObject) -> tuple[Value, ...]:
    from mailmill.cli.output import Cell, stated

    sender = message.get("from") or {}
    threat = message.get("threat") or {}
    seen = "\\Seen" in (message.get("flags") or ())
    return (
        Cell(str(message["id"]), "dim"),
        Cell(moment(message.get("date")), "dim"),
        one_line(sender.get("name") or sender.get("address") or "-"),
        Cell(one_line(message.get("subject") or "(no subject)"), "" if seen else "bold"),
        Cell(one_line(message.get("path") or "-"), "dim"),
        message.get("category") or "-",
        stated(threat.get("verdict")),
        stated(message.get("status")),
    )
