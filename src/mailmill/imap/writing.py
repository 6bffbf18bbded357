"""Commands that change mail on the server: functions over `Dialogue`, called by `ImapConnection`.

Laws:

- Only UIDs are sent, and only what names single messages: no plain STORE, COPY, EXPUNGE.
- What a lesser server would do differently is refused and not imitated (no MOVE by COPY and EXPUNGE, no EXPUNGE of
  everything): whoever calls knows what a half done imitation would mean, this package does not.
- A set too long for one line goes in several commands, one after the other: what comes after a refused one is not sent.
- UIDs that a server tells of copies are believed only where they can be true; else it is as if it had told none.
"""

from __future__ import annotations

from collections.abc import Iterable

from mailmill.errors import ArgumentError, ContradictionError, UnsupportedError
from mailmill.imap import commands, searching
from mailmill.imap.collectors import Collector, MetaCollector
from mailmill.imap.commands import Command, Literal
from mailmill.imap.dialogue import Dialogue, require_ok
from mailmill.imap.replies import AppendReply, CopyReply, StoreReply
from mailmill.imap.responses import Response, Status, Tagged
from mailmill.imap.write_codes import parse_append_uid, parse_copy_uid, parse_modified
from mailmill.model import Flags, MessageMeta, Uid
from mailmill.uid_set import UidSet

_MAX_MOD_SEQ = 2**63 - 1


class CopyUidCollector(Collector):
    """UID MOVE names the copies in an untagged OK, before the expunges (RFC 6851 §4.3), UID COPY in its tagged one."""

    def __init__(self) -> None:
        self.argument = ""

    def claim(self, event: Response) -> bool:
        if isinstance(event, Status) and event.status == "OK" and event.code == "COPYUID":
            self.argument = event.argument
            return True
        return super().claim(event)


async def store_flags(
    dialogue: Dialogue, uids: UidSet, *, add: Flags, remove: Flags, unchanged_since: int | None
) -> StoreReply:
    """See `ImapConnection.store_flags`."""
    _check_store(dialogue, add, remove, unchanged_since)
    modified = UidSet()
    messages: dict[Uid, MessageMeta] = {}
    malformed = 0
    for sign, flags in (("-", remove), ("+", add)):
        spare_bytes = len(commands.flag_list(flags))
        mod_seqs = [unchanged_since or 0]
        for part in commands.split_set(uids, spare_bytes=spare_bytes) if flags else ():
            collector = MetaCollector(part)
            command = commands.uid_store(part, sign, flags, unchanged_since=unchanged_since)
            modified |= _modified(dialogue, await _run(dialogue, command, collector)) & part
            malformed += collector.malformed
            messages |= collector.messages
            mod_seqs += [message.mod_seq for message in collector.messages.values() if message.mod_seq is not None]
        uids = uids - modified
        if unchanged_since is not None:
            # The removal was a change as well. Any other change that comes after it has a higher mod-sequence.
            unchanged_since = max(mod_seqs)
    return StoreReply(list(messages.values()), modified, malformed)


async def copy(dialogue: Dialogue, uids: UidSet, target: bytes | Literal) -> CopyReply:
    """See `ImapConnection.copy`."""
    return await _copy(dialogue, uids, (commands.uid_copy(part, target) for part in commands.split_set(uids)))


async def move(dialogue: Dialogue, uids: UidSet, target: bytes | Literal) -> CopyReply:
    """See `ImapConnection.move`."""
    if not dialogue.session.features.move:
        raise UnsupportedError(
            f"{dialogue.endpoint}: the server has no MOVE", hint="copy, mark the originals \\Deleted, then expunge them"
        )
    _require_writable(dialogue, "UID MOVE")
    return await _copy(dialogue, uids, (commands.uid_move(part, target) for part in commands.split_set(uids)))


async def expunge(dialogue: Dialogue, uids: UidSet) -> UidSet:
    """See `ImapConnection.expunge`."""
    if not dialogue.session.features.uidplus:
        raise UnsupportedError(
            f"{dialogue.endpoint}: the server has no UIDPLUS, and EXPUNGE would take what others marked as well",
            hint="leave the messages marked \\Deleted: the next mail program to compact the mailbox removes them",
        )
    _require_writable(dialogue, "UID EXPUNGE")
    for part in commands.split_set(uids):
        await _run(dialogue, commands.uid_expunge(part), Collector())
    # Without QRESYNC a server tells sequence numbers of what is gone; the search tells UIDs. It cannot go in the same
    # write: Dovecot answers it from before the expunge then.
    return uids - await searching.existing(dialogue, uids)


async def append(
    dialogue: Dialogue, target: bytes | Literal, raw: bytes, *, flags: Flags, internal_date: float | None
) -> AppendReply:
    """See `ImapConnection.append`."""
    session = dialogue.session
    if not raw:
        raise ArgumentError("a message of no bytes cannot be uploaded")  # it would mean: never mind (RFC 3502 §6.3.11)
    announced, waits = commands.announce(len(raw), session.literal_mode)
    if b"\0" in raw:
        if not session.features.binary:
            raise ArgumentError("the message holds a NUL byte, which IMAP carries only to servers with BINARY")
        announced = b"~" + announced  # literal8 (RFC 3516 §4.4)
    command = commands.append(target, announced, flags=flags, internal_date=internal_date)
    exchange = await dialogue.upload(command, raw, Collector(), waits=waits)
    require_ok(exchange)
    tagged = exchange.tagged
    assert tagged is not None
    told = parse_append_uid(tagged.argument) if tagged.code == "APPENDUID" else None
    return AppendReply(*told) if told is not None else AppendReply(None, None)


# -- pieces ------------------------------------------------------------------------------------------------------------


async def _run(dialogue: Dialogue, command: Command, collector: Collector) -> Tagged:
    [exchange] = await dialogue.burst([(command, collector)])
    tagged = exchange.tagged
    assert tagged is not None
    # A NO with MODIFIED tells what was not done, and that the rest was (RFC 7162 §3.1.3).
    if not (command.verb == "UID STORE" and tagged.status == "NO" and tagged.code == "MODIFIED"):
        require_ok(exchange)
    return tagged


def _modified(dialogue: Dialogue, tagged: Tagged) -> UidSet:
    if tagged.code != "MODIFIED":
        return UidSet()
    modified = parse_modified(tagged.argument)
    if modified is None:
        raise ContradictionError(f"{dialogue.endpoint}: which messages the server left unchanged cannot be read")
    return modified


async def _copy(dialogue: Dialogue, uids: UidSet, requests: Iterable[Command]) -> CopyReply:
    generations: set[int] = set()
    copies: dict[Uid, Uid] = {}
    for command in requests:
        collector = CopyUidCollector()
        tagged = await _run(dialogue, command, collector)
        told = parse_copy_uid(tagged.argument if tagged.code == "COPYUID" else collector.argument)
        if told is not None:
            generations.add(told.uid_validity)
            copies |= {source: target for source, target in told.uids.items() if source in uids}
    return CopyReply(generations.pop(), copies) if len(generations) == 1 else CopyReply(None, {})


def _check_store(dialogue: Dialogue, add: Flags, remove: Flags, unchanged_since: int | None) -> None:
    both = {flag.lower() for flag in add} & {flag.lower() for flag in remove}
    if both:
        raise ArgumentError(f"asked to add and to remove the same flag: {min(both)[:60]!r}")
    if unchanged_since is not None:
        if not 0 <= unchanged_since <= _MAX_MOD_SEQ:
            raise ArgumentError("a mod-sequence is a number from 0 to 2^63 - 1")
        selected = dialogue.session.selected
        if not dialogue.session.features.condstore or (selected and selected.status.highest_mod_seq is None):
            raise UnsupportedError(
                f"{dialogue.endpoint}: a change on condition needs mod-sequences, which the mailbox has not"
            )
    _require_writable(dialogue, "UID STORE")


def _require_writable(dialogue: Dialogue, verb: str) -> None:
    selected = dialogue.session.selected
    if selected is None or selected.read_only:
        # Some servers answer OK to a change that they do not make.
        raise UnsupportedError(
            f"{dialogue.endpoint}: {verb} needs a mailbox that is selected for writing",
            hint="select it with read_only=False; where it is read-only even then, the server grants no more",
        )
