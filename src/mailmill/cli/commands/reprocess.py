"""``mailmill reprocess``: a processor run again over mail that is there."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from mailmill.cli.commands.sync import AccountsOption
from mailmill.cli.errors import NoAnswerError, ServiceError, UsageError
from mailmill.cli.invocation import JsonOption, invocation_of
from mailmill.cli.safe_text import one_line
from mailmill.errors import MailmillError

if TYPE_CHECKING:
    from mailmill.cli.output import Output
    from mailmill.cli.service_client import JsonObject, ServiceClient
    from mailmill.settings import Settings

# A service that is just restarted may not answer for a while; what was asked for goes on meanwhile.
_PATIENCE_SECONDS = 60.0


def reprocess(
    context: typer.Context,
    processor: Annotated[str, typer.Option("--processor", "-p", help="The processor to run again.", metavar="NAME")],
    account: AccountsOption = None,
    mailbox: Annotated[
        list[str] | None,
        typer.Option("--mailbox", help="Only messages in this mailbox now; may be repeated.", metavar="PATH"),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(help="Only messages received then or later: 2026-05-04, or with a time.", metavar="DATE"),
    ] = None,
    until: Annotated[str | None, typer.Option(help="Only messages received before.", metavar="DATE")] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Only messages whose work failed for good.")] = False,
    version_below: Annotated[
        int | None,
        typer.Option(
            min=1, help="Messages whose newest result is of a version below; else below the one that runs.", metavar="N"
        ),
    ] = None,
    all_: Annotated[
        bool, typer.Option("--all", help="Also messages that have a result of the version that runs.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many messages it would be.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until all is processed, not only queued.")] = False,
    cancel: Annotated[
        bool, typer.Option("--cancel", help="Cancel what was asked so for the processor; what has begun goes on.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Run a processor again over messages that are there."""
    if all_ and (failed or version_below is not None):
        raise UsageError("--all goes neither with --failed nor with --version-below", hint="choose one of them")
    if dry_run and wait:
        raise UsageError("--dry-run and --wait do not go together", hint="choose one of them")
    if cancel:
        if any((account, mailbox, since, until, failed, version_below, all_, dry_run, wait)):
            raise UsageError("--cancel goes with --processor alone", hint="all that runs for it is cancelled")
        _cancel(context, processor, json=json)
        return
    wanted = {
        "processor": processor,
        "accounts": account or [],
        "mailboxes": mailbox or [],
        "since": moment_of("--since", since),
        "until": moment_of("--until", until),
        "failed": failed,
        "versionBelow": version_below,
        "all": all_,
        "dryRun": dry_run,
    }
    invocation = invocation_of(context)
    output = invocation.output()

    async def work(client: ServiceClient, _settings: Settings) -> tuple[JsonObject, bool]:
        if dry_run or not client.service_runs:
            # Without a service all is queued, and with --wait processed, before the answer.
            return await client.post("/v1/reprocess", {**wanted, "wait": wait}, unbounded=True), client.service_runs
        asked = await client.post("/v1/reprocess", wanted)
        if asked["joined"] and not json:
            _tell_joined(output, asked)
        return await _follow(client, asked, output, to_the_end=wait), True

    answer, by_service = invocation.call(work)
    if json:
        output.json(answer)
    elif dry_run:
        output.line(f"{answer['total']:,} messages would be processed again by {_name(answer)}")
    else:
        if answer.get("joined") and not by_service:
            _tell_joined(output, answer)
        _show(output, answer, by_service=by_service)
    if wait and answer["state"] in ("cancelling", "cancelled"):
        raise MailmillError("it was cancelled before all was processed", hint="ask for it again with the same command")


def _cancel(context: typer.Context, processor: str, *, json: bool) -> None:
    invocation = invocation_of(context)
    output = invocation.output()
    answer = invocation.call(lambda client, _settings: client.delete("/v1/reprocess", processor=processor))
    cancelled = answer["cancelled"]
    if json:
        output.json(answer)
    elif not cancelled:
        output.remark(f"nothing is being processed again by {one_line(processor, 80)}")
    else:
        over = all(each["state"] == "cancelled" for each in cancelled)
        output.line(
            f"{'cancelled' if over else 'cancelling'}: {answer['dropped']:,} messages are not processed again by "
            f"{_name(cancelled[-1])}, {answer['begun']:,} were or are"
        )


def moment_of(option: str, text: str | None) -> str | None:
    """What a person wrote, as ISO 8601 in UTC; a time without a zone is local. Raises UsageError."""
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text).astimezone(UTC).isoformat()
    except (ValueError, OverflowError):
        raise UsageError(
            f"{option}: {one_line(text, 40)!r} is no date", hint="write 2026-05-04 or 2026-05-04T13:30"
        ) from None


async def _follow(client: ServiceClient, asked: JsonObject, output: Output, *, to_the_end: bool) -> JsonObject:
    """Ask how far it is until all is queued, or (``to_the_end``) processed. Ctrl-C stops the asking alone."""
    from mailmill.cli.bars import PROGRESS_SECONDS, bars

    loop = asyncio.get_running_loop()
    heard_at = loop.time()
    told_paused = False
    with bars(output, time_left=True) as progress:
        bar = progress.add_task("counting", total=None)
        while not _is_over(asked, to_the_end=to_the_end):
            if to_the_end and asked["paused"] and not told_paused:
                _tell_paused(output, asked)
            told_paused = asked["paused"]
            await asyncio.sleep(PROGRESS_SECONDS)
            try:
                asked = await client.get(f"/v1/reprocess/{asked['id']}")
                heard_at = loop.time()
            except (NoAnswerError, ServiceError) as error:
                if loop.time() - heard_at > _PATIENCE_SECONDS or getattr(error, "code", "") == "notFound":
                    raise
                continue
            if asked["total"] is not None:
                done = asked["total"] - asked["left"] if to_the_end else asked["queued"]
                progress.update(
                    bar, description="processing" if to_the_end else "queueing", completed=done, total=asked["total"]
                )
    return asked


def _is_over(asked: JsonObject, *, to_the_end: bool) -> bool:
    return asked["state"] in ("done", "cancelled") or (asked["queuedAt"] is not None and not to_the_end)


def _show(output: Output, answer: JsonObject, *, by_service: bool) -> None:
    left = answer["left"] or 0
    if answer["state"] == "done":
        output.line(f"{answer['total']:,} messages processed again by {_name(answer)}")
    elif answer["state"] in ("cancelling", "cancelled"):
        output.line(f"{answer['state']}: {answer['queued']:,} messages were or are processed again by {_name(answer)}")
    else:
        output.line(f"{answer['queued']:,} messages queued again for {_name(answer)}, {left:,} left to process")
        if answer["paused"]:
            _tell_paused(output, answer)
        elif by_service:
            output.remark("it goes on by itself; to see how much is left, run the same command with --wait")
        else:
            output.remark("it goes on when the service runs: mailmill run")
    if answer["failed"]:
        output.remark(
            f"{answer['failed']:,} failed for good; see: mailmill queue list --state failed "
            f"--processor {answer['processor']}",
            "yellow",
        )


def _tell_joined(output: Output, answer: JsonObject) -> None:
    output.remark(f"the same was asked for at {answer['createdAt']} and is not over: nothing is queued twice")


def _tell_paused(output: Output, answer: JsonObject) -> None:
    output.remark(f"{answer['processor']} is paused: mailmill queue resume {answer['processor']}", "yellow")


def _name(answer: JsonObject) -> str:
    return f"{answer['processor']} version {answer['version']}"
