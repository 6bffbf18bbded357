from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mailmill.errors import CommandError
from mailmill.model import Uid
from mailmill.store.request_rows import Failure, Place, RequestKind, RequestRow, RequestState, Step
from mailmill.sync.write_plan import (
    RUN_ROWS,
    Act,
    Shown,
    after_search,
    failure_of,
    find_again,
    is_for_good,
    next_act,
    resume_seconds,
    retry_seconds,
    runs,
    says_not_now,
)

INBOX = Place("INBOX", 7, Uid(3))
THERE = Shown(7, present=True)
GONE = Shown(7, present=False)
RENUMBERED = Shown(8, present=True)
NO_MAILBOX = Shown(None, present=False)


def row(kind: str = "flags", step: str = "", **what: Any) -> RequestRow:
    values: dict[str, Any] = {
        "id": 1,
        "account_id": 1,
        "kind": RequestKind(kind),
        "state": RequestState.APPLYING if step else RequestState.PENDING,
        "step": Step(step),
        "message_id": 17,
        "place": INBOX,
        "target_path": "Archive" if kind in ("move", "copy", "append") else None,
        "target_uid_validity": None,
        "target_uid_next": None,
        "target_uid": None,
        "add": frozenset(),
        "remove": frozenset(),
        "upload": None,
        "attempts": 0,
        "run_at": 0.0,
        "error_code": "",
        "error": "",
        "error_hint": "",
        "note": "",
        "created_at": 0.0,
        "finished_at": None,
    }
    return RequestRow(**values | what)


KINDS = ("flags", "move", "copy", "delete")
TRASHED = row("delete", target_path="Trash")


@pytest.mark.parametrize(
    ("request_row", "shown", "act"),
    [
        (row("flags"), THERE, Act.STORE),
        (row("move"), THERE, Act.MOVE),
        (row("move"), replace(THERE, can_move=False), Act.COPY),
        (row("move", target_path="INBOX"), THERE, Act.DONE),
        (row("copy"), THERE, Act.COPY),
        (row("copy", target_path="INBOX"), THERE, Act.COPY),
        (row("copy"), replace(THERE, read_only=True), Act.COPY),
        (row("delete"), THERE, Act.REMOVE),
        (TRASHED, THERE, Act.MOVE),
        *((row(kind), shown, Act.LOST) for kind in KINDS for shown in (GONE, RENUMBERED, NO_MAILBOX)),
        *((row(kind), replace(THERE, read_only=True), Act.READ_ONLY) for kind in ("flags", "move", "delete")),
        # After a crash.
        (row("flags", "store"), THERE, Act.STORE),
        (row("move", "move"), THERE, Act.MOVE),
        *((row("move", "move"), shown, Act.SEARCH) for shown in (GONE, RENUMBERED, NO_MAILBOX)),
        *((row(kind, "copy"), shown, Act.SEARCH) for kind in ("move", "copy") for shown in (THERE, GONE, NO_MAILBOX)),
        (row("move", "remove"), THERE, Act.REMOVE),
        (row("move", "remove"), GONE, Act.DONE),
        (row("move", "remove"), RENUMBERED, Act.LOST),
    ],
)  # fmt: skip
def test_the_next_act(request_row: RequestRow, shown: Shown, act: Act) -> None:
    assert next_act(request_row, shown) is act


@pytest.mark.parametrize(
    ("request_row", "shown", "found", "act"),
    [
        (row("copy", "copy"), THERE, True, Act.DONE),
        (row("copy", "copy"), THERE, False, Act.COPY),
        (row("move", "copy"), THERE, True, Act.REMOVE),
        (row("move", "copy"), THERE, False, Act.COPY),
        (row("move", "move"), GONE, True, Act.DONE),
        (row("move", "move"), RENUMBERED, True, Act.DONE),
        (row("move", "move"), RENUMBERED, False, Act.LOST),
        (row("copy", "copy"), NO_MAILBOX, False, Act.LOST),
        (row("move", "copy"), replace(THERE, read_only=True), False, Act.READ_ONLY),
    ],
)
def test_after_a_search(request_row: RequestRow, shown: Shown, found: bool, act: Act) -> None:
    assert after_search(request_row, shown, found=found) is act


def test_what_is_neither_here_nor_there_has_failed() -> None:
    failed = after_search(row("move", "move"), GONE, found=False)
    assert isinstance(failed, Failure)
    assert failed.code == "conflict"
    assert "'INBOX'" in failed.message
    assert "'Archive'" in failed.message


ELSEWHERE = Place("Projects", 5, Uid(1))
AGAIN = Place("INBOX", 8, Uid(30))


@pytest.mark.parametrize(
    ("request_row", "places", "found"),
    [
        (row("flags"), [ELSEWHERE], ELSEWHERE),
        (row("move"), [ELSEWHERE], ELSEWHERE),
        (row("flags"), [AGAIN, ELSEWHERE], AGAIN),
        (row("delete"), [AGAIN], AGAIN),
        (row("delete"), [], Act.DONE),
        (row("move", "remove"), [ELSEWHERE], Act.DONE),
        (row("move", "remove"), [AGAIN, ELSEWHERE], AGAIN),
        (row("delete"), [ELSEWHERE], "conflict"),
        (row("flags"), [], "conflict"),
        (row("flags"), [ELSEWHERE, replace(ELSEWHERE, path="Other")], "conflict"),
        # The store holds what the server does not show.
        (row("flags"), [INBOX], "refused"),
        (row("flags"), [INBOX, AGAIN], "refused"),
    ],
)
def test_a_place_that_is_gone(request_row: RequestRow, places: list[Place], found: object) -> None:
    outcome = find_again(request_row, places)
    assert (outcome.code if isinstance(outcome, Failure) else outcome) == found


def test_runs_keep_the_order_and_join_what_is_equal() -> None:
    seen, flagged = frozenset({r"\Seen"}), frozenset({r"\Flagged"})
    rows = [
        row(id=1, add=seen),
        row(id=2, add=seen),
        row(id=3, add=flagged),
        row(id=4, add=seen),
        row("move", id=5),
        row("move", id=6),
        row("move", id=7, target_path="Other"),
        row("move", "move", id=8),
        row("move", "move", id=9),
        row("append", id=10, place=None, message_id=None),
        row("append", id=11, place=None, message_id=None),
        row(id=12, add=seen, place=replace(INBOX, path="Sent")),
        row(id=13, add=seen, place=replace(INBOX, path="Sent", uid_validity=9)),
    ]
    assert [[each.id for each in run] for run in runs(rows)] == [
        [1, 2], [3], [4], [5, 6], [7], [8], [9], [10], [11], [12], [13]
    ]  # fmt: skip
    many = [row(id=number) for number in range(RUN_ROWS + 1)]
    assert [len(run) for run in runs(many)] == [RUN_ROWS, 1]


def test_tries_come_ever_later() -> None:
    delays = [retry_seconds(attempts) for attempts in range(1, 6)]
    assert delays == [5.0, 15.0, 45.0, 135.0, 405.0]
    assert [resume_seconds(attempts) for attempts in (0, 1, 2)] == [0.0, 5.0, 15.0]


def refused(code: str, status: str = "NO") -> CommandError:
    return CommandError("UID MOVE", status, code, "words")


def test_which_refusals_are_for_good() -> None:
    assert is_for_good(refused("", "BAD"))
    assert is_for_good(refused("TRYCREATE"))
    assert is_for_good(refused("OVERQUOTA"))
    assert not is_for_good(refused(""))
    assert not is_for_good(refused("INUSE"))
    assert says_not_now(refused("UNAVAILABLE"))
    assert not says_not_now(refused("NONEXISTENT"))


def test_failures_name_the_mailbox_or_the_servers_words() -> None:
    assert failure_of(refused("TRYCREATE"), row("move")).code == "notFound"
    assert "'Archive'" in failure_of(refused("TRYCREATE"), row("move")).message
    told = failure_of(refused("OVERQUOTA"), row("move"))
    assert (told.code, told.message) == ("refused", "the server answered NO to UID MOVE: [OVERQUOTA] words")
    assert "make room" in told.hint
