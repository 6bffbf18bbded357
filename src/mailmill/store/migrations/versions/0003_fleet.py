"""A fleet: nodes and their leases, numbered events, a ledger with its errors, retention.

Revision: 0003, after 0002. Only adds, so that code of 0002 runs on it while nodes are upgraded one by one.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

SHARDS = 64


def upgrade() -> None:
    op.create_table(
        "node",
        sa.Column("id", sa.String(length=80), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("roles", sa.String(length=100), nullable=False),
        sa.Column("version", sa.String(length=40), nullable=False),
        sa.Column("started_at", sa.Float(), nullable=False),
        sa.Column("heartbeat_at", sa.Float(), nullable=False),
        sa.Column("stopping", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_node")),
    )
    op.create_table(
        "shard",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("epoch", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("node_id", sa.String(length=80), server_default="", nullable=False),
        sa.Column("leased_until", sa.Float(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_shard")),
    )
    op.create_table(
        "processor",
        sa.Column("name", sa.String(length=80), nullable=False),
        sa.Column("paused_at", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_processor")),
    )
    identity = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "reprocess",
        sa.Column("id", identity, nullable=False),
        sa.Column("processor", sa.String(length=80), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("asked", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("position", identity, server_default="0", nullable=False),
        sa.Column("last_id", identity, nullable=False),
        sa.Column("busy_from", identity, nullable=True),
        sa.Column("total", sa.BigInteger(), nullable=True),
        sa.Column("queued", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("finished_at", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reprocess")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "errand",
        sa.Column("id", identity, nullable=False),
        sa.Column("account_id", identity, nullable=False),
        sa.Column("kind", sa.String(length=10), nullable=False),
        sa.Column("asked_at", sa.Float(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name=op.f("fk_errand_account_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_errand")),
        sqlite_autoincrement=True,
    )
    op.add_column("account", sa.Column("keep_raw_seconds", sa.Float(), nullable=True))
    op.add_column("account", sa.Column("keep_results_seconds", sa.Float(), nullable=True))
    op.add_column("account", sa.Column("keep_deleted_seconds", sa.Float(), nullable=True))
    op.add_column("account", sa.Column("removing_at", sa.Float(), nullable=True))
    op.add_column("message", sa.Column("raw_expired_at", sa.Float(), nullable=True))
    op.add_column("work", sa.Column("errors", sa.Text(), server_default="[]", nullable=False))
    op.create_index(
        "ix_work_crashed",
        "work",
        ["processor", "priority", "vt"],
        unique=False,
        sqlite_where=sa.text("state = 'pending' AND crashes > 0"),
        postgresql_where=sa.text("state = 'pending' AND crashes > 0"),
    )
    op.create_index(
        "ix_work_throttled",
        "work",
        ["processor", "account_id", "priority", "vt"],
        unique=False,
        sqlite_where=sa.text("state = 'throttled'"),
        postgresql_where=sa.text("state = 'throttled'"),
    )
    op.add_column("result", sa.Column("errors", sa.Text(), server_default="[]", nullable=False))
    op.add_column("event", sa.Column("seq", sa.BigInteger(), nullable=True))
    op.create_index("ix_message_sha256", "message", ["sha256"], unique=False)
    op.create_index("ix_result_processor", "result", ["processor", "version", "finished_at"], unique=False)
    op.create_index("ix_delivery_event_id", "delivery", ["event_id"], unique=False)
    postgresql = op.get_bind().dialect.name == "postgresql"
    if postgresql:
        op.create_index("ix_event_seq", "event", ["seq"], unique=True, postgresql_where=sa.text("seq IS NOT NULL"))
        op.create_index("ix_event_unnumbered", "event", ["id"], unique=False, postgresql_where=sa.text("seq IS NULL"))
        # A message is marked once it is processed. Where its page has room for the new version no index is written
        # (HOT); neighbours are marked in one transaction, so the room is for most of them.
        op.execute("ALTER TABLE message SET (fillfactor = 60)")
        # Each row of work is written twice and goes: what is dead must not wait for a fifth of a long queue to be.
        op.execute(
            "ALTER TABLE work SET (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.01,"
            " autovacuum_vacuum_threshold = 5000, autovacuum_analyze_scale_factor = 0.05)"
        )
        # One process owns everything on SQLite, so the table stays empty there.
        op.execute(f"INSERT INTO shard (id) SELECT generate_series(0, {SHARDS - 1})")
