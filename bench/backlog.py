"""A store with a long queue, made by a handful of statements: rows as a sync leaves them, a million in a minute.

Each message has a place in its account's INBOX and one row of work for ``PROCESSOR``. Accounts take turns by
``RUN`` messages, as syncs of several accounts do that commit batch by batch; a row's virtual time is its number within
its account, as fair queueing gives it out.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import text

from mailmill.store.database import Database

PROCESSOR: Final = "trivial"
VERSION: Final = 1
RUN: Final = 100

_PIECE_ROWS = 100_000
_NUMBERS = "WITH RECURSIVE n(i) AS (SELECT :first UNION ALL SELECT i + 1 FROM n WHERE i < :last)"
_INTEGER = {"sqlite": "integer", "postgresql": "bigint"}
_DIGEST = {
    "sqlite": "CAST(printf('%032d', n.i) AS blob)",
    "postgresql": "convert_to(lpad(n.i::text, 32, '0'), 'UTF8')",
}


async def grow(database: Database, *, first: int, last: int, accounts: int) -> None:
    """Messages ``first`` to ``last`` (ids from 1 on) with their work, over ``accounts`` accounts. Raises StoreError."""
    async with database.write() as connection:
        dialect = connection.dialect.name
        numbers = _NUMBERS.replace(":first", f"CAST(:first AS {_INTEGER[dialect]})")
        span = {"first": 1, "last": accounts}
        await connection.execute(
            text(
                "INSERT INTO account (id, tenant_id, name, shard, backlog, state, state_changed_at, added_at)"
                f" {numbers} SELECT n.i, 'default', 'account' || n.i, 0, 'process', 'connected', 0, 0 FROM n"
                " WHERE true ON CONFLICT DO NOTHING"
            ),
            span,
        )
        await connection.execute(
            text(
                f"INSERT INTO mailbox (id, account_id, path, selectable) {numbers}"
                " SELECT n.i, n.i, 'INBOX', true FROM n WHERE true ON CONFLICT DO NOTHING"
            ),
            span,
        )
    account = f"((n.i - 1) / {RUN}) % {accounts} + 1"
    within = f"(((n.i - 1) / {RUN}) / {accounts}) * {RUN} + (n.i - 1) % {RUN}"
    for start in range(first, last + 1, _PIECE_ROWS):
        span = {"first": start, "last": min(last, start + _PIECE_ROWS - 1)}
        async with database.write() as connection:
            await connection.execute(
                text(
                    "INSERT INTO message (id, account_id, sha256, size_bytes, internal_date, subject, from_name,"
                    f" from_address, message_id_header, in_reply_to, historical, stored_at) {numbers}"
                    f" SELECT n.i, {account}, {_DIGEST[dialect]}, 12000, 1.7e9 + n.i, 'Message number ' || n.i,"
                    " 'Somebody', 'somebody@example.org', '<' || n.i || '@example.org>', '', false, 1.7e9 FROM n"
                ),
                span,
            )
            await connection.execute(
                text(
                    "INSERT INTO place (mailbox_id, uid_validity, uid, message_id, flags, seen_at)"
                    f" {numbers} SELECT {account}, 1, n.i, n.i, '', 1.7e9 FROM n"
                ),
                span,
            )
            await connection.execute(
                text(
                    "INSERT INTO work (message_id, processor, version, account_id, shard, state, priority, vt, run_at,"
                    f" enqueued_at) {numbers} SELECT n.i, '{PROCESSOR}', {VERSION}, {account}, 0, 'pending', 0,"
                    f" 1.7e9 + ({within}) * 1e-6, 1.7e9, 1.7e9 FROM n"
                ),
                span,
            )
