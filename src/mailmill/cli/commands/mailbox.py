"""``mailmill mailbox``: what an account has on its server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mailmill.cli.invocation import JsonOption, invocation_of
from mailmill.cli.safe_text import ago

if TYPE_CHECKING:
    from mailmill.cli.service_client import JsonObject, ServiceClient
    from mailmill.settings import Settings

app = typer.Typer(help="Mailboxes of an account.")


@app.command("list")
def list_mailboxes(
    context: typer.Context,
    account: Annotated[
        str | None, typer.Option("--account", "-a", help="Only this account; else all.", metavar="NAME")
    ] = None,
    json: JsonOption = False,
) -> None:
    """List mailboxes and how far each is synced."""
    from mailmill.cli.output import Cell, Column
    from mailmill.cli.service_client import route

    invocation = invocation_of(context)
    output = invocation.output()

    async def work(client: ServiceClient, _settings: Settings) -> list[JsonObject]:
        accounts = (
            [account] if account else [str(one["account"]) for one in (await client.get("/v1/accounts"))["accounts"]]
        )
        return [
            {"account": name, **mailbox}
            for name in accounts
            for mailbox in (await client.get(route("account", name, "mailboxes")))["mailboxes"]
        ]

    mailboxes = invocation.call(work)
    if json:
        output.json({"mailboxes": mailboxes})
        return
    columns = (
        Column("Account", shrinks=True, least=12, leaves=4),
        Column("Mailbox", shrinks=True, least=20),
        Column("Use", leaves=2),
        Column("Messages", "right"),
        Column("To fetch", "right", leaves=3),
        Column("Last sync", "right", leaves=1),
    )
    output.table(
        columns,
        (
            (
                Cell(each["account"], "dim"),
                each["path"],
                Cell((each.get("specialUse") or "").removeprefix("\\"), "cyan"),
                each["messages"],
                each.get("uncovered") or 0,
                ago(each.get("lastSyncAt")),
            )
            for each in mailboxes
        ),
        empty="no mailboxes yet; fetch them with: mailmill sync",
    )
