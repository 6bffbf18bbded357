"""The commands of `FakeImap` that change mail: STORE, COPY, MOVE, EXPUNGE by UID, and APPEND; and SEARCH HEADER.

What the server announces decides what it does: without UIDPLUS it tells no UIDs, without MOVE it knows none.
"""

from __future__ import annotations

import email
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mailmill.uid_set import UidSet
from servers.scripted import Command

if TYPE_CHECKING:
    from harness.fake_imap import Answer, Client
    from harness.fake_mailbox import FakeMailbox

_NAME = rb'(?:"((?:[^"\\]|\\.)*)"|([^ "{]+))'
_STORE = re.compile(rb"UID STORE (\S+) (?:\(UNCHANGEDSINCE (\d+)\) )?([+-])FLAGS \(([^)]*)\)$")
_COPY = re.compile(rb"UID (?:COPY|MOVE) (\S+) " + _NAME + rb"$")
_EXPUNGE = re.compile(rb"UID EXPUNGE (\S+)$")
_APPEND = re.compile(
    rb"APPEND " + _NAME + rb' (?:\(([^)]*)\) )?(?:"([^"]*)" )?~?\{(\d+)\+?\}\r\n(.*)$', re.IGNORECASE | re.DOTALL
)
_STRING = re.compile(rb'"((?:[^"\\]|\\.)*)"|\{\d+\+?\}\r\n(.*)', re.DOTALL)

NO_MAILBOX = b"NO [TRYCREATE] no such mailbox"
READ_ONLY = b"NO [READ-ONLY] not selected for writing"


def answer(client: Client, command: Command, mailboxes: Mapping[str, FakeMailbox]) -> tuple[Answer, bytes]:
    """The untagged responses, and the tagged one without its tag."""
    match command.verb:
        case b"UID STORE":
            return _store(client, command)
        case b"UID COPY" | b"UID MOVE":
            return _copy(client, command, mailboxes)
        case b"UID EXPUNGE":
            return _expunge(client, command)
        case b"APPEND":
            return [], _append(client, command, mailboxes)
    raise AssertionError(f"the client sent {command.line!r}")


def with_header(mailbox: FakeMailbox, uids: UidSet, wanted: bytes) -> UidSet:
    """Those of ``uids`` that a search for ``wanted`` (two strings: field, value) finds."""
    field, value = (_unquoted(found[1]) if found[2] is None else found[2] for found in _STRING.finditer(wanted))

    def values(raw: bytes) -> list[str]:
        return [str(line).lower() for line in email.message_from_bytes(raw).get_all(field.decode(), [])]

    looked_for = value.decode().lower()
    return UidSet(uid for uid in uids if any(looked_for in line for line in values(mailbox.messages[uid].raw)))


def _store(client: Client, command: Command) -> tuple[Answer, bytes]:
    found = _STORE.match(command.line)
    mailbox = client.selected
    assert found is not None and mailbox is not None, command.line
    if client.read_only:
        return [], READ_ONLY
    change = frozenset(found[4].decode().split())
    responses: Answer = []
    modified: list[int] = []
    for uid in _there(mailbox, found[1]):
        message = mailbox.messages[uid]
        if found[2] is not None and message.mod_seq > int(found[2]):
            modified.append(uid)
            continue
        flags = message.flags | change if found[3] == b"+" else message.flags - change
        if flags != message.flags:
            mailbox.set_flags(uid, *flags)
        if uid in client.told:
            client.told[uid] = flags
        items = [b"FLAGS", b"MODSEQ"] if mailbox.mod_seqs and _can(client, "CONDSTORE") else [b"FLAGS"]
        responses.append(client.fetched(uid, *items))
    return responses, b"OK [MODIFIED %s] not all" % str(UidSet(modified)).encode() if modified else b"OK done"


def _copy(client: Client, command: Command, mailboxes: Mapping[str, FakeMailbox]) -> tuple[Answer, bytes]:
    found = _COPY.match(command.line)
    source = client.selected
    assert found is not None and source is not None, command.line
    moving = command.verb == b"UID MOVE"
    if moving and not _can(client, "MOVE"):
        return [], b"BAD no such command"
    if moving and client.read_only:
        return [], READ_ONLY
    target = mailboxes.get(_name(found[2], found[3]))
    if target is None:
        return [], NO_MAILBOX
    uids = _there(source, found[1])
    copies = [target.add(source.messages[uid].raw, flags=source.messages[uid].flags) for uid in uids]
    code = b""
    if uids and _can(client, "UIDPLUS"):
        code = b"[COPYUID %d %s %s] " % (target.uid_validity, str(UidSet(uids)).encode(), str(UidSet(copies)).encode())
    if not moving:
        return [], b"OK " + code + b"copied"
    source.expunge(*uids)
    return ([b"* OK " + code + b"moving\r\n"] if code else []), b"OK moved"


def _expunge(client: Client, command: Command) -> tuple[Answer, bytes]:
    found = _EXPUNGE.match(command.line)
    mailbox = client.selected
    assert found is not None and mailbox is not None, command.line
    if not _can(client, "UIDPLUS"):
        return [], b"BAD no such command"
    if client.read_only:
        return [], READ_ONLY
    mailbox.expunge(*(uid for uid in _there(mailbox, found[1]) if "\\Deleted" in mailbox.messages[uid].flags))
    return [], b"OK done"


def _append(client: Client, command: Command, mailboxes: Mapping[str, FakeMailbox]) -> bytes:
    found = _APPEND.match(command.line)
    assert found is not None, command.line[:200]
    raw = found[6]
    assert len(raw) == int(found[5]), "the message has not the announced size"
    mailbox = mailboxes.get(_name(found[1], found[2]))
    if mailbox is None:
        return NO_MAILBOX
    if b"\0" in raw and b"~{" not in command.line[: found.start(6)]:
        return b"BAD a NUL in a literal"
    uid = mailbox.add(raw, flags=(found[3] or b"").decode().split())
    if found[4]:
        mailbox.messages[uid].internal_date = found[4]
    return b"OK [APPENDUID %d %d] taken" % (mailbox.uid_validity, uid) if _can(client, "UIDPLUS") else b"OK taken"


def _can(client: Client, capability: str) -> bool:
    return capability in client.server.capabilities.split()


def _there(mailbox: FakeMailbox, uids: bytes) -> list[int]:
    wanted = UidSet.parse(uids.decode())
    return [uid for uid in mailbox.messages if uid in wanted]


def _name(quoted: bytes | None, atom: bytes | None) -> str:
    return (atom if quoted is None else _unquoted(quoted) or b"").decode()  # type: ignore[union-attr]


def _unquoted(text: bytes) -> bytes:
    return re.sub(rb"\\(.)", rb"\1", text)
