"""An IMAP server that keeps mailboxes in memory, in the test's own loop, and does wrong exactly what it is told to.

::

    async with FakeImap() as server:
        server.inbox.add(raw)                               # seen by idling clients at once, like any delivery
        server.fault(rb"UID FETCH .*BODY", cut(at=120))     # the next such command; ``times=None`` for all of them
        async with synced_account(data_dir, server.endpoint(), server.credentials()) as account: ...

It answers what mailmill sends, in three tiers (`QRESYNC`, `CONDSTORE`, `PLAIN`), and keeps for each session what it was
told, so that news comes once and where the protocol has it come. A fault gets the right answer, response by response,
and sends what it likes instead (`fake_imap_faults`).
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from harness import fake_imap_writes as writes
from harness.fake_imap_notify import Notify
from harness.fake_mailbox import FakeMailbox
from mailmill.model import Credentials, Endpoint
from mailmill.uid_set import UidSet
from servers.scripted import Command, ScriptedServer, Talk

PLAIN = "IMAP4rev1 SASL-IR AUTH=PLAIN ID IDLE UIDPLUS"
CONDSTORE = PLAIN + " ENABLE ESEARCH CONDSTORE LIST-STATUS SPECIAL-USE MOVE LITERAL-"
QRESYNC = CONDSTORE + " QRESYNC LITERAL+"
TIERS = {"qresync": QRESYNC, "condstore": CONDSTORE, "plain": PLAIN}

_FETCH = re.compile(rb"UID FETCH (\S+) \(([^)]*)\)(?: \(CHANGEDSINCE (\d+)( VANISHED)?\))?$")
_SEARCH = re.compile(rb"UID SEARCH (RETURN \(ALL\) )?(?:ALL|(?:UID (\S+))? ?(?:HEADER (.*)|BEFORE (\S+))?)$", re.DOTALL)
_STATUS = re.compile(rb"STATUS (.+) \((.*)\)$", re.DOTALL)
_LIST = re.compile(rb'LIST "" "?\*"?(?: RETURN \((.*)\))?$')

# Messages of a mailbox that is too large to be compared at each command.
_MANY = 20_000

Answer = list[bytes]
Act = Callable[["Client", Command, Answer], Awaitable[None]]


@dataclass(slots=True)
class _Fault:
    pattern: re.Pattern[bytes]
    act: Act
    left: int | None
    applied: bool


@dataclass(slots=True, eq=False)
class Client:
    """One session. ``told`` is what it knows of the selected mailbox: UID → flags."""

    server: FakeImap
    talk: Talk
    selected: FakeMailbox | None = None
    read_only: bool = True
    told: dict[int, frozenset[str]] = field(default_factory=dict)
    told_mod_seq: int = 0
    qresync: bool = False
    sent_bytes: int = 0
    news_came: asyncio.Event = field(default_factory=asyncio.Event)
    notify: Notify | None = None
    idling: bool = False

    async def send(self, responses: Answer) -> None:
        data = b"".join(responses)
        limit = self.server.cut_after_bytes
        if limit is not None and self.sent_bytes + len(data) > limit:
            await self.talk.cut(data, limit - self.sent_bytes)
            raise ConnectionResetError("cut as asked")
        self.sent_bytes += len(data)
        await self.talk.send(data)

    def news(self) -> Answer:
        """What this session has not been told yet; it counts as told from here on."""
        of_selected = self._news_of_selected()
        if self.notify is None:
            return of_selected
        return self.notify.news(self.server.told_by_notify, self.selected, of_selected)

    def _news_of_selected(self) -> Answer:
        mailbox = self.selected
        if mailbox is None:
            return []
        if len(mailbox.messages) > _MANY:
            # To compare so many each time would be most of what a test does.
            if mailbox.highest_mod_seq == self.told_mod_seq:
                return []
            self.told_mod_seq = mailbox.highest_mod_seq
        out: Answer = []
        gone = [uid for uid in self.told if uid not in mailbox.messages]
        if gone and self.qresync:
            out.append(b"* VANISHED %s\r\n" % str(UidSet(gone)).encode())
        for uid in gone:
            if not self.qresync:
                out.append(b"* %d EXPUNGE\r\n" % (list(self.told).index(uid) + 1))
            del self.told[uid]
        if any(uid not in self.told for uid in mailbox.messages):
            out.append(b"* %d EXISTS\r\n" % len(mailbox.messages))
        for uid, message in mailbox.messages.items():
            if uid in self.told and self.told[uid] != message.flags:
                out.append(self.fetched(uid, b"FLAGS"))
        self.told = {uid: message.flags for uid, message in mailbox.messages.items()}
        return out

    def fetched(self, uid: int, *items: bytes, seq: int | None = None) -> bytes:
        """A FETCH response; ``seq`` where it is known already."""
        assert self.selected is not None
        message = self.selected.messages[uid]
        values = [b"UID %d" % uid]
        for item in items:
            if item == b"FLAGS":
                values.append(b"FLAGS (%s)" % " ".join(sorted(message.flags)).encode())
            elif item == b"INTERNALDATE":
                values.append(b'INTERNALDATE "%s"' % message.internal_date)
            elif item == b"RFC822.SIZE":
                size = len(message.raw) if message.size_bytes is None else message.size_bytes
                values.append(b"RFC822.SIZE %d" % size)
            elif item == b"EMAILID":
                values.append(b"EMAILID (%s)" % (message.email_id or hashlib.md5(message.raw).hexdigest()).encode())
            elif item == b"THREADID":
                values.append(b"THREADID NIL")
            elif item == b"MODSEQ":
                values.append(b"MODSEQ (%d)" % message.mod_seq)
            elif item == b"BODY.PEEK[]":
                values.append(b"BODY[] {%d}\r\n%s" % (len(message.raw), message.raw))
        seq = seq or list(self.selected.messages).index(uid) + 1
        return b"* %d FETCH (%s)\r\n" % (seq, b" ".join(values))


class FakeImap:
    """One account on one server. ``logins`` counts them, refused ones too; ``commands`` are all that came, in order.

    ``cut_after_bytes``: every connection is cut after this many bytes of the server's. ``untold``: mailboxes of which
    NOTIFY tells nothing.
    """

    def __init__(self, *mailboxes: FakeMailbox, capabilities: str = QRESYNC) -> None:
        self.capabilities = capabilities
        self.commands: list[bytes] = []
        self.logins = 0
        self.cut_after_bytes: int | None = None
        self._mailboxes: dict[str, FakeMailbox] = {}
        self._faults: list[_Fault] = []
        self._clients: set[Client] = set()
        self.untold: set[str] = set()
        self._moved = asyncio.Event()
        self._scripted = ScriptedServer(self._serve)
        for mailbox in mailboxes or (FakeMailbox(),):
            self.create(mailbox)

    async def __aenter__(self) -> Self:
        await self._scripted.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._scripted.__aexit__(kind, error, traceback)

    def mailbox(self, path: str) -> FakeMailbox:
        return self._mailboxes[path]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Until ``condition`` holds; looked at again whenever a command comes or an IDLE begins."""
        async with asyncio.timeout(30):
            while not condition():
                self._moved.clear()
                await self._moved.wait()

    async def idling(self) -> Client:
        """The session that idles, as soon as there is one."""
        await self.until(lambda: any(client.idling for client in self._clients))
        return next(client for client in self._clients if client.idling)

    def moved(self) -> None:
        self._moved.set()

    @property
    def inbox(self) -> FakeMailbox:
        return self._mailboxes["INBOX"]

    @property
    def connections(self) -> int:
        """How many were ever made."""
        return self._scripted.connections

    def create(self, mailbox: FakeMailbox) -> FakeMailbox:
        self._mailboxes[mailbox.path] = mailbox
        mailbox.changed = self._tell_all
        self._tell_all()
        return mailbox

    def delete(self, path: str) -> FakeMailbox:
        """Sessions that have it selected keep what they see."""
        mailbox = self._mailboxes.pop(path)
        self._tell_all()
        return mailbox

    def rename(self, path: str, to: str) -> FakeMailbox:
        """The mailbox goes with its UIDVALIDITY and its UIDs, as Dovecot and Cyrus do it."""
        mailbox = self._mailboxes.pop(path)
        mailbox.path = to
        self._mailboxes[to] = mailbox
        self._tell_all()
        return mailbox

    def overflow(self) -> None:
        """Every session with NOTIFY is told that it will be told no more."""
        for client in self._clients:
            if client.notify is not None:
                client.notify.overflow = True
        self._tell_all()

    @property
    def told_by_notify(self) -> dict[str, FakeMailbox]:
        return {path: one for path, one in self._mailboxes.items() if path not in self.untold}

    def endpoint(self) -> Endpoint:
        return self._scripted.endpoint()

    def credentials(self) -> Credentials:
        return Credentials("ann", "secret-of-ann")

    def truth(self) -> dict[str, dict[int, tuple[frozenset[str], bytes]]]:
        """Path → UID → flags and raw message."""
        return {path: mailbox.held() for path, mailbox in self._mailboxes.items() if mailbox.selectable}

    def fault(self, pattern: bytes, act: Act, *, times: int | None = 1, applied: bool = True) -> None:
        """Have ``act`` answer the next ``times`` commands that ``pattern`` matches at their start; None: all.

        Unless ``applied``, the commands change nothing on the server, and there is no right answer to make another of.
        """
        self._faults.append(_Fault(re.compile(pattern, re.IGNORECASE | re.DOTALL), act, times, applied))

    def heal(self) -> None:
        """No more faults."""
        self._faults.clear()
        self.cut_after_bytes = None

    def count(self, pattern: bytes) -> int:
        """How many commands ``pattern`` matches at their start."""
        return sum(re.match(pattern, line, re.IGNORECASE | re.DOTALL) is not None for line in self.commands)

    # -- one session --------------------------------------------------------------------------------------------------

    async def _serve(self, talk: Talk) -> None:
        client = Client(self, talk)
        self._clients.add(client)
        talk.capabilities = self.capabilities
        try:
            greeting = b"* OK [CAPABILITY " + self.capabilities.encode() + b"] fake\r\n"
            client.sent_bytes = len(greeting)
            await talk.greet(greeting[: self.cut_after_bytes])
            if self.cut_after_bytes is not None and self.cut_after_bytes < len(greeting):
                await talk.hang_up()
                return
            while True:
                command = await talk.expect(rb"")
                self.commands.append(command.line)
                self.moved()
                if command.verb in (b"LOGIN", b"AUTHENTICATE"):
                    self.logins += 1
                fault = next((one for one in self._faults if one.left != 0 and one.pattern.match(command.line)), None)
                answer = self._answer(client, command) if fault is None or fault.applied else []
                if fault is not None:
                    if fault.left is not None:
                        fault.left -= 1
                    await fault.act(client, command, answer)
                elif command.verb == b"IDLE":
                    await idle(client, command)
                else:
                    await client.send(answer)
                if command.verb == b"LOGOUT":
                    await talk.hang_up()
                    return
        finally:
            self._clients.discard(client)

    def _tell_all(self) -> None:
        for client in self._clients:
            client.news_came.set()

    def _answer(self, client: Client, command: Command) -> Answer:
        verb, text = command.verb, b"done"
        match verb:
            case b"SELECT" | b"EXAMINE":
                return self._select(client, command)
            case b"UID FETCH":
                answer = self._fetch(client, command)
            case b"UID SEARCH":
                answer = self._search(client, command)
            case b"LIST":
                answer = self._list(command)
            case b"STATUS":
                found = _STATUS.match(command.line)
                assert found is not None, command.line
                mailbox = self._named(found[1])
                if mailbox is None or not mailbox.selectable:
                    return [command.tag + b" NO [NONEXISTENT] no such mailbox\r\n"]
                answer = [self._status(mailbox, found[2])]
            case b"CAPABILITY":
                answer = [b"* CAPABILITY " + self.capabilities.encode() + b"\r\n"]
            case b"ENABLE":
                client.qresync = b"QRESYNC" in command.line.upper()
                answer = [b"* ENABLED" + command.line[len("ENABLE") :] + b"\r\n"]
            case b"ID":
                answer = [b'* ID ("name" "fake")\r\n']
            case b"LOGIN" | b"AUTHENTICATE":
                answer, text = [], b"[CAPABILITY " + self.capabilities.encode() + b"] welcome"
            case b"LOGOUT":
                answer = [b"* BYE so long\r\n"]
            case b"NOTIFY":
                client.notify = client.notify or Notify()
                covered = frozenset(self.told_by_notify)
                answer = client.notify.set(command.line, self._mailboxes, client.selected, covered)
            case b"NOOP" | b"IDLE":
                answer = []
            case _:
                answer, tagged = writes.answer(client, command, self._mailboxes)
                if not tagged.startswith(b"OK"):
                    return [*answer, command.tag + b" " + tagged + b"\r\n"]
                text = tagged.removeprefix(b"OK ")
        if verb != b"IDLE":
            answer += client.news()
        return [*answer, command.tag + b" OK " + text + b"\r\n"]

    def _select(self, client: Client, command: Command) -> Answer:
        name = command.line.split(b" ", 1)[1].removesuffix(b" (CONDSTORE)")
        closed = [b"* OK [CLOSED] the other one\r\n"] if client.selected is not None and client.qresync else []
        client.selected, client.told = self._named(name), {}
        if client.selected is None or not client.selected.selectable:
            client.selected = None
            return [*closed, command.tag + b" NO [NONEXISTENT] no such mailbox\r\n"]
        mailbox = client.selected
        client.told = {uid: message.flags for uid, message in mailbox.messages.items()}
        client.told_mod_seq = mailbox.highest_mod_seq
        answer = [
            *closed,
            b"* FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft)\r\n",
            b"* %d EXISTS\r\n" % len(mailbox.messages),
            b"* 0 RECENT\r\n",
            b"* OK [UIDVALIDITY %d] valid\r\n" % mailbox.uid_validity,
            b"* OK [UIDNEXT %d] next\r\n" % mailbox.uid_next,
        ]
        if "CONDSTORE" in self.capabilities:
            mod_seq = b"HIGHESTMODSEQ %d" % mailbox.highest_mod_seq if mailbox.mod_seqs else b"NOMODSEQ"
            answer.append(b"* OK [" + mod_seq + b"] mod\r\n")
        client.read_only = command.verb == b"EXAMINE"
        access = b"READ-ONLY" if client.read_only else b"READ-WRITE"
        return [*answer, command.tag + b" OK [" + access + b"] selected\r\n"]

    def _fetch(self, client: Client, command: Command) -> Answer:
        found = _FETCH.match(command.line)
        mailbox = client.selected
        assert found is not None and mailbox is not None, command.line
        wanted, items, since = UidSet.parse(found[1].decode()), found[2].split(), int(found[3] or 0)
        if not mailbox.mod_seqs and (b"MODSEQ" in items or since):
            raise AssertionError("a mailbox without mod-sequences was asked for them")
        answer: Answer = []
        if found[4]:
            gone = UidSet(uid for uid, mod_seq in mailbox.expunged.items() if mod_seq > since and uid in wanted)
            answer += [b"* VANISHED (EARLIER) %s\r\n" % str(gone).encode()] if gone else []
        for seq, (uid, message) in enumerate(mailbox.messages.items(), 1):
            if uid in wanted and message.mod_seq > since and not (message.withheld and b"BODY.PEEK[]" in items):
                answer.append(client.fetched(uid, *items, seq=seq))
                if b"FLAGS" in items and uid in client.told:
                    client.told[uid] = message.flags
        return answer

    def _search(self, client: Client, command: Command) -> Answer:
        found = _SEARCH.match(command.line)
        assert found is not None and client.selected is not None, command.line
        uids = UidSet(client.selected.messages)
        if found[2]:
            uids = uids & UidSet.parse(found[2].decode())
        if found[3]:
            uids = writes.with_header(client.selected, uids, found[3])
        if found[4]:
            day = _day(found[4])
            uids = UidSet(uid for uid, one in client.selected.messages.items() if _day(one.internal_date[:11]) < day)
        if found[1]:
            return [b'* ESEARCH (TAG "%s") UID%s\r\n' % (command.tag, f" ALL {uids}".encode() if uids else b"")]
        return [b"* SEARCH" + b"".join(b" %d" % uid for uid in uids) + b"\r\n"]

    def _list(self, command: Command) -> Answer:
        found = _LIST.match(command.line)
        assert found is not None, command.line
        status = re.search(rb"STATUS \((.*?)\)", found[1] or b"")
        answer: Answer = []
        for mailbox in self._mailboxes.values():
            name = _quoted(mailbox.wire_name)
            answer.append(b"* LIST (%s) %s %s\r\n" % (mailbox.attributes, mailbox.delimiter, name))
            if status is not None and mailbox.selectable:
                answer.append(self._status(mailbox, status[1]))
        return answer

    def _named(self, sent: bytes) -> FakeMailbox | None:
        """The mailbox that a command names: a quoted string, a literal or an atom."""
        name = re.sub(rb"^\{\d+\+?\}\r\n", b"", sent)
        if name == sent and name.startswith(b'"'):
            name = re.sub(rb"\\(.)", rb"\1", name[1:-1])
        return next((mailbox for mailbox in self._mailboxes.values() if mailbox.wire_name == name), None)

    def _status(self, mailbox: FakeMailbox, items: bytes) -> bytes:
        values = b" ".join(b"%s %d" % (item, mailbox.status(item.decode())) for item in items.split())
        return b"* STATUS %s (%s)\r\n" % (_quoted(mailbox.wire_name), values)


def _day(text: bytes) -> datetime:
    return datetime.strptime(text.decode(), "%d-%b-%Y").replace(tzinfo=UTC)


def _quoted(name: bytes) -> bytes:
    if re.search(rb"[\r\n\x80-\xff]", name):
        return b"{%d}\r\n%s" % (len(name), name)
    return b'"' + re.sub(rb'(["\\])', rb"\\\1", name) + b'"'


async def idle(client: Client, command: Command) -> None:
    """IDLE as it should be: news as it comes, until DONE."""
    await client.send([b"+ idling\r\n"])
    line = asyncio.ensure_future(client.talk.read_line())
    client.idling = True
    client.server.moved()
    try:
        while True:
            client.news_came.clear()
            if news := client.news():
                await client.send(news)
            came = asyncio.ensure_future(client.news_came.wait())
            await asyncio.wait({line, came}, return_when=asyncio.FIRST_COMPLETED)
            came.cancel()
            if line.done():
                assert line.result().strip().upper() == b"DONE", line.result()
                break
    finally:
        line.cancel()
        client.idling = False
    await client.send([*client.news(), command.tag + b" OK idle ended\r\n"])
