"""``mailmill db``: the store as a whole."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mailmill.cli.errors import FAILED, OK
from mailmill.cli.invocation import JsonOption, invocation_of
from mailmill.cli.safe_text import duration, moment, one_line, size

if TYPE_CHECKING:
    from mailmill.cli.output import Output
    from mailmill.cli.service_client import JsonObject, ServiceClient
    from mailmill.settings import Settings

FETCH_AGAIN = "mailmill verify --full --repair fetches again what the mail server still has"

app = typer.Typer(help="The store as a whole: upgrade it, check it, back it up and restore it.")


@app.command()
def upgrade(context: typer.Context, json: JsonOption = False) -> None:
    """Bring the database to this version's schema, without starting anything."""
    from mailmill.app import restoring

    invocation = invocation_of(context)
    output = invocation.output()
    settings = invocation.settings()
    invocation.quiet_logs()
    answer = invocation.run(restoring.upgrade(settings))
    if json:
        output.json(answer)
    else:
        output.line(f"the database is at schema {answer['revision']}")


@app.command()
def check(
    context: typer.Context,
    full: Annotated[
        bool, typer.Option("--full", help="Also read all raw mail and compare it with its hashes.")
    ] = False,
    json: JsonOption = False,
) -> int:
    """Look for what is broken in the database and in the raw mail; nothing is changed."""
    from mailmill.cli.bars import with_bar
    from mailmill.cli.output import Cell, Column

    invocation = invocation_of(context)
    output = invocation.output()

    async def work(client: ServiceClient, _settings: Settings) -> JsonObject:
        asking = client.post("/v1/database/check", {"full": full}, unbounded=True)
        return await with_bar("checking", asking, lambda: client.get("/v1/database"), output)

    report = invocation.call(work, makes_store=False)
    if json:
        output.json(report)
        return OK if report["ok"] else FAILED
    if report["findings"]:
        columns = (Column("Check"), Column("Count", "right"), Column("What", shrinks=True))
        rows = [
            (Cell(each["check"], "bold red"), each["count"], one_line(each["detail"])) for each in report["findings"]
        ]
        output.table(columns, rows, empty="")
        for hint in dict.fromkeys(each["hint"] for each in report["findings"]):
            output.remark(f"hint: {hint}")
        return FAILED
    read = f", {report['blobsRead']:,} raw messages read" if report["full"] else ""
    output.line(
        Cell("ok", "green"),
        f"  {len(report['checks'])} checks, {report['segments']:,} segments{read}, in {duration(report['seconds'])}",
    )
    if not report["full"]:
        output.remark("raw mail was not read; --full compares all of it with its hashes")
    return OK


@app.command()
def backup(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="The folder to make.", metavar="FOLDER")],
    json: JsonOption = False,
) -> int:
    """Copy database and raw mail into a new folder, while the service runs."""
    from mailmill.cli.bars import with_bar

    invocation = invocation_of(context)
    output = invocation.output()
    target = str(folder.expanduser().absolute())

    async def work(client: ServiceClient, _settings: Settings) -> JsonObject:
        asking = client.post("/v1/database/backup", {"folder": target}, unbounded=True)
        return await with_bar("backing up", asking, lambda: client.get("/v1/database"), output)

    report = invocation.call(work, makes_store=False)
    whole = not report.get("missingSegments")
    if json:
        output.json(report)
        return OK if whole else FAILED
    show_copy(output, report)
    if not whole:
        output.remark(
            f"the backup was made and is not whole: {report['missingSegments']:,} segments of raw mail are gone, with"
            f" the raw bytes of {report['messagesWithoutRaw']:,} messages",
            "red",
        )
        output.remark(f"hint: {FETCH_AGAIN}; then make another backup")
    output.remark("the master key is not in it: keep MAILMILL_KEY, key_file or data_dir/master.key at another place")
    return OK if whole else FAILED


@app.command()
def restore(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="A backup that `mailmill db backup` made.", metavar="FOLDER")],
    json: JsonOption = False,
) -> None:
    """Put a backup into the empty data folder of the configuration."""
    from mailmill.app import restoring
    from mailmill.cli.bars import with_bar

    invocation = invocation_of(context)
    output = invocation.output()
    settings = invocation.settings()
    invocation.quiet_logs()

    async def work() -> JsonObject:
        running: dict[str, Any] = {}

        def tell(phase: str, done: int, total: int) -> None:
            running.update(phase=phase, done=done, total=total)

        async def ask() -> JsonObject:
            return {"running": running or None}

        asking = restoring.restore(settings, folder.expanduser().absolute(), tell)
        return await with_bar("restoring", asking, ask, output)

    report = invocation.run(work())
    if json:
        output.json(report)
        return
    show_copy(output, report)
    if report["segmentsAt"]:
        output.remark(
            f"raw mail was not copied: it is read from {report['segmentsAt']}. Never run this store and the one it was "
            "copied from on it at once: each would remove what only the other names",
            "yellow",
        )
    if report["missingSegments"]:
        output.remark(
            f"{report['missingSegments']:,} segments of raw mail were gone when the backup was made: what was in them"
            " has no raw bytes here",
            "yellow",
        )
        output.remark(f"hint: {FETCH_AGAIN}")
    output.remark("no raw mail is removed until you say that this store takes the other's place: mailmill db adopt")
    output.remark("put the master key in its place before you start the service; see: mailmill doctor")


@app.command()
def adopt(
    context: typer.Context,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: JsonOption = False,
) -> None:
    """Let a restored store remove raw mail that it does not name: no other store uses its folder or bucket."""
    from mailmill.app import restoring

    invocation = invocation_of(context)
    output = invocation.output()
    settings = invocation.settings()
    invocation.quiet_logs()
    if not yes and sys.stdin.isatty():
        place = settings.service.blob_url or settings.service.data_dir / "blobs"
        typer.confirm(
            f"Raw mail at {one_line(str(place), 200)} that this database does not name will be deleted. Is it sure that"
            " no other store uses it?",
            abort=True,
            err=True,
        )
    answer = invocation.run(restoring.adopt(settings))
    if json:
        output.json(answer)
    elif answer["adopted"]:
        output.line("adopted: raw mail that this database does not name is removed from now on")
    else:
        output.line("nothing to do: this store was not restored, or was adopted before")


def show_copy(output: Output, report: JsonObject) -> None:
    from mailmill.cli.output import Cell

    mail = f"{report['segments']:,} segments"
    if report["segmentsAt"]:
        mail = f"not copied: it stays at {report['segmentsAt']}"
    output.fields(
        [
            ("Backup", Cell(report["folder"], "bold")),
            *([("Data folder", Cell(report["dataDir"], "bold"))] if "dataDir" in report else []),
            ("Made", moment(report["createdAt"])),
            ("Schema", report["revision"]),
            ("Raw mail", mail),
            ("Size", size(report["bytes"])),
        ]
    )
