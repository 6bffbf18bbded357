"""``mailmill flag``: flags on the mail server."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Annotated

import typer

from mailmill.cli.commands.changes import AccountOption, Change, PathOption, UidOption, carry_out
from mailmill.cli.errors import UsageError
from mailmill.cli.invocation import JsonOption, invocation_of

app = typer.Typer(help="Flags of messages, on the mail server.")

Words = Annotated[
    list[str],
    typer.Argument(
        help="Message ids, then flags: seen, answered, flagged, deleted, draft, or keywords.", metavar="ID... FLAG..."
    ),
]


@app.command()
def add(
    context: typer.Context,
    words: Words,
    account: AccountOption = None,
    path: PathOption = None,
    uid: UidOption = None,
    json: JsonOption = False,
) -> int:
    """Add flags to messages."""
    return _change(context, words, "add", account, path, uid)


@app.command()
def remove(
    context: typer.Context,
    words: Words,
    account: AccountOption = None,
    path: PathOption = None,
    uid: UidOption = None,
    json: JsonOption = False,
) -> int:
    """Remove flags from messages."""
    return _change(context, words, "remove", account, path, uid)


def _change(
    context: typer.Context, words: Sequence[str], action: str, account: str | None, path: str | None, uid: int | None
) -> int:
    ids, flags = split(words)
    what = "+" if action == "add" else "-"
    shown = " ".join(f"{what}{flag}" for flag in flags)
    body = {action: flags, "path": path, "uid": uid}
    change: Change = ("POST", "flags", body, {})
    return carry_out(invocation_of(context), ids, account, change, lambda answer: f"{shown} in {answer['path']}")


def split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The numbers in front are ids, all that follows is flags. Raises UsageError where either is missing."""
    ids = list(takewhile(lambda word: word.isascii() and word.isdigit(), words))
    flags = list(words[len(ids) :])
    if not ids:
        raise UsageError("no message is named", hint="mailmill flag add 17 18 seen: ids first, then flags")
    if not flags:
        raise UsageError("no flag is named", hint="mailmill flag add 17 18 seen: ids first, then flags")
    return ids, flags
