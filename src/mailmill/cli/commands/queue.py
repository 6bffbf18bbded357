"""``mailmill queue``: work that is not done; running what failed again, giving it up, pausing a processor."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from mailmill.cli.errors import OK, ServiceError, UsageError, exit_code
from mailmill.cli.invocation import JsonOption, invocation_of
from mailmill.cli.safe_text import ago, moment, one_line

if TYPE_CHECKING:
    from mailmill.cli.invocation import Invocation
    from mailmill.cli.output import Output
    from mailmill.cli.service_client import ServiceClient
    from mailmill.errors import MailmillError
    from mailmill.settings import Settings

app = typer.Typer(help="Work on messages: what waits, runs or failed.")

ProcessorOption = Annotated[
    str | None, typer.Option("--processor", "-p", help="Only this processor's work.", metavar="NAME")
]
ProcessorArgument = Annotated[str, typer.Argument(help="The processor's name.", metavar="PROCESSOR")]

_NAMED: Final = 10
_PRIORITIES = {0: "new mail", 10: "backlog"}


@app.command("list")
def list_queue(
    context: typer.Context,
    state: Annotated[
        Literal["pending", "waiting", "throttled", "processing", "failed"] | None,
        typer.Option(
            help="Only work in this state: pending, waiting (for its next attempt's time), throttled (for fewer of its "
            "account in processing), processing or failed.",
            metavar="STATE",
        ),
    ] = None,
    processor: ProcessorOption = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="At most so many.", metavar="N")] = 50,
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
        Column("Account", shrinks=True, least=12, leaves=4),
        Column("Processor"),
        Column("State"),
        Column("Attempt", "right", leaves=2),
        Column("Crashes", "right", leaves=1),
        Column("Queued", "right", leaves=3),
        Column("Subject", shrinks=True, least=12),
        Column("Error", shrinks=True, least=24),
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
                each["crashes"],
                ago(each.get("enqueuedAt")),
                one_line(each.get("subject") or ""),
                Cell(one_line(each.get("error") or "", 300), "red"),
            )
            for each in answer["queue"]
        ),
        empty="nothing waits, runs or has failed",
    )


@app.command()
def show(
    context: typer.Context,
    message_id: Annotated[str, typer.Argument(help="The message.", metavar="ID")],
    json: JsonOption = False,
) -> None:
    """Show what is left to do for a message, and all that went wrong so far."""
    from mailmill.cli.service_client import route

    invocation = invocation_of(context)
    output = invocation.output()
    answer = invocation.call(lambda client, _settings: client.get(route("queue", message_id)))
    if json:
        output.json(answer)
        return
    if not answer["queue"]:
        output.remark("nothing is left to do for it")
    for number, row in enumerate(answer["queue"]):
        if number:
            output.line("")
        _show_row(output, row)


def _show_row(output: Output, row: dict[str, Any]) -> None:
    from mailmill.cli.output import Cell, Column, stated

    output.fields(
        [
            ("Message", Cell(f"{row['messageId']} · {one_line(row.get('subject') or '')}", "bold")),
            ("Account", row["account"]),
            ("Processor", f"{row['processor']}, version {row['version']}"),
            ("State", stated(row["state"])),
            ("Priority", _PRIORITIES.get(row["priority"], str(row["priority"]))),
            ("Failed runs", row["attempt"]),
            ("Crashes", row["crashes"]),
            ("Queued", moment(row.get("enqueuedAt"))),
            ("Next try", moment(row.get("runAt")) if row["state"] == "waiting" else "-"),
            ("Held by", row.get("worker") or "-"),
        ]
    )
    if row["errors"]:
        output.table(
            (Column("At"), Column("What"), Column("Error", shrinks=True)),
            (
                (
                    moment(each["at"]),
                    "a worker died" if each["kind"] == "crash" else "a run failed",
                    Cell(one_line(each["error"]), "red"),
                )
                for each in row["errors"]
            ),
            empty="",
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
) -> int:
    """Run failed work again, with a fresh count of attempts."""
    _check_named(ids, all_, processor, "retried")
    invocation = invocation_of(context)
    output = invocation.output()
    wanted = {"messageIds": ids or None, "processor": processor}
    answer = _sweep(invocation, output, "/v1/queue/retry", wanted)
    return _tell(output, answer, f"{answer['retried']:,} queued again", _left_out(answer, processor, "has failed"))


@app.command()
def drop(
    context: typer.Context,
    ids: Annotated[
        list[str] | None, typer.Argument(help="Messages whose failed work is given up.", metavar="ID...")
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="All that failed.")] = False,
    processor: ProcessorOption = None,
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="Also what waits or runs, and not only what failed.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: JsonOption = False,
) -> int:
    """Give work up: it is never run, and its messages count as completed."""
    _check_named(ids, all_, processor, "dropped")
    _confirm(ids, processor, unfinished=unfinished, sure=yes)
    invocation = invocation_of(context)
    output = invocation.output()
    wanted = {
        "messageIds": ids or None,
        "processor": processor,
        "all": all_,
        "state": "any" if unfinished else "failed",
    }
    answer = _sweep(invocation, output, "/v1/queue/drop", wanted)
    if unfinished:
        left_out = _left_out(answer, processor, "is left")
    else:
        left_out = _left_out(
            answer, processor, "has failed", hint="with --unfinished what waits or runs is given up, too"
        )
    return _tell(output, answer, f"{answer['dropped']:,} given up", left_out)


def _sweep(invocation: Invocation, output: Output, path: str, wanted: dict[str, Any]) -> dict[str, Any]:
    """Ask for what may take minutes, and draw how far it is. Ctrl-C ends it; what is done stays done."""
    from mailmill.cli.bars import with_bar

    async def work(client: ServiceClient, _settings: Settings) -> dict[str, Any]:
        asking = client.post(path, wanted, unbounded=True)
        return await with_bar("looking", asking, lambda: client.get("/v1/queue/operation"), output)

    return invocation.call(work)


def _left_out(answer: dict[str, Any], processor: str | None, state: str, *, hint: str = "") -> MailmillError | None:
    """The messages that were named and are not there, or have no work in this ``state``; None where there are none."""
    unknown, unaffected = answer["unknown"], answer["unaffected"]
    lines: list[str] = []
    if unknown:
        lines.append(f"there {'is' if len(unknown) == 1 else 'are'} no {_messages(unknown)}")
    if unaffected:
        kind = f"work for {processor}" if processor else "work"
        lines.append(f"no {kind} of {_messages(unaffected)} {state}")
    if not lines:
        return None
    return ServiceError("notFound" if unknown else "error", "\n".join(lines), hint=hint if unaffected else "")


def _messages(ids: list[str]) -> str:
    more = f" and {len(ids) - _NAMED:,} more" if len(ids) > _NAMED else ""
    return f"message{'s' if len(ids) > 1 else ''} {', '.join(ids[:_NAMED])}{more}"


def _tell(output: Output, answer: dict[str, Any], done: str, left_out: MailmillError | None) -> int:
    """What was done stands before what was not. Raises ``left_out``, or returns its exit code: one JSON document."""
    if output.as_json:
        output.json(answer)
        return OK if left_out is None else exit_code(left_out.code)
    output.line(done)
    if left_out is not None:
        raise left_out
    return OK


@app.command()
def pause(context: typer.Context, processor: ProcessorArgument, json: JsonOption = False) -> None:
    """Have no node run a processor; work for it still queues."""
    _set(context, "pause", processor, json=json)


@app.command()
def resume(context: typer.Context, processor: ProcessorArgument, json: JsonOption = False) -> None:
    """Run a processor that was paused again."""
    _set(context, "resume", processor, json=json)


def _set(context: typer.Context, action: Literal["pause", "resume"], processor: str, *, json: bool) -> None:
    invocation = invocation_of(context)
    output = invocation.output()
    answer = invocation.call(lambda client, _settings: client.post(f"/v1/queue/{action}", {"processor": processor}))
    if json:
        output.json(answer)
        return
    already = "" if answer["changed"] else " already"
    output.line(f"{processor} is {'paused' if answer['paused'] else 'running'}{already}")


def _check_named(ids: list[str] | None, all_: bool, processor: str | None, done: str) -> None:
    if ids and all_:
        raise UsageError("ids and --all do not go together", hint="name messages, or give --all")
    if not ids and not all_ and not processor:
        raise UsageError(f"nothing is named to be {done}", hint="name messages, or give --all or --processor NAME")


def _confirm(ids: list[str] | None, processor: str | None, *, unfinished: bool, sure: bool) -> None:
    """Ask whoever sits at a terminal; scripts said what they want."""
    if sure or not sys.stdin.isatty():
        return
    what = "all work" if unfinished else "the failed work"
    of_messages = f" of {len(ids):,} message{'s' if len(ids) > 1 else ''}" if ids else ""
    for_processor = f" for {processor}" if processor else ""
    typer.confirm(f"Give up {what}{of_messages}{for_processor}? There will be no result.", abort=True, err=True)
