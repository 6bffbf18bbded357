"""``mailmill verify``: is what we hold what the servers hold?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mailmill.cli.commands.sync import AccountsOption, no_account
from mailmill.cli.errors import FAILED, OK, NoAnswerError, ServiceError, error_of, exit_code_of_accounts
from mailmill.cli.invocation import JsonOption, invocation_of
from mailmill.cli.safe_text import duration, one_line

if TYPE_CHECKING:
    from mailmill.cli.output import Cell, Output
    from mailmill.cli.service_client import JsonObject, ServiceClient
    from mailmill.settings import Settings

# Shown of one gap's UIDs.
_UIDS_WIDTH = 40

_STYLES = {"pending": "yellow", "parked": "yellow", "flags": "yellow", "cursor": "yellow"}


def verify(
    context: typer.Context,
    account: AccountsOption = None,
    full: Annotated[
        bool, typer.Option("--full", help="Compare the contents of all messages, not of a sample.")
    ] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Make the store equal to the server.")] = False,
    seed: Annotated[
        int | None,
        typer.Option("--seed", help="Choose the sample by this number, so that it can be chosen again.", metavar="N"),
    ] = None,
    json: JsonOption = False,
) -> int:
    """Compare what is stored with what the servers hold, and name every gap."""
    from mailmill.cli.bars import with_bar

    invocation = invocation_of(context)
    output = invocation.output()
    wanted = {"accounts": account or None, "full": full, "repair": repair, "seed": seed}

    async def work(client: ServiceClient, settings: Settings) -> tuple[JsonObject, frozenset[str]]:
        if not client.service_runs and not settings.accounts:
            raise no_account(settings)
        looking = client.post("/v1/verify", wanted, unbounded=True)
        report = await with_bar("verifying", looking, lambda: _how_far(client), output)
        return report, await _left_to_others(client, report, frozenset(account or ()))

    report, left = invocation.call(work)
    if json:
        output.json(report)
    else:
        show_report(output, report, left)
    return exit_code(report, left)


def exit_code(report: JsonObject, left: frozenset[str] = frozenset()) -> int:
    """As for sync where an account failed; else whether there are gaps. Of several nodes each answers for the accounts
    but those that are ``left`` to others; where it looked at none it answers for nothing.
    """
    failures = [each for each in report["accounts"] if each.get("error")]
    if len(failures) < len(report["accounts"]):
        failures = [each for each in failures if each["account"] not in left]
    failed = exit_code_of_accounts(error_of(each["error"])[0] for each in failures)
    if any(each["counts"] for each in report["accounts"]):
        return FAILED if failed in (OK, FAILED) else failed
    return failed


async def _left_to_others(client: ServiceClient, report: JsonObject, named: frozenset[str]) -> frozenset[str]:
    """The accounts that were not looked at since another node keeps them in sync, and that nobody had ``named``."""
    refused = {
        each["account"]
        for each in report["accounts"]
        if each.get("error") and error_of(each["error"])[0] == "conflict" and each["account"] not in named
    }
    if not refused:
        return frozenset()
    try:
        figures = await client.get("/v1/status")
        accounts = (await client.get("/v1/accounts"))["accounts"]
    except (ServiceError, NoAnswerError):
        # What the look found is not lost with it; that somebody else looks at the rest is not known.
        return frozenset()
    return kept_by_others(accounts, figures) & refused


def kept_by_others(accounts: list[JsonObject], figures: JsonObject) -> frozenset[str]:
    """The accounts whose node is another one than the one that answers, is alive and syncs.

    One that is paused, or whose node is gone, has none; one whose task hangs has a node that does not keep it; and a
    command that has borrowed one counts as its node for that moment.
    """
    keepers = {node["id"] for node in figures["nodes"] if node["state"] == "alive" and "sync" in node["roles"]}
    return frozenset(each["account"] for each in accounts if each.get("node") in keepers - {figures["node"]["id"]})


async def _how_far(client: ServiceClient) -> JsonObject:
    answer = await client.get("/v1/verify")
    running = [(each["account"], each["running"]) for each in answer["accounts"] if each["running"]]
    if not running:
        return {"running": None}
    name, state = running[0]
    return {
        "running": {
            "phase": f"{name}: {state['phase']} {state['mailbox']}",
            "done": sum(each["done"] for _, each in running),
            "total": sum(each["total"] for _, each in running),
        }
    }


def show_report(output: Output, report: JsonObject, left: frozenset[str] = frozenset()) -> None:
    """The summary, then every gap; what failed is explained on stderr. Of those ``left`` to others, how many."""
    from mailmill.cli.output import Cell, Column

    answered: list[dict[str, Any]] = report["accounts"]
    accounts = [each for each in answered if each["account"] not in left]
    columns = (
        Column("Account", shrinks=True, least=12),
        Column("Mailboxes", "right", leaves=2),
        Column("Messages", "right", leaves=4),
        Column("Contents", "right", leaves=3),
        Column("Gaps", "right"),
        Column("Repaired", "right"),
        Column("Time", "right", leaves=1),
        Column("Result", shrinks=True, least=16),
    )
    output.table(
        columns,
        (
            (
                Cell(each["account"], "bold"),
                each["mailboxes"],
                each["messages"],
                each["contents"],
                Cell(f"{_total(each):,}", "bold red" if each["counts"] else "dim"),
                Cell(f"{_sum(each['repaired']):,}", "green" if each["repaired"] else "dim"),
                duration(each["seconds"]),
                _result(each),
            )
            for each in accounts
        ),
        empty="no account is kept in sync here" if answered else "no accounts",
    )
    for title, key in (("gaps", "gaps"), ("repaired", "repaired")):
        rows = [(each["account"], gap) for each in accounts for gap in each[key]]
        if rows:
            output.line("")
            _show_gaps(output, title, rows)
    _remark(output, accounts)
    elsewhere = len(answered) - len(accounts)
    if elsewhere:
        words = "1 account is" if elsewhere == 1 else f"{elsewhere:,} accounts are"
        output.remark(f"{words} kept in sync by other nodes, and not looked at here: verify there too", "yellow")


def _show_gaps(output: Output, title: str, rows: list[tuple[str, JsonObject]]) -> None:
    from mailmill.cli.output import Cell, Column

    columns = (
        Column("Account", shrinks=True, least=12),
        Column("Mailbox", shrinks=True, least=8),
        Column("Gap" if title == "gaps" else "Repaired"),
        Column("Count", "right"),
        Column("UIDs", shrinks=True, least=8, leaves=1),
        Column("What", shrinks=True, least=24),
    )
    output.table(
        columns,
        (
            (
                Cell(name, "bold"),
                one_line(gap["path"]),
                Cell(gap["kind"], _STYLES.get(gap["kind"], "bold red") if title == "gaps" else "green"),
                gap["count"],
                one_line(gap["uids"], _UIDS_WIDTH) or "-",
                one_line(gap["detail"], 200),
            )
            for name, gap in rows
        ),
        empty="",
    )


def _result(account: JsonObject) -> Cell:
    from mailmill.cli.output import Cell, stated

    if account.get("error"):
        return stated("failed", error_of(account["error"])[0])
    if account["counts"]:
        return Cell("gaps", "bold red")
    return stated("ok", "repaired" if account["repaired"] else "ok")


def _remark(output: Output, accounts: list[JsonObject]) -> None:
    for each in accounts:
        name = each["account"]
        if each.get("error"):
            _, message, hint = error_of(each["error"])
            output.remark(message if name in message else f"account {name!r}: {message}", "red")
            if hint:
                output.remark(f"hint: {hint}")
        for mailbox in each["unverified"]:
            output.remark(
                f"account {name!r}: {mailbox['path']!r} could not be looked into: {mailbox['reason']}", "yellow"
            )
        settled = _sum(each["settled"])
        if settled:
            output.remark(f"account {name!r}: {settled:,} differences were gone after a pass")
        unlisted = _total(each) - _sum(each["gaps"])
        if unlisted > 0:
            output.remark(f"account {name!r}: {unlisted:,} more are counted and not listed")
    if any(not each["full"] and each["messages"] > each["contents"] for each in accounts):
        compared = sum(each["contents"] for each in accounts)
        output.remark(f"contents were compared of a sample of {compared:,} messages; --full compares all")
    kinds = {kind for each in accounts for kind in each["counts"]}
    if kinds - {"content"}:
        output.remark("hint: mailmill verify --repair makes the store equal to the server")


def _total(account: JsonObject) -> int:
    return sum(account["counts"].values())


def _sum(gaps: list[JsonObject]) -> int:
    return sum(gap["count"] for gap in gaps)
