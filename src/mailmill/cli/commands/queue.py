"""``mailmill queue``: work that is not done, and running what failed again."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from mailmill.cli.errors import UsageError
from mailmill.cli.invocation import JsonOption, invocation_of
from mailmill.cli.safe_text import ago, one_line

app = typer.Typer(help="Work on messages: what waits, runs or failed.")

ProcessorOption = Annotated[
    str | None, typer.Option("--processor", "-p", help="Only this processor's work.", metavar="NAME")
]


@app.command("list")
def list_queue(
    context: typer.Context,
    state: Annotated[
        Literal["pending", "waiting", "processing", "failed"] | None,
        typer.Option(help="Only work in this state; 'waiting' is for its next attempt's time."),
    ] = None,
    processor: ProcessorOption = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="At most so many.")] = 50,
    json: JsonOption = False,
) -> None:
    """List work that is not done."""
    invocation = invocation_of(context)
    output = invocation.output()
    answer = invocation.call(
        lambda client, _settings: client.get("/v1/queue", state=state, processor=processor, limit=limit)
    )
    if json:
        output.json(answer)
        return
    from mailmill.cli.output import Cell, Column, stated

    columns = (
        Column("Message", "right"),
        Column("Account"),
        Column("Processor"),
        Column("State"),
        Column("Attempt", "right"),
        Column("Queued", "right"),
        Column("Subject", shrinks=True),
        Column("Error", shrinks=True),
    )
    output.table(
        columns,
        (
            (
                str(each["messageId"]),
                Cell(each["account"], "dim"),
                each["processor"],
                stated(each["state"]),
                each["attempt"],
                ago(each.get("enqueuedAt")),
                one_line(each.get("subject") or ""),
                Cell(one_line(each.get("error") or "", 300), "red"),
            )
            for each in answer["queue"]
        ),
        empty="nothing waits, runs or has failed",
    )


@app.command()
def retry(
    context: typer.Context,
    ids: Annotated[
        list[str] | None, typer.Argument(help="Messages whose failed work is run again.", metavar="ID...")
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="All that failed.")] = False,
    processor: ProcessorOption = None,
    json: JsonOption = False,
) -> None:
    """Run failed work again, with a fresh count of attempts."""
    if ids and all_:
        raise UsageError("ids and --all do not go together", hint="name messages, or give --all")
    if not ids and not all_ and not processor:
        raise UsageError("nothing is named to be retried", hint="name messages, or give --all or --processor NAME")
    invocation = invocation_of(context)
    output = invocation.output()
    wanted = {"messageIds": ids or None, "processor": processor}
    answer = invocation.call(lambda client, _settings: client.post("/v1/queue/retry", wanted))
    if json:
        output.json(answer)
    else:
        output.line(f"{answer['retried']:,} queued again")
