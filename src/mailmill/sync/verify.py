"""Is what the store holds what the server holds? A second opinion, by an enumeration of its own.

::

    look ──differences──▶ pass ──▶ look again, at those alone ──still there──▶ gaps ──repair, pass──▶ look once more
                                             └──gone──▶ settled: the mailbox was changing, or sync caught up

Laws:

- Nothing of sync's plan, changes or memory is used: the server is listed (LIST, UID SEARCH ALL, UID FETCH FLAGS), the
  store read plainly (``verify_reads``), the two compared (``verify_compare``, pure).
- The store is read before the server. What arrives in between is then *not seen yet*, never *claimed too early*.
- A difference counts only if it is still there on a second look, after a pass in between: mail changes while we look.
- It looks through a leased connection, a mailbox at a time: the watching connection and push are not held up.
- Nothing is written here; what is to be mended is written by the account's owner (``verify_repair``).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from mailmill.errors import ArgumentError, CommandError, MailmillError
from mailmill.imap.connection import ImapConnection
from mailmill.store.blobs import BlobStore
from mailmill.store.database import Database
from mailmill.store.verify_reads import (
    StoredMailbox,
    find_faults,
    stored_contents,
    stored_flags,
    stored_mailbox,
    stored_paths,
)
from mailmill.sync.report import PassReport
from mailmill.sync.verify_compare import (
    Findings,
    Gap,
    GapKind,
    Page,
    Sampling,
    ServerMailbox,
    compare_lists,
    compare_mailbox,
    compare_page,
    no_longer,
    pages,
    still_there,
    wanted_by,
)
from mailmill.sync.verify_repair import Repair, prepare_repair
from mailmill.uid_set import UidSet

# Differences that a look is the first to see are looked at again, this often at most.
_MOST_LOOKS = 3
# One repair may bring to light what only the next look can name.
_MOST_REPAIRS = 2
# What is hashed faster than a thread is woken.
_LOOP_HASH_BYTES = 256 * 1024
_PIECE_BYTES = 1024 * 1024

_OF_CONTENT = frozenset({GapKind.CONTENT, GapKind.UNREADABLE})
_OF_MAILBOX = frozenset({GapKind.MAILBOX_MISSING, GapKind.MAILBOX_SURPLUS, GapKind.GENERATION})

Lease = Callable[[str | None], AbstractAsyncContextManager[ImapConnection]]


class Doors(Protocol):
    """How the account under verification is reached."""

    def connections(self) -> AbstractAsyncContextManager[Lease]:
        """What to lease connections from, for the length of one look. Raises `ImapError`."""
        ...

    async def sync_pass(self, first: Callable[[], Awaitable[None]] | None = None) -> PassReport:
        """A full pass that begins after this call; errors are in the report.

        ``first`` is run by the account's owner before it, with nothing else of the account being written, and after it
        everything that sync remembers of the store is read anew.
        """
        ...


@dataclass(frozen=True, slots=True)
class VerifyOptions:
    """``page_messages``: UIDs compared at once; ``group_messages``: contents fetched and hashed at once."""

    sampling: Sampling = field(default_factory=Sampling)
    repair: bool = False
    page_messages: int = 5000
    group_messages: int = 50


@dataclass(slots=True)
class VerifyProgress:
    """How far it is. ``phase``: ``looking``, ``syncing``, ``confirming`` or ``repairing``; ``done`` of about ``total``
    messages are compared.
    """

    phase: str = "looking"
    mailbox: str = ""
    done: int = 0
    total: int = 0


@dataclass(slots=True)
class VerifyReport:
    """What verifying one account brought.

    ``gaps`` are those that are there now, ``repaired`` those that were and are not; ``settled`` is what was different
    at first and no more after a pass: mail that was changing, or what sync caught up with by itself. ``messages`` were
    compared by UID and flags, ``contents`` of them by their bytes too. ``unverified``: mailboxes that the server would
    not open, and why.
    """

    account: str
    full: bool = False
    mailboxes: int = 0
    messages: int = 0
    contents: int = 0
    gaps: list[Gap] = field(default_factory=list)
    repaired: list[Gap] = field(default_factory=list)
    settled: list[Gap] = field(default_factory=list)
    unverified: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    error: MailmillError | None = None

    def counts(self) -> dict[GapKind, int]:
        """Kind → messages (or mailboxes) with such a gap; those that have none are left out."""
        counts: dict[GapKind, int] = {}
        for gap in self.gaps:
            counts[gap.kind] = counts.get(gap.kind, 0) + gap.count
        return counts


async def verify_account(
    database: Database,
    blobs: BlobStore,
    *,
    account: str,
    account_id: int,
    globs: Iterable[str],
    doors: Doors,
    options: VerifyOptions,
    progress: VerifyProgress | None = None,
) -> VerifyReport:
    """Compare one account. What keeps it from being verified is in the report's ``error``; `StoreError` too.

    May be cancelled at any point; a repair that has begun commits mailbox by mailbox, each whole or not at all.
    """
    report = VerifyReport(account, full=options.sampling.full)
    loop = asyncio.get_running_loop()
    began = loop.time()
    verification = _Verification(
        database, blobs, account_id, tuple(globs), doors, options, report, progress or VerifyProgress()
    )
    try:
        await verification.run()
    except MailmillError as error:
        error.account = error.account or account
        report.error = error
    report.seconds = loop.time() - began
    return report


@dataclass(slots=True)
class _Scope:
    """What a look is about: whole mailboxes, and of others only some messages, of those only some contents."""

    whole: set[str] = field(default_factory=set)
    paths: set[str] = field(default_factory=set)
    messages: dict[str, UidSet] = field(default_factory=dict)
    contents: dict[str, UidSet] = field(default_factory=dict)

    @classmethod
    def of(cls, gaps: Iterable[Gap]) -> _Scope:
        scope = cls()
        for gap in gaps:
            scope.paths.add(gap.path)
            if gap.kind in _OF_MAILBOX:
                scope.whole.add(gap.path)
            part = scope.contents if gap.kind in _OF_CONTENT else scope.messages
            part[gap.path] = part.get(gap.path, UidSet()) | gap.uids
        return scope


class _Verification:
    def __init__(
        self,
        database: Database,
        blobs: BlobStore,
        account_id: int,
        globs: tuple[str, ...],
        doors: Doors,
        options: VerifyOptions,
        report: VerifyReport,
        progress: VerifyProgress,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._account_id = account_id
        self._wanted = wanted_by(globs)
        self._doors = doors
        self._options = options
        self._report = report
        self._progress = progress

    async def run(self) -> None:
        self._report.gaps = await self._confirmed(await self._look(None))
        if self._options.repair:
            for _ in range(_MOST_REPAIRS):
                if self._report.gaps:
                    await self._repair()

    async def _confirmed(self, suspects: list[Gap]) -> list[Gap]:
        """Those of ``suspects``, and of what the looks at them bring up, that are still there after a pass."""
        gaps: list[Gap] = []
        for _ in range(_MOST_LOOKS):
            if not suspects:
                break
            self._progress.phase = "syncing"
            await self._pass()
            self._progress.phase = "confirming"
            now = await self._look(_Scope.of(suspects))
            stayed, fresh = still_there(now, suspects)
            self._report.settled = _merged(self._report.settled, no_longer(suspects, now))
            gaps = _merged(gaps, stayed)
            suspects = fresh
        return gaps

    async def _repair(self) -> None:
        report = self._report
        self._progress.phase = "repairing"
        async with self._doors.connections() as lease:
            repair = await prepare_repair(self._database, self._blobs, self._account_id, lease, report.gaps)
        await self._pass(repair)
        now = await self._look(_Scope.of(report.gaps))
        report.repaired = _merged(report.repaired, no_longer(report.gaps, now))
        stayed, fresh = still_there(now, report.gaps)
        # What has been mended may have hidden more.
        report.gaps = _merged(stayed, await self._confirmed(fresh))

    async def _pass(self, repair: Repair | None = None) -> None:
        outcome = await self._doors.sync_pass(repair.apply if repair is not None else None)
        for error in outcome.errors:
            # Of one mailbox alone: the next look names what is wrong with it.
            if not isinstance(error, (CommandError, ArgumentError)):
                raise error

    async def _look(self, scope: _Scope | None) -> list[Gap]:
        """What differs now; with a ``scope`` only what is in it."""
        findings = Findings()
        report, progress = self._report, self._progress
        async with self._doors.connections() as lease:
            async with self._database.read() as reader:
                stored, expected = await stored_paths(reader, self._account_id)
            async with lease(None) as connection:
                listed = {ref.path: ref.selectable for ref in await connection.list_mailboxes()}
                # A server may hide from LIST what it lets us read (RFC 4314 §4): that is there.
                doubted = [path for path, selectable in stored.items() if selectable and not listed.get(path)]
                known = zip(doubted, await connection.statuses(doubted), strict=True) if doubted else ()
                listed |= {path: True for path, status in known if status is not None}
            paths = compare_lists(listed, stored, self._wanted, findings)
            if scope is None:
                report.mailboxes, report.messages, report.contents = len(paths), 0, 0
                progress.done, progress.total = 0, expected
            for path in paths:
                if scope is None or path in scope.paths:
                    progress.mailbox = path
                    async with lease(path) as connection:
                        await self._mailbox(connection, path, scope, findings)
        gaps = findings.gaps()
        return gaps if scope is None else [gap for gap in gaps if gap.path in scope.paths]

    async def _mailbox(self, connection: ImapConnection, path: str, scope: _Scope | None, findings: Findings) -> None:
        report, progress = self._report, self._progress
        async with self._database.read() as reader:
            stored = await stored_mailbox(reader, self._account_id, path)
        if stored is None:
            return
        try:
            status = await connection.select(path)
            server = ServerMailbox(status, await connection.search())
        except (CommandError, ArgumentError) as error:
            report.unverified[path] = error.message
            return
        if not compare_mailbox(stored, server, findings):
            return
        both = server.existing | stored.living
        whole = scope is None or path in scope.whole
        chosen = both if scope is None or whole else both & scope.messages.get(path, UidSet())
        for uids in pages(chosen, self._options.page_messages):
            await self._page(connection, stored, server, uids, findings)
            if scope is None:
                report.messages += len(uids)
                progress.done = report.messages
                progress.total = max(progress.total, progress.done)
        held = server.existing & stored.living
        if scope is None or whole:
            sample = self._options.sampling.choose(held, path)
        else:
            sample = held & scope.contents.get(path, UidSet())
        for uids in pages(sample, self._options.group_messages):
            compared = await self._contents(connection, stored, uids, findings)
            if scope is None:
                report.contents += compared

    async def _page(
        self, connection: ImapConnection, stored: StoredMailbox, server: ServerMailbox, uids: UidSet, findings: Findings
    ) -> None:
        async with self._database.read() as reader:
            held = await stored_flags(reader, stored, uids)
        there = uids & server.existing
        reply = await connection.fetch_flags(there)
        flags = {meta.uid: meta.flags for meta in reply.messages if meta.uid in there}
        # What SEARCH lists and FETCH leaves out is there, with flags that nobody knows.
        compare_page(stored, Page(uids, {uid: flags.get(uid) for uid in there}, held), findings)

    async def _contents(
        self, connection: ImapConnection, stored: StoredMailbox, uids: UidSet, findings: Findings
    ) -> int:
        """Compare the bytes of some messages, on both sides; returns how many."""
        async with self._database.read() as reader:
            contents = {each.uid: each for each in await stored_contents(reader, stored, uids)}
        if not contents:
            return 0
        faults = await find_faults(self._blobs, contents.values())
        for uid, fault in faults.items():
            findings.add_one(GapKind.UNREADABLE, stored.path, uid, fault)
        compared = 0
        try:
            async for fetched in connection.fetch_bodies(UidSet(contents)):
                content = contents.get(fetched.uid)
                digest, size = await _hashed(fetched.body)
                if content is None:
                    continue
                compared += 1
                if digest != content.sha256:
                    detail = (
                        f"the server sends {size} bytes (SHA-256 {digest.hex()[:12]}…), "
                        f"{content.size_bytes} bytes were stored ({content.sha256.hex()[:12]}…)"
                    )
                    findings.add_one(GapKind.CONTENT, stored.path, fetched.uid, detail)
        except CommandError as error:
            # Some went away meanwhile, or the server cannot send them: what came was compared.
            if stored.path not in self._report.unverified and not compared and contents:
                self._report.unverified[stored.path] = f"contents: {error.message}"
        return compared


async def _hashed(body: bytes | Path) -> tuple[bytes, int]:
    """SHA-256 and size. A file is ours, and is removed."""
    if isinstance(body, Path):
        return await asyncio.to_thread(_hash_file, body)
    if len(body) <= _LOOP_HASH_BYTES:
        return hashlib.sha256(body).digest(), len(body)
    return await asyncio.to_thread(lambda: hashlib.sha256(body).digest()), len(body)


def _hash_file(path: Path) -> tuple[bytes, int]:
    try:
        hasher, size = hashlib.sha256(), 0
        with path.open("rb") as file:
            while piece := file.read(_PIECE_BYTES):
                hasher.update(piece)
                size += len(piece)
        return hasher.digest(), size
    finally:
        path.unlink(missing_ok=True)


def _merged(some: Iterable[Gap], more: Iterable[Gap]) -> list[Gap]:
    findings = Findings()
    findings.extend(some)
    findings.extend(more)
    return findings.gaps()
