"""``mailmill account``: the configured accounts, and whether each one's server lets us in."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mailmill.cli.commands.status import (
    account_columns,
    account_rows,
    account_state,
    is_elsewhere,
    is_fleet,
)
from mailmill.cli.errors import OK, error_of, exit_code_of_accounts
from mailmill.cli.invocation import JsonOption, invocation_of
from mailmill.cli.safe_text import ago, duration, moment

if TYPE_CHECKING:
    from mailmill.cli.output import Output, Value
    from mailmill.cli.service_client import JsonObject, ServiceClient
    from mailmill.settings import Settings

app = typer.Typer(help="Accounts: list them, look at one, check whether it can log in, delete what one left.")

NameArgument = Annotated[str, typer.Argument(help="The account's name.", metavar="NAME")]


@app.command("list")
def list_accounts(context: typer.Context, json: JsonOption = False) -> None:
    """List all accounts and how each is doing."""
    invocation = invocation_of(context)
    output = invocation.output()
    answer, figures, runs = invocation.call(lambda client, _settings: _with_figures(client, "/v1/accounts"))
    if json:
        output.json(answer)
        return
    rows = account_rows(answer["accounts"], figures, service_runs=runs)
    output.table(account_columns(figures), rows, empty="no account is configured")


@app.command()
def show(context: typer.Context, name: NameArgument, json: JsonOption = False) -> None:
    """Show one account."""
    from mailmill.cli.service_client import route

    invocation = invocation_of(context)
    output = invocation.output()
    answer, figures, runs = invocation.call(lambda client, _settings: _with_figures(client, route("account", name)))
    if json:
        output.json(answer)
        return
    output.fields(_fields(answer, figures, service_runs=runs))


async def _with_figures(client: ServiceClient, path: str) -> tuple[JsonObject, JsonObject, bool]:
    """What is asked for, the status (who the nodes are), and whether a service runs here."""
    answer, figures = await asyncio.gather(client.get(path), client.get("/v1/status"))
    return answer, figures, client.service_runs


def push_words(account: JsonObject) -> str:
    """How news comes, and how late it may be of what is not pushed."""
    push, sweep = account.get("push"), account.get("sweepSeconds")
    every = "" if sweep is None else f" every {duration(sweep)}"
    if push == "notify":
        return f"all mailboxes (NOTIFY), all looked at{every}" if every else "all mailboxes (NOTIFY)"
    if push == "idle":
        pushed = account.get("pushedMailbox") or "one mailbox"
        return f"{pushed} (IDLE), the others looked at{every}" if every else f"{pushed} (IDLE)"
    return f"none, all looked at{every}" if every else "none"


def _fields(account: JsonObject, figures: JsonObject, *, service_runs: bool) -> list[tuple[str, Value]]:
    from mailmill.cli.output import Cell

    progress = account.get("progress")
    elsewhere = is_elsewhere(account, figures)
    heard = account.get("secondsSinceLastRoundTrip")
    lines: list[tuple[str, Value]] = [
        ("Account", Cell(account["account"], "bold")),
        ("Address", account.get("email") or "-"),
        ("State", account_state(account, figures, service_runs=service_runs)),
        ("Since", moment(account.get("stateChangedAt"))),
        ("Why", account.get("stateReason") or "-"),
        ("Backlog", account.get("backlog") or "-"),
        ("Mailboxes", f"{account['mailboxes']:,}"),
        ("Messages", f"{account['messages']:,}"),
    ]
    if is_fleet(figures):
        lines.append(("Node", account.get("node") or "-"))
    if not elsewhere:
        lines += [
            ("Last full pass", ago(account.get("lastSyncAt"))),
            ("Last round trip", "-" if heard is None else f"{duration(heard)} ago"),
            ("Connections", f"{account.get('connections', 0):,}"),
            ("Push", push_words(account)),
        ]
    verified = account.get("verify")
    if verified:
        gaps = sum(verified["gaps"].values())
        words = f"{gaps:,} gaps, {ago(verified['at'])}" if gaps else f"no gaps, {ago(verified['at'])}"
        lines.append(("Verified", Cell(words, "bold red" if gaps else "")))
    if progress:
        lines.append(("First sync", f"{progress['stored']:,} of {progress['total']:,}"))
    return lines


@app.command()
def check(
    context: typer.Context,
    names: Annotated[
        list[str] | None, typer.Argument(help="Accounts; all if none is named.", metavar="NAME...")
    ] = None,
    json: JsonOption = False,
) -> int:
    """Connect and log in now; say what the server can do, or what to do where it fails."""
    invocation = invocation_of(context)
    output = invocation.output()

    async def work(client: ServiceClient, settings: Settings) -> list[JsonObject]:
        from mailmill.cli.commands.sync import no_account
        from mailmill.cli.service_client import route

        wanted = names or [str(each["account"]) for each in (await client.get("/v1/accounts"))["accounts"]]
        if not wanted:
            raise no_account(settings)
        return [await client.post(route("account", name, "check"), unbounded=True) for name in wanted]

    checks = invocation.call(work)
    if json:
        output.json({"checks": checks} if names is None or len(checks) != 1 else checks[0])
    else:
        for number, each in enumerate(checks):
            if number:
                output.line("")
            _show_check(output, each)
    return exit_code_of_accounts(error_of(each["error"])[0] for each in checks if each.get("error"))


@app.command()
def remove(
    context: typer.Context,
    name: NameArgument,
    purge: Annotated[
        bool, typer.Option("--purge", help="Delete all that is stored of it. There is no way back.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: JsonOption = False,
) -> int:
    """Delete what an account that is no longer configured left here; nothing on its server."""
    if purge and not yes and sys.stdin.isatty():  # scripts said what they want
        typer.confirm(f"Delete all that is stored of account {name}? There is no way back.", abort=True, err=True)
    invocation = invocation_of(context)
    output = invocation.output()

    async def work(client: ServiceClient, _settings: Settings) -> JsonObject:
        from mailmill.cli.bars import with_bar
        from mailmill.cli.service_client import route

        total = int((await client.get(route("account", name)))["messages"])

        async def ask() -> JsonObject:
            left = [
                each["messagesLeft"]
                for each in (await client.get("/v1/removals"))["removals"]
                if each["account"] == name
            ]
            return {"running": {"phase": "deleting", "done": max(0, total - left[0]), "total": total} if left else None}

        asking = client.delete(route("account", name), purge="true" if purge else "false")
        return await with_bar("deleting", asking, ask, output)

    answer = invocation.call(work)
    if json:
        output.json(answer)
    elif answer["purged"]:
        output.line(
            f"deleted account {name!r} and its {answer['messages']:,} messages in {duration(answer['seconds'])}"
        )
    else:
        output.line(f"account {name!r} is paused, and nothing of it was deleted")
        output.remark(f"hint: mailmill account remove {name} --purge deletes all that is stored of it")
    return OK


_PUSHES = {"notify": "yes, all mailboxes (NOTIFY)", "idle": "yes, one mailbox (IDLE)", "poll": "no, polled"}

_TIERS = {
    "qresync": "QRESYNC (changes and deletions in one round trip)",
    "condstore": "CONDSTORE (changes by mod-sequence, deletions by comparison)",
    "plain": "plain (new mail by UID, the rest by comparison)",
}


def _show_check(output: Output, check: dict[str, Any]) -> None:
    from mailmill.cli.output import Cell, stated

    verdict = stated("ok", "ok") if check["ok"] else stated("fail", "failed")
    lines: list[tuple[str, Value]] = [
        ("Account", Cell(check["account"], "bold")),
        ("Result", verdict),
        ("Server", f"{check.get('host') or '-'} (TLS: {check.get('tls') or '-'})"),
        ("Login", stated("ok", "accepted") if check.get("login") else Cell("not accepted", "red")),
    ]
    if check["ok"]:
        lines += [
            ("Mailboxes", f"{check.get('mailboxes') or 0:,}"),
            ("Sync", _TIERS.get(check.get("tier") or "", check.get("tier") or "-")),
            ("Push", _PUSHES.get(check.get("push") or "", "-")),
            ("Capabilities", Cell(" ".join(check.get("capabilities") or ()), "dim")),
        ]
    output.fields(lines)
    if check.get("error"):
        _, message, hint = error_of(check["error"])
        output.remark(f"error: {message}", "red")
        if hint:
            output.remark(f"hint: {hint}")
