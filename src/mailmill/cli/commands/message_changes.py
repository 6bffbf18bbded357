"""``mailmill message move``, ``copy`` and ``delete``: where messages are, on the mail server."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from mailmill.cli.commands.changes import AccountOption, Change, PathOption, UidOption, carry_out
from mailmill.cli.errors import UsageError
from mailmill.cli.invocation import JsonOption, invocation_of

IdsAndPath = Annotated[
    list[str], typer.Argument(help="Message ids, then the mailbox to put them into.", metavar="ID... MAILBOX")
]


def move(
    context: typer.Context,
    words: IdsAndPath,
    account: AccountOption = None,
    path: PathOption = None,
    uid: UidOption = None,
    json: JsonOption = False,
) -> int:
    """Move messages to another mailbox; they keep their ids."""
    return _put(context, words, "move", account, path, uid)


def copy(
    context: typer.Context,
    words: IdsAndPath,
    account: AccountOption = None,
    path: PathOption = None,
    uid: UidOption = None,
    json: JsonOption = False,
) -> int:
    """Copy messages to another mailbox; each is one message in two places then."""
    return _put(context, words, "copy", account, path, uid)


def delete(
    context: typer.Context,
    ids: Annotated[list[str], typer.Argument(help="Message ids.", metavar="ID...")],
    permanent: Annotated[bool, typer.Option("--permanent", help="Remove them for good, not to the trash.")] = False,
    account: AccountOption = None,
    path: PathOption = None,
    uid: UidOption = None,
    json: JsonOption = False,
) -> int:
    """Move messages to the trash; what is in it already is removed for good."""
    query: dict[str, str | int | None] = {"permanent": "true" if permanent else None, "path": path, "uid": uid}
    return carry_out(invocation_of(context), ids, account, ("DELETE", "", None, query), _deleted)


def _deleted(answer: dict[str, Any]) -> str:
    if answer["permanent"]:
        return f"deleted from {answer['path']}"
    return f"{answer['path']} → {answer['targetPath']}"


def _put(
    context: typer.Context, words: list[str], action: str, account: str | None, path: str | None, uid: int | None
) -> int:
    *ids, target = words
    if not ids:
        raise UsageError("a message and a mailbox are needed", hint=f"mailmill message {action} 17 18 Archive")
    if wrong := [word for word in ids if not (word.isascii() and word.isdigit())]:
        raise UsageError(
            f"not a message id: {wrong[0]!r}", hint="ids first, the mailbox last; quote a name that has blanks in it"
        )
    body = {"path": target, "from": path, "uid": uid}
    arrow = "→" if action == "move" else "copied to"
    change: Change = ("POST", action, body, {})
    return carry_out(
        invocation_of(context), ids, account, change, lambda answer: f"{answer['path']} {arrow} {answer['targetPath']}"
    )
