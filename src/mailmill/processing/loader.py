"""Messages for the processors: where they are and what they say, read in batches and parsed once for all of them.

Every bound is in raw bytes: what is read ahead at a time, and what the cache keeps (a parsed message takes up to about
three times its raw size). Big messages are parsed in a thread, small ones on the loop, which then gets a turn.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Final, Protocol

from sqlalchemy import select

from mailmill.errors import StorageUnavailableError, StoreError
from mailmill.message_parser import ParsedMessage, parse_message
from mailmill.processing.threads import in_default_thread
from mailmill.store.blobs import BlobRef
from mailmill.store.sender_history import read_histories
from mailmill.store.tables import account, blob, mailbox, message, place

if TYPE_CHECKING:
    from mailmill.model import SenderHistory
    from mailmill.store.database import Database

READ_AHEAD_BYTES: Final = 8 << 20
CACHE_BYTES: Final = 8 << 20
PARSE_INLINE_BYTES: Final = 256 << 10

_MAX_CACHED: Final = 2000
_FRESH_SECONDS: Final = 5.0

Parse = Callable[[bytes], ParsedMessage]


class RawMessages(Protocol):
    """Where raw bytes come from: :class:`mailmill.store.blobs.BlobStore`."""

    async def get_many(self, refs: Collection[BlobRef]) -> dict[bytes, bytes]: ...


class LoadedMessage:
    """One message with its whereabouts. ``paths`` is as of a few seconds ago at most."""

    __slots__ = (
        "_error", "_parse", "_parsed", "_parsing", "_raw",
        "account", "account_email", "described_at", "historical", "message_id", "paths", "ref",
    )  # fmt: skip

    def __init__(
        self, message_id: int, account: str, account_email: str, historical: bool, paths: tuple[str, ...], ref: BlobRef
    ) -> None:
        self.message_id = message_id
        self.account = account
        self.account_email = account_email
        self.historical = historical
        self.paths = paths
        self.ref = ref
        self.described_at = time.monotonic()
        self._raw: bytes | None = None
        self._parsed: ParsedMessage | None = None
        self._parsing: asyncio.Future[ParsedMessage] | None = None
        self._error: StoreError | None = None

    @property
    def size_bytes(self) -> int:
        """The raw size."""
        return self.ref.size_bytes

    @property
    def has_content(self) -> bool:
        return self._raw is not None or self._parsed is not None

    def give_content(self, content: bytes | StoreError) -> None:
        if isinstance(content, StoreError):
            self._error = content
        else:
            self._raw, self._error = content, None

    def like(self, known: LoadedMessage) -> None:
        """Take over what ``known``, of the same content, has read and parsed."""
        self._raw, self._parsed, self._parsing = known._raw, known._parsed, known._parsing

    def unparsed(self) -> bytes | ParsedMessage:
        """For whoever parses elsewhere: the raw bytes, or the message if it has been parsed. Raises StoreError."""
        if self._parsed is not None:
            return self._parsed
        if self._error is not None:
            raise self._error
        if self._raw is None:
            raise StoreError(f"the raw bytes of message {self.message_id} were not read")
        return self._raw

    async def parsed(self, parse: Parse) -> ParsedMessage:
        """The message, parsed once however many ask. Raises StoreError where its raw bytes cannot be had, and
        NotStartedError where there is no thread to parse it in; a later call tries again.
        """
        if self._parsing is None:
            raw = self.unparsed()
            if not isinstance(raw, bytes):
                return raw
            if len(raw) <= PARSE_INLINE_BYTES:
                self._parsed, self._raw = parse(raw), None
                await asyncio.sleep(0)
                return self._parsed
            self._parsing = in_default_thread(parse, raw)
        # One caller's cancellation must not take the others' message along.
        parsing = self._parsing
        self._parsed = await asyncio.shield(parsing)
        self._raw = self._parsing = None
        return self._parsed


class MessageLoader:
    """Reads messages for all processors of one worker. Belongs to one event loop."""

    def __init__(
        self,
        database: Database,
        blobs: RawMessages,
        *,
        parse: Parse = parse_message,
        cache_bytes: int = CACHE_BYTES,
        read_ahead_bytes: int = READ_AHEAD_BYTES,
    ) -> None:
        self.parse = parse
        self._database = database
        self._blobs = blobs
        self._cache_bytes = cache_bytes
        self._read_ahead_bytes = read_ahead_bytes
        self._known: OrderedDict[int, LoadedMessage] = OrderedDict()
        self._known_bytes = 0
        # One at a time: processors that claimed the same messages at once find them read when their turn comes.
        self._turn = asyncio.Lock()

    async def load(self, message_ids: Sequence[int]) -> list[LoadedMessage | None]:
        """The first of ``message_ids``, as many as the read-ahead allows and at least one; None for one that is
        gone, or whose raw bytes are.

        Raises StoreError where the database cannot be read, or no raw bytes at all (StorageUnavailableError); what is
        damaged fails its message alone.
        """
        async with self._turn:
            loaded = await self._describe(message_ids)
            ahead: list[LoadedMessage | None] = []
            to_read: dict[bytes, LoadedMessage] = {}
            read_bytes = 0
            for message_id in message_ids:
                one = loaded.get(message_id)
                if one is not None and not one.has_content:
                    read_bytes += one.size_bytes
                    if ahead and read_bytes > self._read_ahead_bytes:
                        break
                    to_read[one.ref.sha256] = one
                ahead.append(one)
            await self._read(list(to_read.values()), [one for one in ahead if one is not None])
            self._evict()
            return ahead

    async def histories(self, message_ids: Sequence[int]) -> dict[int, SenderHistory]:
        """What was known of each message's sender before it came. Raises StoreError where that cannot be read."""
        # Loaded by those that ask for it: the lists of public suffixes and of free mail take memory.
        from mailmill.processing.threat.evidence.hosts import organisation_of
        from mailmill.processing.threat.knowledge.reference import FREE_MAIL

        def own_organisation_of(domain: str) -> str:
            organisation = organisation_of(domain)
            return "" if organisation in FREE_MAIL else organisation

        async with self._database.read() as connection:
            return await read_histories(connection, message_ids, own_organisation_of)

    async def _describe(self, message_ids: Sequence[int]) -> dict[int, LoadedMessage]:
        fresh_since = time.monotonic() - _FRESH_SECONDS
        found = {
            message_id: known
            for message_id in message_ids
            if (known := self._known.get(message_id)) is not None and known.described_at >= fresh_since
        }
        missing = sorted(set(message_ids) - found.keys())
        if missing:
            for one in await self._look_up(missing):
                known = self._known.get(one.message_id)
                if known is not None:
                    one.like(known)
                else:
                    self._known_bytes += one.size_bytes
                found[one.message_id] = self._known[one.message_id] = one
        for message_id in found:
            if message_id in self._known:
                self._known.move_to_end(message_id)
        return found

    async def _look_up(self, message_ids: Sequence[int]) -> list[LoadedMessage]:
        async with self._database.read() as connection:
            rows = (
                await connection.execute(
                    select(
                        message.c.id,
                        account.c.name,
                        account.c.email,
                        message.c.historical,
                        blob.c.sha256,
                        blob.c.segment,
                        blob.c.offset_bytes,
                        blob.c.size_bytes,
                    )
                    .join(account, account.c.id == message.c.account_id)
                    .join(blob, blob.c.sha256 == message.c.sha256)
                    .where(message.c.id.in_(message_ids), message.c.raw_expired_at.is_(None))
                )
            ).all()
            paths: defaultdict[int, list[str]] = defaultdict(list)
            for message_id, path in await connection.execute(
                select(place.c.message_id, mailbox.c.path)
                .join(mailbox, mailbox.c.id == place.c.mailbox_id)
                .where(place.c.message_id.in_(message_ids), place.c.expunged_at.is_(None))
                .distinct()
                .order_by(mailbox.c.path)
            ):
                paths[message_id].append(path)
        return [LoadedMessage(*row[:4], paths=tuple(paths[row[0]]), ref=BlobRef(*row[4:])) for row in rows]

    async def _read(self, missing: Sequence[LoadedMessage], every: Sequence[LoadedMessage]) -> None:
        if not missing:
            return
        contents: dict[bytes, bytes | StoreError] = {}
        try:
            contents.update(await self._blobs.get_many([one.ref for one in missing]))
        except StorageUnavailableError:
            raise
        except StoreError:
            # One damaged segment must not fail its neighbours.
            for one in missing:
                try:
                    contents.update(await self._blobs.get_many([one.ref]))
                except StorageUnavailableError:
                    raise
                except StoreError as error:
                    contents[one.ref.sha256] = error
        for one in every:
            if not one.has_content:
                one.give_content(contents[one.ref.sha256])

    def _evict(self) -> None:
        while self._known and (self._known_bytes > self._cache_bytes or len(self._known) > _MAX_CACHED):
            _, oldest = self._known.popitem(last=False)
            self._known_bytes -= oldest.size_bytes
