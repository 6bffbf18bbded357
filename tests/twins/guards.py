"""The guards, each with the tests that must fail without it.

Every function here takes one guard out, in a process that has nothing of mailmill loaded yet; so it imports within, and
only what it changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from sqlalchemy import Column, ColumnElement, FromClause, Select
    from sqlalchemy.ext.asyncio import AsyncConnection

    from mailmill.store.dialect import AnyConnection
    from mailmill.store.segments import BlobRef


@dataclass(frozen=True, slots=True)
class Twin:
    """``caught_by``: the tests that must fail when ``take_out`` was called, all of them (node ids; without parameters:
    with all of these). ``spares``: some that pass all the same, where that says what the guard is not for.
    """

    take_out: Callable[[], None]
    caught_by: tuple[str, ...]
    spares: tuple[str, ...] = ()


# -- the queue --------------------------------------------------------------------------------------------------------


def fence() -> None:
    """Who finishes, fails or releases a row names it by its key alone: no fence and no worker is compared."""
    _compare_less(fence=True, worker=True)


def fence_alone() -> None:
    """The worker is compared, so only a claim of the worker's own, from before, is taken for the one that stands."""
    _compare_less(fence=True, worker=False)


def _compare_less(*, fence: bool, worker: bool) -> None:
    from sqlalchemy import BinaryExpression, true
    from sqlalchemy.sql import visitors

    from mailmill.store import queue_rows
    from mailmill.store.tables import work

    compared = [column for column, gone in ((work.c.fence, fence), (work.c.worker_id, worker)) if gone]
    whole = queue_rows.held

    def held(given: Any) -> ColumnElement[bool]:
        def blind(element: Any, **_options: Any) -> Any:
            gone = isinstance(element, BinaryExpression) and any(element.left is column for column in compared)
            return true() if gone else None

        return visitors.replacement_traverse(whole(given), {}, blind)

    queue_rows.held = held


def state_recheck() -> None:
    """A claim takes the rows that it saw as pending, whatever has become of them since: they are not locked where they
    are chosen, and their state is not looked at again where they are taken.

    Both, since either is enough: a lock is given only after a second look at the row.
    """
    from mailmill.store import dialect, queue_claims
    from mailmill.store.tables import work

    dialect.skip_locked = _unlocked
    queue_claims.recheck = lambda processor, _version, **_: [work.c.processor == processor]


def skip_locked() -> None:
    """A claim waits for the rows that another transaction holds, in place of passing over them."""
    from mailmill.store import dialect

    def waiting(connection: AnyConnection, rows: Select[Any], of: FromClause) -> Select[Any]:
        return rows.with_for_update(of=of) if dialect.is_postgresql(connection) else rows

    dialect.skip_locked = waiting


def message_lock() -> None:
    """Who finishes a row does not lock its message before looking whether it was the last."""
    from mailmill.store import dialect
    from mailmill.store.tables import work

    locked = dialect.lock

    def lock(connection: AnyConnection, rows: Select[Any], of: FromClause) -> Select[Any]:
        return locked(connection, rows, of) if of is work else rows

    dialect.lock = lock


def written_since() -> None:
    """What is told with the outcome is decided by what was seen before the row's lock was waited for."""
    from sqlalchemy import Integer, literal_column

    from mailmill.store import queue_recording

    queue_recording._WRITTEN_BY = literal_column("0", Integer)


def turns() -> None:
    """Those who count what an account has in processing do it side by side."""
    from mailmill.store import account_limits

    async def take_turns(connection: AsyncConnection, names: Collection[str]) -> None:
        return

    account_limits.take_turns = take_turns


# -- ownership --------------------------------------------------------------------------------------------------------


def lease_lock() -> None:
    """An owner's transaction looks at its lease and does not lock it."""
    from mailmill.store import dialect

    dialect.lock_shared = _unlocked


def takeover_lock() -> None:
    """A takeover does not lock owners out before it changes the row."""
    from mailmill.store import dialect

    dialect.lock_out = _unlocked


def epoch() -> None:
    """The name alone says who owns a shard, not by which lease."""
    from sqlalchemy import select

    from mailmill.store import leases
    from mailmill.store.tables import shard

    whole = leases.hold

    async def hold(connection: AsyncConnection, node_id: str, shard_id: int, epoch: int) -> bool:
        newest = await connection.scalar(select(shard.c.epoch).where(shard.c.id == shard_id))
        return await whole(connection, node_id, shard_id, newest or 0)

    leases.hold = hold


# -- events and mail --------------------------------------------------------------------------------------------------


def sequencer() -> None:
    """Readers of the event log go by the ids, which are given before the commit."""
    from mailmill.store import event_log
    from mailmill.store.tables import event

    def position_column(connection: AsyncConnection) -> Column[Any]:
        return event.c.id

    event_log.position_column = position_column


def work_since() -> None:
    """Raw bytes expire by what was seen of their work before the message was locked."""
    from mailmill.store import retention

    async def without_work(connection: AsyncConnection, locked: Sequence[int]) -> list[int]:
        return list(locked)

    retention._without_work = without_work


def needed_since() -> None:
    """A blob is forgotten by what was seen of its messages before it was locked."""
    from sqlalchemy import delete

    from mailmill.store import blob_references
    from mailmill.store.tables import blob

    blob_references._forgetting = lambda locked: delete(blob).where(blob.c.sha256.in_(locked))


def awaited_since() -> None:
    """A blob is forgotten by what was seen of its uploads before it was locked."""
    from mailmill.store import blob_references

    async def awaited(_connection: AsyncConnection) -> set[bytes]:
        return set()

    blob_references._awaited_uploads = awaited


def clock_before_names() -> None:
    """How old a segment is goes by the time at which orphans are removed."""
    from mailmill.store.blobs import BlobStore

    remove = BlobStore.collect_orphans

    async def collect_orphans(self: BlobStore, referenced: Collection[str], written_before: float) -> int:
        return await remove(self, referenced, await self.orphan_limit())

    BlobStore.collect_orphans = collect_orphans


def segment_sync() -> None:
    """Raw messages are not on the disk yet when the transaction that names them commits."""
    from unittest import mock

    from mailmill.store import local_segments

    write = local_segments._write_segment

    def unsynced(segments: Path, contents: Sequence[bytes | Path], lasting: set[Path]) -> list[BlobRef]:
        with mock.patch("os.fsync", lambda _descriptor: None):
            return write(segments, contents, lasting)

    local_segments._write_segment = unsynced


def _unlocked(connection: AnyConnection, rows: Select[Any], of: FromClause) -> Select[Any]:
    return rows


_QUEUE = "tests/unit/test_queue.py::"
_QUEUE_MODEL = "tests/property/test_queue_model.py::test_the_queue_does_as_the_model"
_AT_ONCE = "tests/unit/test_queue_interleavings.py::"
_NODES = "tests/integration/test_nodes_ownership.py::"
_NODES_MODEL = "tests/property/test_ownership_model.py::test_shards_are_owned_as_in_the_model"

TWINS: Final[Mapping[str, Twin]] = {
    "fence": Twin(
        fence,
        (
            f"{_QUEUE}test_what_was_taken_back_is_stale",
            f"{_QUEUE}test_another_workers_claim_cannot_be_finished",
            f"{_AT_ONCE}test_a_zombie_that_finishes_while_its_row_goes_to_another_is_stale",
            f"{_QUEUE_MODEL}[sqlite]",
        ),
    ),
    "fence_alone": Twin(fence_alone, (f"{_QUEUE}test_what_was_taken_back_is_stale[sqlite]", f"{_QUEUE_MODEL}[sqlite]")),
    "state_recheck": Twin(
        state_recheck,
        (
            f"{_AT_ONCE}test_two_claims_at_once_share_nothing",
            f"{_AT_ONCE}test_what_is_being_finished_is_not_given_up",
        ),
    ),
    "skip_locked": Twin(
        skip_locked,
        caught_by=(
            f"{_AT_ONCE}test_a_claim_waits_for_nobody",
            f"{_AT_ONCE}test_the_reaper_waits_for_nobody",
        ),
        spares=(
            f"{_AT_ONCE}test_two_claims_at_once_share_nothing",
            f"{_AT_ONCE}test_what_is_being_finished_is_not_given_up",
        ),
    ),
    "message_lock": Twin(message_lock, (f"{_AT_ONCE}test_the_last_two_rows_of_a_message_finished_at_once",)),
    "written_since": Twin(
        written_since, (f"{_AT_ONCE}test_what_is_finished_while_other_work_of_it_is_queued_is_not_processed_yet",)
    ),
    "turns": Twin(turns, (f"{_AT_ONCE}test_two_claims_at_once_keep_to_an_accounts_limit",)),
    "lease_lock": Twin(
        lease_lock,
        (
            f"{_NODES}test_a_stale_owners_transaction_and_a_takeover_never_both_happen",
            f"{_NODES}test_renewing_waits_for_no_owners_transaction",
            _NODES_MODEL,
        ),
    ),
    "takeover_lock": Twin(
        takeover_lock, (f"{_NODES}test_a_stale_owners_transaction_and_a_takeover_never_both_happen",)
    ),
    "epoch": Twin(epoch, (f"{_NODES}test_who_has_it_again_is_another_owner", _NODES_MODEL)),
    "sequencer": Twin(
        sequencer, ("tests/property/test_event_order_laws.py::test_a_reader_sees_each_committed_event_once",)
    ),
    "work_since": Twin(
        work_since,
        ("tests/unit/test_retention_interleavings.py::test_bytes_that_work_came_to_need_since_the_snapshot_are_kept",),
    ),
    "needed_since": Twin(
        needed_since,
        (
            "tests/unit/test_retention_interleavings.py::test_a_blob_that_a_message_came_to_need_since_the_snapshot_is_kept",
        ),
    ),
    "awaited_since": Twin(
        awaited_since,
        (
            "tests/unit/test_retention_interleavings.py::test_a_blob_that_an_upload_came_to_need_since_the_snapshot_is_kept",
        ),
    ),
    "clock_before_names": Twin(
        clock_before_names,
        ("tests/unit/test_housekeeping.py::test_mail_that_came_since_the_names_were_read_stays_when_the_clock_jumps",),
    ),
    "segment_sync": Twin(
        segment_sync, ("tests/unit/test_store_blobs.py::test_bytes_and_folders_are_synced_before_the_answer",)
    ),
}
