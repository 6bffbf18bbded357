"""The first schema.

Revision: 0001, after nothing.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

_EMAIL_STATUS = """
CREATE VIEW email_status AS
SELECT m.id AS message_id,
       a.name AS account,
       m.subject AS subject,
       CASE
         WHEN EXISTS (SELECT 1 FROM work w WHERE w.message_id = m.id AND w.state = 'failed') THEN 'failed'
         WHEN EXISTS (SELECT 1 FROM work w WHERE w.message_id = m.id AND w.state = 'processing') THEN 'processing'
         WHEN EXISTS (SELECT 1 FROM work w WHERE w.message_id = m.id) THEN 'pending'
         ELSE 'completed'
       END AS processing_status,
       m.stored_at AS created_at,
       COALESCE(m.processed_at, m.stored_at) AS updated_at
FROM message m JOIN account a ON a.id = m.account_id
"""


def upgrade() -> None:
    op.create_table(
        "blob",
        sa.Column("sha256", sa.LargeBinary(length=32), nullable=False),
        sa.Column("segment", sa.String(length=80), nullable=False),
        sa.Column("offset_bytes", sa.BigInteger(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_blob")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_blob_segment", "blob", ["segment"], unique=False)
    op.create_table(
        "delivery",
        sa.Column("id", _ID, nullable=False),
        sa.Column("tenant_id", sa.String(length=40), nullable=False),
        sa.Column("destination", sa.String(length=100), nullable=False),
        sa.Column("event_id", _ID, nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("run_at", sa.Float(), nullable=False),
        sa.Column("fence", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("worker_id", sa.String(length=80), server_default="", nullable=False),
        sa.Column("deadline_at", sa.Float(), server_default="0", nullable=False),
        sa.Column("last_status", sa.Integer(), nullable=True),
        sa.Column("last_error", sa.Text(), server_default="", nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("finished_at", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_delivery")),
        sa.UniqueConstraint("destination", "event_id", name=op.f("uq_delivery_destination_event_id")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_delivery_claim",
        "delivery",
        ["destination", "run_at", "id"],
        unique=False,
        sqlite_where=sa.text("state = 'pending'"),
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.create_index(
        "ix_delivery_state",
        "delivery",
        ["state", "destination"],
        unique=False,
        sqlite_where=sa.text("state in ('sending', 'failed')"),
        postgresql_where=sa.text("state in ('sending', 'failed')"),
    )
    op.create_table(
        "event",
        sa.Column("id", _ID, nullable=False),
        sa.Column("tenant_id", sa.String(length=40), nullable=False),
        sa.Column("event", sa.String(length=40), nullable=False),
        sa.Column("account_id", _ID, nullable=True),
        sa.Column("path", sa.Text(), nullable=True),
        sa.Column("special_use", sa.String(length=40), nullable=True),
        sa.Column("message_id", _ID, nullable=True),
        sa.Column("historical", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("data", sa.Text(), server_default="{}", nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_event")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "id_block",
        sa.Column("name", sa.String(length=40), nullable=False),
        sa.Column("next_id", _ID, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_id_block")),
    )
    op.create_table(
        "setting",
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_setting")),
    )
    op.create_table(
        "tenant",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tenant")),
    )
    op.create_table(
        "worker",
        sa.Column("id", sa.String(length=80), nullable=False),
        sa.Column("started_at", sa.Float(), nullable=False),
        sa.Column("heartbeat_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_worker")),
    )
    op.create_table(
        "account",
        sa.Column("id", _ID, nullable=False),
        sa.Column("tenant_id", sa.String(length=40), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("email", sa.Text(), server_default="", nullable=False),
        sa.Column("shard", sa.Integer(), nullable=False),
        sa.Column("backlog", sa.String(length=10), nullable=False),
        sa.Column("state", sa.String(length=30), nullable=False),
        sa.Column("state_reason", sa.Text(), server_default="", nullable=False),
        sa.Column("state_changed_at", sa.Float(), nullable=False),
        sa.Column("announced", sa.String(length=40), server_default="", nullable=False),
        sa.Column("paused", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("credential_mark", sa.String(length=64), server_default="", nullable=False),
        sa.Column("added_at", sa.Float(), nullable=False),
        sa.Column("initialized_at", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_account_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_account")),
        sa.UniqueConstraint("tenant_id", "name", name=op.f("uq_account_tenant_id_name")),
    )
    op.create_table(
        "mailbox",
        sa.Column("id", _ID, nullable=False),
        sa.Column("account_id", _ID, nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("delimiter", sa.String(length=4), nullable=True),
        sa.Column("special_use", sa.String(length=40), nullable=True),
        sa.Column("selectable", sa.Boolean(), nullable=False),
        sa.Column("uid_validity", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("uid_next", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("messages", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("highest_mod_seq", sa.BigInteger(), nullable=True),
        sa.Column("uncovered", sa.Text(), server_default="", nullable=False),
        sa.Column("historical_below", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("flags_swept_at", sa.Float(), server_default="0", nullable=False),
        sa.Column("synced_at", sa.Float(), nullable=True),
        sa.Column("deleted_at", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name=op.f("fk_mailbox_account_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mailbox")),
        sa.UniqueConstraint("account_id", "path", name=op.f("uq_mailbox_account_id_path")),
    )
    op.create_table(
        "message",
        sa.Column("id", _ID, nullable=False),
        sa.Column("account_id", _ID, nullable=False),
        sa.Column("sha256", sa.LargeBinary(length=32), nullable=False),
        sa.Column("email_id", sa.Text(), nullable=True),
        sa.Column("x_gm_msgid", sa.Text(), nullable=True),
        sa.Column("thread_id", sa.Text(), nullable=True),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("internal_date", sa.Float(), nullable=False),
        sa.Column("date_header", sa.Float(), nullable=True),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("from_name", sa.Text(), nullable=False),
        sa.Column("from_address", sa.Text(), nullable=False),
        sa.Column("message_id_header", sa.Text(), nullable=False),
        sa.Column("in_reply_to", sa.Text(), nullable=False),
        sa.Column("historical", sa.Boolean(), nullable=False),
        sa.Column("stored_at", sa.Float(), nullable=False),
        sa.Column("processed_at", sa.Float(), nullable=True),
        sa.Column("deleted_at", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name=op.f("fk_message_account_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_message")),
        sa.UniqueConstraint("account_id", "sha256", name=op.f("uq_message_account_id_sha256")),
    )
    op.create_index(
        "ix_message_account_id_email_id",
        "message",
        ["account_id", "email_id"],
        unique=False,
        sqlite_where=sa.text("email_id IS NOT NULL"),
        postgresql_where=sa.text("email_id IS NOT NULL"),
    )
    op.create_index(
        "ix_message_account_id_internal_date", "message", ["account_id", "internal_date", "id"], unique=False
    )
    op.create_index(
        "ix_message_account_id_x_gm_msgid",
        "message",
        ["account_id", "x_gm_msgid"],
        unique=False,
        sqlite_where=sa.text("x_gm_msgid IS NOT NULL"),
        postgresql_where=sa.text("x_gm_msgid IS NOT NULL"),
    )
    op.create_index("ix_message_internal_date", "message", ["internal_date", "id"], unique=False)
    op.create_table(
        "parked",
        sa.Column("mailbox_id", _ID, nullable=False),
        sa.Column("uid_validity", sa.BigInteger(), nullable=False),
        sa.Column("uid", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("retry_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["mailbox_id"], ["mailbox.id"], name=op.f("fk_parked_mailbox_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("mailbox_id", "uid_validity", "uid", name=op.f("pk_parked")),
    )
    op.create_table(
        "place",
        sa.Column("mailbox_id", _ID, nullable=False),
        sa.Column("uid_validity", sa.BigInteger(), nullable=False),
        sa.Column("uid", sa.BigInteger(), nullable=False),
        sa.Column("message_id", _ID, nullable=False),
        sa.Column("flags", sa.Text(), nullable=False),
        sa.Column("mod_seq", sa.BigInteger(), nullable=True),
        sa.Column("seen_at", sa.Float(), nullable=False),
        sa.Column("expunged_at", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(["mailbox_id"], ["mailbox.id"], name=op.f("fk_place_mailbox_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["message_id"], ["message.id"], name=op.f("fk_place_message_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("mailbox_id", "uid_validity", "uid", name=op.f("pk_place")),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_place_expunged_at",
        "place",
        ["expunged_at"],
        unique=False,
        sqlite_where=sa.text("expunged_at IS NOT NULL"),
        postgresql_where=sa.text("expunged_at IS NOT NULL"),
    )
    op.create_index("ix_place_message_id", "place", ["message_id"], unique=False)
    op.create_table(
        "result",
        sa.Column("message_id", _ID, nullable=False),
        sa.Column("processor", sa.String(length=80), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.Column("finished_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["message_id"], ["message.id"], name=op.f("fk_result_message_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("message_id", "processor", "version", name=op.f("pk_result")),
    )
    op.create_table(
        "work",
        sa.Column("message_id", _ID, nullable=False),
        sa.Column("processor", sa.String(length=80), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("account_id", _ID, nullable=False),
        sa.Column("shard", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("vt", sa.Float(), nullable=False),
        sa.Column("run_at", sa.Float(), nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("crashes", sa.Integer(), server_default="0", nullable=False),
        sa.Column("fence", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("worker_id", sa.String(length=80), server_default="", nullable=False),
        sa.Column("deadline_at", sa.Float(), server_default="0", nullable=False),
        sa.Column("enqueued_at", sa.Float(), nullable=False),
        sa.Column("last_error", sa.Text(), server_default="", nullable=False),
        sa.ForeignKeyConstraint(["message_id"], ["message.id"], name=op.f("fk_work_message_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("message_id", "processor", name=op.f("pk_work")),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_work_account",
        "work",
        ["account_id", "processor", "priority", "vt"],
        unique=False,
        sqlite_where=sa.text("state = 'pending'"),
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.create_index(
        "ix_work_claim",
        "work",
        ["processor", "priority", "vt"],
        unique=False,
        sqlite_where=sa.text("state = 'pending'"),
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.create_index(
        "ix_work_state",
        "work",
        ["state", "processor"],
        unique=False,
        sqlite_where=sa.text("state <> 'pending'"),
        postgresql_where=sa.text("state <> 'pending'"),
    )
    op.create_index(
        "ix_work_waiting",
        "work",
        ["run_at"],
        unique=False,
        sqlite_where=sa.text("state = 'waiting'"),
        postgresql_where=sa.text("state = 'waiting'"),
    )
    op.execute(_EMAIL_STATUS)
    op.execute("INSERT INTO tenant (id) VALUES ('default')")
    op.execute("INSERT INTO id_block (name, next_id) VALUES ('message', 1)")
