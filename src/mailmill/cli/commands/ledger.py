"""The processing ledger of a message as ``message read --processing`` shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailmill.cli.safe_text import duration, moment, one_line

if TYPE_CHECKING:
    from mailmill.cli.output import Output
    from mailmill.cli.service_client import JsonObject


def show_ledger(output: Output, held: JsonObject) -> None:
    """A line for each result and each open row of work, then what went wrong on the way, oldest first."""
    from mailmill.cli.output import Cell, Column, stated

    columns = (
        Column("Processor"),
        Column("Version", "right"),
        Column("State"),
        Column("Runs", "right"),
        Column("Crashes", "right"),
        Column("Time", "right"),
        Column("At"),
    )
    # `attempts` counts the run that succeeded, `attempt` those that failed.
    done = [
        (
            one_line(each["processor"]),
            each["version"],
            stated("completed", "completed" if each["served"] else "older"),
            each["attempts"],
            sum(error["kind"] == "crash" for error in each["errors"]),
            duration(each["seconds"]),
            moment(each["finishedAt"]),
        )
        for each in held["results"]
    ]
    still = [
        (
            one_line(each["processor"]),
            each["version"],
            stated(each["state"]),
            each["attempt"],
            each["crashes"],
            None,
            moment(each["runAt"] if each["state"] == "waiting" else each["enqueuedAt"]),
        )
        for each in held["work"]
    ]
    output.table(columns, [*done, *still], empty="no processor has had this message")
    for each in (*held["results"], *held["work"]):
        for error in each["errors"]:
            output.line(
                Cell(f"{moment(error['at'])}  ", "dim"),
                f"{one_line(each['processor'])} {each['version']}  ",
                Cell(f"{error['kind']}: ", "red"),
                one_line(error["error"], 300),
            )
