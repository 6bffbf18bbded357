"""What to do next about a request: the row + what the server shows → one act. Pure.

The conflict rule: **the server is the truth, and a request is applied to what is there when its turn comes.** Flags are
added and removed one by one, never set as a whole, so what others change meanwhile stays. A place that is not there any
more is looked for by message id, after a pass (`find_again`). What cannot be found, or is found in several places,
fails and says so.

After a crash a row is found with the step whose command may have reached the server:

=========  ==========================================  ===============================================================
step       the command may have …                      so
=========  ==========================================  ===============================================================
store      set the flags                               set them (again: setting twice is setting once)
move       moved it, whole or not at all (RFC 6851)    source there: move; gone: it must be in the target
copy       made a copy                                 look in the target first; copy only if there is none
remove     removed the original of a copy we know of   remove it (again), if it is there
append     stored the message                          look in the target first; upload only if it is not there
=========  ==========================================  ===============================================================

What a command made stands at or above the UIDNEXT that was committed with the step, and has the bytes we sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from mailmill.errors import CommandError
from mailmill.store.request_rows import Failure, Place, RequestKind, RequestRow, Step

MOST_ATTEMPTS = 6
RUN_ROWS = 500
"""So many requests go out as one command at most."""

_FIRST_RETRY_SECONDS = 5.0
_RETRY_FACTOR = 3.0


class Act(StrEnum):
    STORE = "store"
    MOVE = "move"
    COPY = "copy"
    REMOVE = "remove"
    SEARCH = "search"  # in the target, for what the command may have made
    LOST = "lost"  # not where it was: look again after a pass
    DONE = "done"
    READ_ONLY = "readOnly"


@dataclass(frozen=True, slots=True)
class Shown:
    """What the server shows of a request's place. ``uid_validity`` None: it has no such mailbox for us."""

    uid_validity: int | None
    present: bool
    read_only: bool = False
    can_move: bool = True


def next_act(row: RequestRow, shown: Shown) -> Act:
    """For a request about a place; an append needs none of this. See the module for the law."""
    assert row.place is not None
    same_mailbox = shown.uid_validity == row.place.uid_validity
    there = same_mailbox and shown.present
    moves = row.kind is RequestKind.MOVE or (row.kind is RequestKind.DELETE and row.target_path is not None)
    if row.step in (Step.MOVE, Step.COPY):
        if row.step is Step.MOVE and there:
            return _writable(Act.MOVE if shown.can_move else Act.COPY, shown)
        return Act.SEARCH
    if row.step is Step.REMOVE:
        if there:
            return _writable(Act.REMOVE, shown)
        # In another generation the original may still be there, under another number.
        return Act.DONE if same_mailbox else Act.LOST
    if not there:
        return Act.LOST
    if row.kind is RequestKind.FLAGS:
        return _writable(Act.STORE, shown)
    if row.kind is RequestKind.COPY:
        return Act.COPY
    if not moves:
        return _writable(Act.REMOVE, shown)
    if row.place.path == row.target_path:
        return Act.DONE
    return _writable(Act.MOVE if shown.can_move else Act.COPY, shown)


def after_search(row: RequestRow, shown: Shown, *, found: bool) -> Act | Failure:
    """What follows once the target was searched for what a MOVE or COPY may have made."""
    assert row.place is not None
    moves = row.kind is not RequestKind.COPY
    same_mailbox = shown.uid_validity == row.place.uid_validity
    there = same_mailbox and shown.present
    if found:
        # After a MOVE the source is gone, or numbered anew; what is left of a copied one is still to be removed.
        return Act.REMOVE if moves and there else Act.DONE
    if there:
        return _writable(Act.COPY, shown) if moves else Act.COPY
    if not same_mailbox:
        return Act.LOST
    return Failure(
        "conflict",
        f"the message is gone from {row.place.path!r} and is not in {row.target_path!r} either",
        "somebody moved or deleted it meanwhile; look where it is and ask again",
    )


def _writable(act: Act, shown: Shown) -> Act:
    return Act.READ_ONLY if shown.read_only else act


def find_again(row: RequestRow, places: Sequence[Place]) -> Place | Act | Failure:
    """Where a request whose place is gone goes on: at a place, nowhere since nothing is left to do, or not at all.

    ``places`` are the living ones of its message as of a pass that came after.

    The same mailbox under another UIDVALIDITY is the same place, numbered anew. Elsewhere the message is followed if it
    is in one place only, but never by a delete: what somebody has just put away is not to be thrown away.
    """
    assert row.place is not None
    path = row.place.path
    here = [place for place in places if place.path == path]
    if row.place in here:
        # The store still holds it, the server does not show it: this is settled by another pass.
        return Failure("refused", f"the server does not show the message in {path!r}", "it is tried again")
    if len(here) == 1:
        return here[0]
    if row.step is Step.REMOVE and row.target_path is not None:
        # The copy is made, and the original went by itself.
        return Act.DONE
    if not places:
        if row.kind is RequestKind.DELETE:
            return Act.DONE
        return Failure("conflict", "the message is gone from the server", "somebody deleted it meanwhile")
    where = ", ".join(sorted({repr(place.path) for place in places}))
    if row.kind is RequestKind.DELETE:
        return Failure("conflict", f"the message was moved meanwhile, to {where}", "ask again if it is to be deleted")
    if len(places) > 1:
        return Failure("conflict", f"the message is not in {path!r} any more but in {where}", "say which is meant")
    return places[0]


def runs(rows: Iterable[RequestRow]) -> Iterator[list[RequestRow]]:
    """Requests that follow one another and can go out as one command. What may have gone out before goes alone."""
    run: list[RequestRow] = []
    for row in rows:
        if run and (len(run) >= RUN_ROWS or _command_of(row) != _command_of(run[0])):
            yield run
            run = []
        run.append(row)
    if run:
        yield run


def _command_of(row: RequestRow) -> tuple[object, ...]:
    if row.place is None or (row.step is not Step.NONE and row.step is not Step.STORE):
        return (row.id,)
    return (row.kind, row.place.path, row.place.uid_validity, row.target_path, row.add, row.remove)


def retry_seconds(attempts: int) -> float:
    """How long to wait before the try after ``attempts`` tries."""
    return float(_FIRST_RETRY_SECONDS * _RETRY_FACTOR ** (max(1, attempts) - 1))


def resume_seconds(attempts: int) -> float:
    """How long a command that was cut waits to be taken up again: not at all the first time. One that cuts its
    connection again and again must not keep the account from its other work.
    """
    return retry_seconds(attempts) if attempts else 0.0


# Codes that say "never like this" (RFC 5530 §3, RFC 9051 §7.1, RFC 4469). A NO without a code may mean anything.
_FOR_GOOD = frozenset(
    {
        "ALREADYEXISTS",
        "AUTHORIZATIONFAILED",
        "BADCHARSET",
        "CANNOT",
        "CLIENTBUG",
        "NOPERM",
        "NONEXISTENT",
        "OVERQUOTA",
        "READ-ONLY",
        "TOOBIG",
        "TRYCREATE",
        "UNKNOWN-CTE",
    }
)


# "Not now" (RFC 5530 §3).
_NOT_NOW = frozenset({"UNAVAILABLE", "INUSE", "LIMIT", "SERVERBUG", "CONTACTADMIN"})


def says_not_now(error: CommandError) -> bool:
    """Whether a refused SELECT means that the mailbox cannot be opened just now, rather than that it is not there."""
    return error.response_code.split(" ")[0] in _NOT_NOW


def is_for_good(error: CommandError) -> bool:
    """Whether asking again is of no use."""
    return error.status == "BAD" or error.response_code.split(" ")[0] in _FOR_GOOD


def failure_of(error: CommandError, row: RequestRow) -> Failure:
    """In words for whoever asked."""
    code = error.response_code.split(" ")[0]
    if code in ("TRYCREATE", "NONEXISTENT") and row.target_path is not None:
        return no_mailbox(row.target_path)
    hint = {
        "OVERQUOTA": "the mailbox is over its quota: make room, then ask again",
        "TOOBIG": "the server takes no message of this size",
        "NOPERM": "the account has no right to do this there",
        "LIMIT": "the server asks for patience",
        "INUSE": "another program holds the mailbox",
    }.get(code, "")
    return Failure("refused", error.message, hint or error.hint)


def no_mailbox(path: str) -> Failure:
    return Failure("notFound", f"the server has no mailbox {path!r}", "`mailmill mailbox list` shows those there are")
