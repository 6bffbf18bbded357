"""Sender history: who wrote to an account before, and whom it wrote to.

Revision: 0005, after 0004. Only adds, so that code of 0004 runs on it. Nothing is filled here: rows that older code
wrote have no ``recipients``, by which `sender_history.count_older` finds them, also those of nodes that are upgraded
later.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    identity = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "sender",
        sa.Column("account_id", identity, nullable=False),
        sa.Column(
            "address_key",
            sa.String(length=320).with_variant(sa.String(length=320, collation="C"), "postgresql"),
            nullable=False,
        ),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("received", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("received_since", sa.Float(), nullable=True),
        sa.Column("sent", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("sent_since", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name=op.f("fk_sender_account_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("account_id", "address_key", "name", name=op.f("pk_sender")),
        sqlite_with_rowid=False,
    )
    _index("ix_sender_name", "sender", ["account_id", "name"], "name <> ''")
    _index("ix_sender_sent", "sender", ["account_id", "address_key"], "sent > 0")
    op.add_column("message", sa.Column("recipients", sa.Text(), nullable=True))
    op.add_column("message", sa.Column("answers", sa.Text(), nullable=True))
    _index("ix_message_header", "message", ["account_id", "message_id_header"], "length(message_id_header) < 250")
    _index("ix_message_uncounted", "message", ["account_id", "id"], "recipients IS NULL")
    op.execute("DELETE FROM setting WHERE name = 'schema_oldest_code'")
    op.execute("INSERT INTO setting (name, value) VALUES ('schema_oldest_code', '0003')")


def _index(name: str, table: str, columns: list[str], where: str) -> None:
    op.create_index(name, table, columns, unique=False, sqlite_where=sa.text(where), postgresql_where=sa.text(where))
