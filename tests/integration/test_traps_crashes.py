"""A crash between any two steps of every trap (`harness.crash_explorer`). Each is named in docs/sync-traps.md."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from harness.crash_explorer import Step, explore, make_template
from harness.fake_imap import PLAIN, QRESYNC, FakeImap
from harness.fake_mailbox import FakeMailbox
from harness.on_fake_imap import raw


@pytest.fixture
def template(new_data_dir: Callable[[str], Path]) -> Path:
    return new_data_dir("template")


def box(server: FakeImap, path: str) -> FakeMailbox:
    return server._mailboxes[path]


def live_changes(server: FakeImap) -> None:
    inbox = server.inbox
    inbox.add(raw(100), raw(101), raw(1))
    inbox.expunge(2)
    for uid in (3, 4, 5):
        inbox.set_flags(uid, r"\Seen")


def another_generation(server: FakeImap) -> None:
    server.inbox.renumber(server.inbox.uid_validity + 1, first_uid=3)
    server.inbox.expunge(4)
    server.inbox.add(raw(110))


def a_lower_generation(server: FakeImap) -> None:
    server.inbox.renumber(2)
    server.inbox.add(raw(111))


def moved_there(server: FakeImap) -> None:
    box(server, "A").move(server.inbox.move(1, box(server, "A")), box(server, "B"))
    server.inbox.move(5, box(server, "B"))


def moved_back(server: FakeImap) -> None:
    for uid in list(box(server, "B").messages):
        box(server, "B").move(uid, server.inbox)


def renamed(server: FakeImap) -> None:
    server.rename("A", "Renamed")
    server.create(FakeMailbox("A", uid_validity=99)).add(raw(120), raw(41))


def deleted(server: FakeImap) -> None:
    server.delete("A")


def recreated(server: FakeImap) -> None:
    server.create(FakeMailbox("A")).add(raw(130, "longer than what was there before"))


def restored_from_a_backup(server: FakeImap) -> None:
    inbox = server.inbox
    inbox.expunge(*[uid for uid in inbox.messages if uid > 4])
    inbox.expunged.clear()
    inbox.uid_next, inbox.highest_mod_seq = 5, 4
    inbox.add(raw(140, "this one was given an old UID"))


def a_mere_name(server: FakeImap) -> None:
    box(server, "A").attributes = rb"\Noselect"


def a_mailbox_again(server: FakeImap) -> None:
    box(server, "A").attributes = rb"\HasChildren"


def emptied(server: FakeImap) -> None:
    server.inbox.expunge(*server.inbox.messages)


SCENARIOS: dict[str, Sequence[Step]] = {
    "live_changes": [live_changes, emptied],
    "generations": [another_generation, a_lower_generation],
    "moves": [moved_there, moved_back],
    "renamed_and_recreated": [renamed, deleted, recreated],
    "recreated_within_an_interval": [lambda server: (deleted(server), recreated(server))],
    "restored_from_a_backup": [restored_from_a_backup, lambda server: server.inbox.set_flags(5, "new")],
    "a_mere_name": [a_mere_name, a_mailbox_again],
}
# What differs from tier to tier: how changes are found.
TOLD_BY_TIER = ("live_changes", "restored_from_a_backup")


def made(capabilities: str) -> FakeImap:
    server = FakeImap(FakeMailbox(), FakeMailbox("A"), FakeMailbox("B"), capabilities=capabilities)
    server.inbox.add(*(raw(number) for number in range(1, 7)))
    box(server, "A").add(raw(40), raw(41))
    return server


async def play(steps: Sequence[Step], capabilities: str, template: Path, folder: Path) -> None:
    await make_template(template, lambda: made(capabilities))
    assert await explore(steps, lambda: made(capabilities), template, folder) > 5


@pytest.mark.timeout(600)
@pytest.mark.both_databases(scenario=("live_changes", "moves", "recreated_within_an_interval"))
@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_a_crash_at_every_commit_point(scenario: str, template: Path, tmp_path: Path) -> None:
    await play(SCENARIOS[scenario], QRESYNC + " OBJECTID", template, tmp_path)


@pytest.mark.parametrize("scenario", TOLD_BY_TIER)
async def test_a_crash_at_every_commit_point_without_mod_sequences(
    scenario: str, template: Path, tmp_path: Path
) -> None:
    await play(SCENARIOS[scenario], PLAIN, template, tmp_path)


@pytest.mark.timeout(600)
@pytest.mark.both_databases(capabilities=(QRESYNC,))
@pytest.mark.parametrize("capabilities", [QRESYNC, PLAIN + " OBJECTID"], ids=["qresync", "plain"])
async def test_a_crash_at_every_commit_point_of_the_first_sync(
    capabilities: str, template: Path, tmp_path: Path
) -> None:
    await make_template(template)
    assert await explore([lambda _server: None], lambda: made(capabilities), template, tmp_path) > 10
