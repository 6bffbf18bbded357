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

    async def work(client: ServiceClient, _settings: Settings) -> JsonObject:
        if dry_run or not client.service_runs:
            # Without a service all is queued, and with --wait processed, before the answer.
            return await client.post("/v1/reprocess", {**wanted, "wait": wait}, unbounded=True)
        asked = await client.post("/v1/reprocess", wanted)
        return await _follow(client, asked, output, to_the_end=wait)

    answer = invocation.call(work)
    if json:
        output.json(answer)
    else:
        _show(output, answer, dry_run=dry_run)


def _cancel(context: typer.Context, processor: str, *, json: bool) -> None:
    from mailmill.cli.service_client import route

    invocation = invocation_of(context)
    output = invocation.output()

    async def work(client: ServiceClient, _settings: Settings) -> list[JsonObject]:
        asked = (await client.get("/v1/reprocess"))["reprocess"]
        at_work = [
            each["id"]
            for each in asked
            if each["processor"] == processor and each["state"] in ("running", "cancelling")
        ]
        cancelled = []
        for reprocess_id in at_work:
            try:
                cancelled.append(await client.delete(route("reprocess", reprocess_id)))
            except ServiceError as error:
                if error.code != "conflict":  # it was done meanwhile
                    raise
        return cancelled

    answers = invocation.call(work)
    if json:
        output.json({"cancelled": answers})
        return
    for answer in answers:
        output.line(
            f"{answer['state']}: {answer['dropped']:,} messages are not processed again by {answer['processor']} "
            f"version {answer['version']}, {answer['queued']:,} were or are"
        )
    if not answers:
        output.remark(f"nothing is being processed again by {one_line(processor, 80)}")


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
    with bars(output, time_left=True) as progress:
        bar = progress.add_task("counting", total=None)
        while not _is_over(asked, to_the_end=to_the_end):
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
    return asked["state"] == "done" or (asked["queuedAt"] is not None and not to_the_end)


def _show(output: Output, answer: JsonObject, *, dry_run: bool) -> None:
    name = f"{answer['processor']} version {answer['version']}"
    if dry_run:
        output.line(f"{answer['total']:,} messages would be processed again by {name}")
        return
    left = answer["left"] or 0
    if answer["state"] == "done":
        output.line(f"{answer['queued']:,} messages processed again by {name}")
    else:
        output.line(f"{answer['queued']:,} messages queued again for {name}, {left:,} left to process")
        output.remark("it goes on by itself; to see how much is left, run the same command with --wait")
    if answer["failed"]:
        output.remark(
            f"{answer['failed']:,} failed for good; see: mailmill queue list --state failed "
            f"--processor {answer['processor']}",
            "yellow",
        )
