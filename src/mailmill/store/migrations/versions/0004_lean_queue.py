"""A leaner queue: fewer trees to write for each row of work and each result.

Revision: 0004, after 0003. Code of 0003 runs on it: what is gone are indexes (it finds an account's last tag by a scan,
slower while nodes are upgraded one by one) and, on SQLite, where rows of two tables lie.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# SQLite deletes and updates rows by a whole number faster than by a key of several columns (work), and writes one tree
# instead of two where the key is all that leads to a row (result). A table's kind cannot be changed.
_WORK = """
CREATE TABLE work (
    message_id INTEGER NOT NULL, processor VARCHAR(80) NOT NULL, version INTEGER NOT NULL, account_id INTEGER NOT NULL,
    shard INTEGER NOT NULL, state VARCHAR(10) NOT NULL, priority INTEGER NOT NULL, vt FLOAT NOT NULL,
    run_at FLOAT NOT NULL, attempt INTEGER DEFAULT '0' NOT NULL, crashes INTEGER DEFAULT '0' NOT NULL,
    fence BIGINT DEFAULT '0' NOT NULL, worker_id VARCHAR(80) DEFAULT '' NOT NULL,
    deadline_at FLOAT DEFAULT '0' NOT NULL, enqueued_at FLOAT NOT NULL, last_error TEXT DEFAULT '' NOT NULL,
    errors TEXT DEFAULT '[]' NOT NULL,
    CONSTRAINT pk_work PRIMARY KEY (message_id, processor),
    CONSTRAINT fk_work_message_id FOREIGN KEY(message_id) REFERENCES message (id) ON DELETE CASCADE
)
"""
_RESULT = """
CREATE TABLE result (
    message_id INTEGER NOT NULL, processor VARCHAR(80) NOT NULL, version INTEGER NOT NULL, value TEXT NOT NULL,
    attempts INTEGER NOT NULL, seconds FLOAT NOT NULL, finished_at FLOAT NOT NULL, errors TEXT DEFAULT '[]' NOT NULL,
    CONSTRAINT pk_result PRIMARY KEY (message_id, processor, version),
    CONSTRAINT fk_result_message_id FOREIGN KEY(message_id) REFERENCES message (id) ON DELETE CASCADE
) WITHOUT ROWID
"""
_COLUMNS = {
    "work": "message_id, processor, version, account_id, shard, state, priority, vt, run_at, attempt, crashes, fence,"
    " worker_id, deadline_at, enqueued_at, last_error, errors",
    "result": "message_id, processor, version, value, attempts, seconds, finished_at, errors",
}


def upgrade() -> None:
    identity = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "lane",
        sa.Column("processor", sa.String(length=80), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("account_id", identity, nullable=False),
        sa.Column("last_message_id", identity, nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["account.id"], name=op.f("fk_lane_account_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("processor", "priority", "account_id", name=op.f("pk_lane")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_lane_account_id", "lane", ["account_id"], unique=False)
    op.execute(
        "INSERT INTO lane (processor, priority, account_id, last_message_id)"
        " SELECT processor, priority, account_id, message_id FROM"
        " (SELECT processor, priority, account_id, message_id,"
        " row_number() OVER (PARTITION BY processor, priority, account_id ORDER BY vt DESC) AS place"
        " FROM work WHERE state IN ('pending', 'throttled') AND account_id IN (SELECT id FROM account)) AS waiting"
        " WHERE place = 1"
    )
    if op.get_bind().dialect.name == "sqlite":
        _rebuild()
    else:
        for index in ("ix_work_account", "ix_work_throttled", "ix_work_state", "ix_result_processor"):
            op.execute(f"DROP INDEX {index}")
    op.create_index(
        "ix_work_aside",
        "work",
        ["state", "processor", "account_id", "priority", "vt"],
        unique=False,
        sqlite_where=sa.text("state <> 'pending'"),
        postgresql_where=sa.text("state <> 'pending'"),
    )
    op.create_index(
        "ix_result_threat",
        "result",
        ["message_id", "version"],
        unique=False,
        sqlite_where=sa.text("processor = 'threat'"),
        postgresql_where=sa.text("processor = 'threat'"),
    )
    op.execute("DELETE FROM setting WHERE name = 'schema_oldest_code'")
    op.execute("INSERT INTO setting (name, value) VALUES ('schema_oldest_code', '0003')")


def _rebuild() -> None:
    """The view names both tables, and SQLite looks at all views when a table is renamed."""
    view = op.get_bind().scalar(sa.text("SELECT sql FROM sqlite_master WHERE name = 'email_status'"))
    op.execute("DROP VIEW email_status")
    for table, made in (("work", _WORK), ("result", _RESULT)):
        op.execute(f"ALTER TABLE {table} RENAME TO old_{table}")
        op.execute(made)
        op.execute(
            f"INSERT INTO {table} ({_COLUMNS[table]}) SELECT {_COLUMNS[table]} FROM old_{table}"  # noqa: S608
            f" ORDER BY message_id, processor"
        )
        op.execute(f"DROP TABLE old_{table}")
    op.execute(view)
    waiting = ("claim", "processor, priority, vt", "state = 'pending'"), (
        "crashed", "processor, priority, vt", "state = 'pending' AND crashes > 0"
    ), ("waiting", "run_at", "state = 'waiting'")  # fmt: skip
    for name, columns, where in waiting:
        op.execute(f"CREATE INDEX ix_work_{name} ON work ({columns}) WHERE {where}")
