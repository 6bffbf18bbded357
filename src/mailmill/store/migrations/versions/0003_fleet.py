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
    op.add_column("account", sa.Column("keep_raw_seconds", sa.Float(), nullable=True))
    op.add_column("account", sa.Column("keep_results_seconds", sa.Float(), nullable=True))
    op.add_column("account", sa.Column("removing_at", sa.Float(), nullable=True))
    op.add_column("message", sa.Column("raw_expired_at", sa.Float(), nullable=True))
    op.add_column("work", sa.Column("errors", sa.Text(), server_default="[]", nullable=False))
    op.add_column("result", sa.Column("errors", sa.Text(), server_default="[]", nullable=False))
    op.add_column("event", sa.Column("seq", sa.BigInteger(), nullable=True))
    op.create_index("ix_message_sha256", "message", ["sha256"], unique=False)
    op.create_index("ix_result_processor", "result", ["processor", "version", "finished_at"], unique=False)
    op.create_index("ix_event_created_at", "event", ["created_at"], unique=False)
    postgresql = op.get_bind().dialect.name == "postgresql"
    op.create_index("ix_event_seq", "event", ["seq"], unique=True, postgresql_where=sa.text("seq IS NOT NULL"))
    op.create_index("ix_event_unnumbered", "event", ["id"], unique=False, postgresql_where=sa.text("seq IS NULL"))
    if postgresql:
        # One process owns everything on SQLite, so the table stays empty there.
        op.execute(f"INSERT INTO shard (id) SELECT generate_series(0, {SHARDS - 1})")
