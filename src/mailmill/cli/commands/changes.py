"""What the commands share that change something on the mail server: a request for each message, and its outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from mailmill.cli.commands.message import account_of
from mailmill.cli.errors import OK, TEMPORARY, NoAnswerError, ServiceError, error_of, exit_code_of_accounts
from mailmill.cli.safe_text import one_line

if TYPE_CHECKING:
    from mailmill.cli.invocation import Invocation
    from mailmill.cli.output import Output
    from mailmill.cli.service_client import JsonObject, ServiceClient
    from mailmill.settings import Settings

AT_ONCE = 16

AccountOption = Annotated[
    str | None, typer.Option("--account", "-a", help="The account it is in; found without.", metavar="NAME")
]
PathOption = Annotated[
    str | None,
    typer.Option("--path", help="Which of its mailboxes is meant, where a message is in several.", metavar="PATH"),
]
UidOption = Annotated[
    int | None, typer.Option("--uid", min=1, help="Which place in that mailbox is meant.", metavar="UID")
]

Change = tuple[str, str, "JsonObject | None", "dict[str, str | int | None]"]
"""Method, what follows the message in the path, body, query."""


def carry_out(
    invocation: Invocation, ids: Sequence[str], account: str | None, change: Change, done: Callable[[JsonObject], str]
) -> int:
    """Ask for ``change`` of each message, show what became of it, and give the exit code. ``done`` says it in words."""
    output = invocation.output()

    async def work(client: ServiceClient, _settings: Settings) -> list[JsonObject]:
        turns = asyncio.Semaphore(AT_ONCE)

        async def one(message_id: str) -> JsonObject:
            async with turns:
                return await _ask(client, message_id, account, change)

        return list(await asyncio.gather(*(one(message_id) for message_id in ids)))

    answers = invocation.call(work)
    if invocation.json:
        output.json({"requests": answers})
    else:
        for answer in answers:
            _show(output, answer, done)
    return _exit_code(answers)


async def _ask(client: ServiceClient, message_id: str, account: str | None, change: Change) -> JsonObject:
    """The request as it stands, or what kept it from being made or done: ``{"messageId", "error"}``."""
    from mailmill.cli.service_client import route

    method, tail, body, query = change
    try:
        name = account or await account_of(client, message_id)
        path = route("account", name, "message", message_id, *([tail] if tail else []))
        return await client.change(method, path, body, **query)
    except (ServiceError, NoAnswerError) as error:
        return {
            "messageId": message_id,
            "error": {"code": error.code, "message": error.message, "hint": error.hint},
        }


def _show(output: Output, answer: JsonObject, done: Callable[[JsonObject], str]) -> None:
    from mailmill.cli.output import Cell

    number = Cell(f"{answer['messageId']}  ", "dim")
    if answer.get("state") == "done":
        note = (answer.get("outcome") or {}).get("note")
        output.line(number, one_line(done(answer) + (f" ({note})" if note else "")))
        return
    if answer.get("state") is None:
        _, message, hint = error_of(answer["error"])
        output.remark(f"{answer['messageId']}  error: {message}", "red")
        if hint:
            output.remark(f"hint: {hint}")
        return
    account, state = answer["account"], answer["accountState"]
    why = f"account {account!r} is {state}" if state != "connected" else "the server takes its time"
    output.remark(f"{answer['messageId']}  not done yet: {why}; the request is kept and done as soon as it can be")


def _exit_code(answers: Sequence[JsonObject]) -> int:
    errors = [error_of(answer["error"])[0] for answer in answers if answer.get("state") is None]
    if errors:
        return exit_code_of_accounts(errors)
    return OK if all(answer["state"] == "done" for answer in answers) else TEMPORARY
