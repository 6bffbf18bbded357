"""An IMAP server that keeps mailboxes in memory, in the test's own loop, and does wrong exactly what it is told to.

::

    async with FakeImap() as server:
        server.inbox.add(raw)                               # seen by idling clients at once, like any delivery
        server.fault(rb"UID FETCH .*BODY", cut(at=120))     # the next such command; ``times=None`` for all of them
        async with synced_account(data_dir, server.endpoint(), server.credentials()) as account: ...

It answers what mailmill sends, in three tiers (`QRESYNC`, `CONDSTORE`, `PLAIN`), and keeps for each session what it was
told, so that news comes once and where the protocol has it come. A fault gets the right answer, response by response,
and sends what it likes instead.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from mailmill.model import Credentials, Endpoint
from mailmill.uid_set import UidSet
from servers.scripted import Command, ScriptedServer, Talk

PLAIN = "IMAP4rev1 SASL-IR AUTH=PLAIN ID IDLE UIDPLUS"
CONDSTORE = PLAIN + " ENABLE ESEARCH CONDSTORE LIST-STATUS SPECIAL-USE"
QRESYNC = CONDSTORE + " QRESYNC"
TIERS = {"qresync": QRESYNC, "condstore": CONDSTORE, "plain": PLAIN}

_FETCH = re.compile(rb"UID FETCH (\S+) \(([^)]*)\)(?: \(CHANGEDSINCE (\d+)( VANISHED)?\))?$")
_SEARCH = re.compile(rb"UID SEARCH (RETURN \(ALL\) )?(?:ALL|UID (\S+))$")
_STATUS = re.compile(rb'STATUS "?([^"]+?)"? \((.*)\)$')
_LIST = re.compile(rb'LIST "" "?\*"?(?: RETURN \((.*)\))?$')

Answer = list[bytes]
Act = Callable[["Client", Command, Answer], Awaitable[None]]


@dataclass(slots=True)
class FakeMessage:
    """``size_bytes`` is what RFC822.SIZE says, where that is a lie. ``withheld``: listed, its body is never sent."""

    raw: bytes
    flags: frozenset[str]
    mod_seq: int
    size_bytes: int | None = None
    withheld: bool = False


class FakeMailbox:
    """``messages`` by UID, ascending. ``mod_seqs`` False: the mailbox has none (NOMODSEQ), whatever the server can."""

    def __init__(self, path: str = "INBOX", *, uid_validity: int = 7, mod_seqs: bool = True) -> None:
        self.path = path
        self.uid_validity = uid_validity
        self.uid_next = 1
        self.mod_seqs = mod_seqs
        self.highest_mod_seq = 1
        self.messages: dict[int, FakeMessage] = {}
        self.expunged: dict[int, int] = {}
        self.changed: Callable[[], None] = lambda: None

    def add(self, *raws: bytes, flags: Iterable[str] = ()) -> int:
        """Deliver messages; returns the UID of the last."""
        for raw in raws:
            self.messages[self.uid_next] = FakeMessage(raw, frozenset(flags), self._next_mod_seq())
            self.uid_next += 1
        self.changed()
        return self.uid_next - 1

    def set_flags(self, uid: int, *flags: str) -> None:
        message = self.messages[uid]
        message.flags, message.mod_seq = frozenset(flags), self._next_mod_seq()
        self.changed()

    def expunge(self, *uids: int) -> None:
        for uid in uids:
            del self.messages[uid]
            self.expunged[uid] = self._next_mod_seq()
        self.changed()

    def renumber(self, uid_validity: int, *, first_uid: int = 1) -> None:
        """The same messages in a new generation."""
        self.uid_validity = uid_validity
        self.messages = dict(enumerate(self.messages.values(), first_uid))
        self.expunged.clear()
        self.uid_next = first_uid + len(self.messages)

    def held(self) -> dict[int, tuple[frozenset[str], bytes]]:
        """UID → flags and raw message: the truth."""
        return {uid: (message.flags, message.raw) for uid, message in self.messages.items()}

    def status(self, name: str) -> int:
        return {
            "MESSAGES": len(self.messages),
            "UIDNEXT": self.uid_next,
            "UIDVALIDITY": self.uid_validity,
            "HIGHESTMODSEQ": self.highest_mod_seq if self.mod_seqs else 0,
        }[name]

    def _next_mod_seq(self) -> int:
        self.highest_mod_seq += 1
        return self.highest_mod_seq


@dataclass(slots=True)
class _Fault:
    pattern: re.Pattern[bytes]
    act: Act
    left: int | None


@dataclass(slots=True, eq=False)
class Client:
    """One session. ``told`` is what it knows of the selected mailbox: UID → flags."""

    server: FakeImap
    talk: Talk
    selected: FakeMailbox | None = None
    told: dict[int, frozenset[str]] = field(default_factory=dict)
    qresync: bool = False
    sent_bytes: int = 0
    news_came: asyncio.Event = field(default_factory=asyncio.Event)

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
        mailbox = self.selected
        if mailbox is None:
            return []
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

    def fetched(self, uid: int, *items: bytes) -> bytes:
        """A FETCH response."""
        assert self.selected is not None
        message = self.selected.messages[uid]
        values = [b"UID %d" % uid]
        for item in items:
            if item == b"FLAGS":
                values.append(b"FLAGS (%s)" % " ".join(sorted(message.flags)).encode())
            elif item == b"INTERNALDATE":
                values.append(b'INTERNALDATE "21-Nov-2026 10:00:00 +0000"')
            elif item == b"RFC822.SIZE":
                values.append(b"RFC822.SIZE %d" % (message.size_bytes or len(message.raw)))
            elif item == b"MODSEQ":
                values.append(b"MODSEQ (%d)" % message.mod_seq)
            elif item == b"BODY.PEEK[]":
                values.append(b"BODY[] {%d}\r\n%s" % (len(message.raw), message.raw))
        seq = list(self.selected.messages).index(uid) + 1
        return b"* %d FETCH (%s)\r\n" % (seq, b" ".join(values))


class FakeImap:
    """One account on one server. ``logins`` counts them, refused ones too; ``commands`` are all that came, in order.

    ``cut_after_bytes``: every connection is cut after this many bytes of the server's.
    """

    def __init__(self, *mailboxes: FakeMailbox, capabilities: str = QRESYNC) -> None:
        self.capabilities = capabilities
        self.commands: list[bytes] = []
        self.logins = 0
        self.cut_after_bytes: int | None = None
        self._mailboxes: dict[str, FakeMailbox] = {}
        self._faults: list[_Fault] = []
        self._clients: set[Client] = set()
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
        return mailbox

    def endpoint(self) -> Endpoint:
        return self._scripted.endpoint()

    def credentials(self) -> Credentials:
        return Credentials("ann", "secret-of-ann")

    def truth(self) -> dict[str, dict[int, tuple[frozenset[str], bytes]]]:
        """Path → UID → flags and raw message."""
        return {path: mailbox.held() for path, mailbox in self._mailboxes.items()}

    def fault(self, pattern: bytes, act: Act, *, times: int | None = 1) -> None:
        """Have ``act`` answer the next ``times`` commands that ``pattern`` matches at their start; None: all."""
        self._faults.append(_Fault(re.compile(pattern, re.IGNORECASE | re.DOTALL), act, times))

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
                if command.verb in (b"LOGIN", b"AUTHENTICATE"):
                    self.logins += 1
                answer = self._answer(client, command)
                fault = next((one for one in self._faults if one.left != 0 and one.pattern.match(command.line)), None)
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
                if found[1].decode() not in self._mailboxes:
                    return [command.tag + b" NO [NONEXISTENT] no such mailbox\r\n"]
                answer = [self._status(found[1].decode(), found[2])]
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
            case b"NOOP" | b"IDLE":
                answer = []
            case _:
                raise AssertionError(f"the client sent {command.line!r}")
        if verb != b"IDLE":
            answer += client.news()
        return [*answer, command.tag + b" OK " + text + b"\r\n"]

    def _select(self, client: Client, command: Command) -> Answer:
        path = command.line.split(b" ", 1)[1].removesuffix(b" (CONDSTORE)").strip(b'"').decode()
        closed = [b"* OK [CLOSED] the other one\r\n"] if client.selected is not None and client.qresync else []
        client.selected, client.told = self._mailboxes.get(path), {}
        if client.selected is None:
            return [*closed, command.tag + b" NO [NONEXISTENT] no such mailbox\r\n"]
        mailbox = client.selected
        client.told = {uid: message.flags for uid, message in mailbox.messages.items()}
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
        return [*answer, command.tag + b" OK [READ-ONLY] selected\r\n"]

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
        for uid, message in mailbox.messages.items():
            if uid in wanted and message.mod_seq > since and not (message.withheld and b"BODY.PEEK[]" in items):
                answer.append(client.fetched(uid, *items))
                if b"FLAGS" in items and uid in client.told:
                    client.told[uid] = message.flags
        return answer

    def _search(self, client: Client, command: Command) -> Answer:
        found = _SEARCH.match(command.line)
        assert found is not None and client.selected is not None, command.line
        uids = UidSet(client.selected.messages)
        if found[2]:
            uids = uids & UidSet.parse(found[2].decode())
        if found[1]:
            return [b'* ESEARCH (TAG "%s") UID%s\r\n' % (command.tag, f" ALL {uids}".encode() if uids else b"")]
        return [b"* SEARCH" + b"".join(b" %d" % uid for uid in uids) + b"\r\n"]

    def _list(self, command: Command) -> Answer:
        found = _LIST.match(command.line)
        assert found is not None, command.line
        status = re.search(rb"STATUS \((.*?)\)", found[1] or b"")
        answer: Answer = []
        for path in self._mailboxes:
            answer.append(b'* LIST (\\HasNoChildren) "/" "%s"\r\n' % path.encode())
            if status is not None:
                answer.append(self._status(path, status[1]))
        return answer

    def _status(self, path: str, items: bytes) -> bytes:
        mailbox = self._mailboxes[path]
        values = b" ".join(b"%s %d" % (item, mailbox.status(item.decode())) for item in items.split())
        return b'* STATUS "%s" (%s)\r\n' % (path.encode(), values)


async def idle(client: Client, command: Command) -> None:
    """IDLE as it should be: news as it comes, until DONE."""
    await client.send([b"+ idling\r\n"])
    line = asyncio.ensure_future(client.talk.read_line())
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
    await client.send([*client.news(), command.tag + b" OK idle ended\r\n"])


# -- faults -----------------------------------------------------------------------------------------------------------


def cut(at: int) -> Act:
    """The answer as far as its byte ``at``, then the end of the connection."""

    async def act(client: Client, _command: Command, answer: Answer) -> None:
        await client.talk.cut(b"".join(answer), at)
        raise ConnectionResetError("cut as asked")

    return act


def altered(change: Callable[[Answer], Answer]) -> Act:
    """Another answer, made of the right one."""

    async def act(client: Client, _command: Command, answer: Answer) -> None:
        await client.send(change(answer))

    return act


def replaced(pattern: bytes, by: bytes, *, required: bool = True) -> Act:
    """The right answer with every match of ``pattern`` in a response replaced. Where it is ``required``, an answer
    with nothing to replace fails the test.
    """

    async def act(client: Client, _command: Command, answer: Answer) -> None:
        changed = [re.sub(pattern, by, response, flags=re.DOTALL) for response in answer]
        assert changed != answer or not required, f"nothing in {answer!r} is like {pattern!r}"
        await client.send(changed)

    return act


def refused(status: str = "NO", text: str = "not now") -> Act:
    """Tagged NO or BAD and nothing else."""

    async def act(client: Client, command: Command, _answer: Answer) -> None:
        await client.talk.tagged(command, status, text)

    return act


def deaf(reached: asyncio.Event, first: bytes = b"") -> Act:
    """``first``, and then not a word, for ever, while the connection stays open."""

    async def act(client: Client, _command: Command, _answer: Answer) -> None:
        await client.send([first])
        reached.set()
        await client.talk.silence()
        raise ConnectionResetError("the client gave up")

    return act
