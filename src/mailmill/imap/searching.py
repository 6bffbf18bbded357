"""UID SEARCH, whole or not at all: functions over `Dialogue`, called by `ImapConnection`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

from mailmill.errors import ContradictionError
from mailmill.imap import commands
from mailmill.imap.collectors import SearchCollector
from mailmill.imap.commands import Command
from mailmill.imap.dialogue import Dialogue, require_ok
from mailmill.uid_set import UidSet


async def existing(dialogue: Dialogue, uids: UidSet | None) -> UidSet:
    """See `ImapConnection.search`."""
    esearch = dialogue.session.features.esearch
    return await _search(dialogue, uids, lambda part: commands.uid_search(part, esearch=esearch))


async def with_header(dialogue: Dialogue, name: str, value: str, within: UidSet | None) -> UidSet:
    """See `ImapConnection.search_header`."""
    esearch = dialogue.session.features.esearch
    return await _search(dialogue, within, lambda part: commands.uid_search_header(part, name, value, esearch=esearch))


async def before(dialogue: Dialogue, day: date) -> UidSet:
    """See `ImapConnection.search_before`."""
    esearch = dialogue.session.features.esearch
    return await _search(dialogue, None, lambda _part: commands.uid_search_before(day, esearch=esearch))


async def _search(dialogue: Dialogue, uids: UidSet | None, command: Callable[[UidSet | None], Command]) -> UidSet:
    if uids is not None and not uids:
        return UidSet()
    collector = SearchCollector()
    parts = [None] if uids is None else list(commands.split_set(uids))
    for exchange in await dialogue.burst([(command(part), collector) for part in parts]):
        require_ok(exchange)
    if collector.malformed or collector.answers < len(parts):
        raise ContradictionError(f"{dialogue.endpoint}: the server's SEARCH answer is missing or cannot be read")
    return UidSet.from_ranges(collector.ranges)
