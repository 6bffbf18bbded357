"""The schema, one table after the other in the order mail meets them.

Times (``*_at``) are seconds since the epoch, UTC. ``tenant_id`` stands where data is owned. The words are those of the
field: *message* is one content within one account, *place* is its presence in a mailbox, *work* is one processor still
to run over one message, *result* what it returned, *delivery* one event on its way to one destination.

The migrations in ``migrations/versions`` are the truth for a database that exists; a test compares the two.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite only makes INTEGER PRIMARY KEY the rowid, so the wide type is PostgreSQL's.
Id = BigInteger().with_variant(Integer, "sqlite")

# Compared byte by byte on both, so that what begins alike lies side by side.
_BYTEWISE = String(320).with_variant(String(320, collation="C"), "postgresql")

setting = Table(
    "setting",  # the key canary, cursors of internal readers, the token's hash
    metadata,
    Column("name", String(100), primary_key=True),
    Column("value", Text, nullable=False),
)

id_block = Table(
    "id_block",  # where message ids come from: taken in blocks inside the transaction that uses them
    metadata,
    Column("name", String(40), primary_key=True),
    Column("next_id", Id, nullable=False),
)

tenant = Table("tenant", metadata, Column("id", String(40), primary_key=True))

node = Table(
    "node",  # a process of the service, and its proof of life
    metadata,
    Column("id", String(80), primary_key=True),
    Column("host", Text, nullable=False),
    Column("roles", String(100), nullable=False),  # as in the configuration, one space between
    Column("version", String(40), nullable=False),
    Column("started_at", Float, nullable=False),
    Column("heartbeat_at", Float, nullable=False),
    Column("stopping", Boolean, nullable=False, server_default=text("false")),  # takes no shard any more
)

shard = Table(
    "shard",  # who syncs the accounts of a shard: a lease. SQLite has one process, and so no rows here
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("epoch", BigInteger, nullable=False, server_default="0"),  # one more with each new owner
    Column("node_id", String(80), nullable=False, server_default=""),
    Column("leased_until", Float, nullable=False, server_default="0"),  # by the database's clock
)

errand = Table(
    "errand",  # what a node asks of the owner of an account; removed by who asked
    metadata,
    Column("id", Id, primary_key=True),
    Column("account_id", Id, ForeignKey("account.id", ondelete="CASCADE"), nullable=False),
    Column("kind", String(10), nullable=False),  # pass | resume
    Column("asked_at", Float, nullable=False),  # by the database's clock
    Column("answer", Text),  # JSON
    sqlite_autoincrement=True,
)

account = Table(
    "account",
    metadata,
    Column("id", Id, primary_key=True),
    Column("tenant_id", String(40), ForeignKey("tenant.id"), nullable=False),
    Column("name", String(200), nullable=False),
    Column("email", Text, nullable=False, server_default=""),
    Column("shard", Integer, nullable=False),
    Column("backlog", String(10), nullable=False),
    Column("state", String(30), nullable=False),
    Column("state_reason", Text, nullable=False, server_default=""),
    Column("state_changed_at", Float, nullable=False),
    Column("announced", String(40), nullable=False, server_default=""),  # the last connection event raised
    Column("paused", Boolean, nullable=False, server_default=text("false")),
    Column("credential_mark", String(64), nullable=False, server_default=""),
    Column("added_at", Float, nullable=False),
    Column("initialized_at", Float),
    Column("keep_raw_seconds", Float),  # retention; NULL keeps for good
    Column("keep_results_seconds", Float),
    Column("keep_deleted_seconds", Float),
    Column("removing_at", Float),  # its rows are being deleted, in pieces
    UniqueConstraint("tenant_id", "name"),
)

mailbox = Table(
    "mailbox",  # with its cursor: what the server said before the last fetch that was covered
    metadata,
    Column("id", Id, primary_key=True),
    Column("account_id", Id, ForeignKey("account.id", ondelete="CASCADE"), nullable=False),
    Column("path", Text, nullable=False),
    Column("delimiter", String(4)),
    Column("special_use", String(40)),
    Column("selectable", Boolean, nullable=False),
    Column("uid_validity", BigInteger, nullable=False, server_default="0"),
    Column("uid_next", BigInteger, nullable=False, server_default="0"),
    Column("messages", BigInteger, nullable=False, server_default="0"),
    Column("highest_mod_seq", BigInteger),
    Column("uncovered", Text, nullable=False, server_default=""),  # UidSet below uid_next still to be fetched
    Column("historical_below", BigInteger, nullable=False, server_default="0"),  # UIDs below were there at the start
    Column("flags_swept_at", Float, nullable=False, server_default="0"),
    Column("synced_at", Float),
    Column("deleted_at", Float),
    UniqueConstraint("account_id", "path"),
)

blob = Table(
    "blob",  # where the raw bytes of a SHA-256 lie; shared by accounts
    metadata,
    Column("sha256", LargeBinary(32), primary_key=True),
    Column("segment", String(80), nullable=False),
    Column("offset_bytes", BigInteger, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("created_at", Float, nullable=False),  # when a transaction last came with these bytes (blob_references)
    Index("ix_blob_segment", "segment"),
    sqlite_with_rowid=False,
)

message = Table(
    "message",
    metadata,
    Column("id", Id, primary_key=True),
    Column("account_id", Id, ForeignKey("account.id", ondelete="CASCADE"), nullable=False),
    Column("sha256", LargeBinary(32), nullable=False),
    Column("email_id", Text),
    Column("x_gm_msgid", Text),
    Column("thread_id", Text),
    Column("size_bytes", BigInteger, nullable=False),
    Column("internal_date", Float, nullable=False),
    Column("date_header", Float),
    Column("subject", Text, nullable=False),
    Column("from_name", Text, nullable=False),
    Column("from_address", Text, nullable=False),
    Column("message_id_header", Text, nullable=False),
    Column("in_reply_to", Text, nullable=False),
    Column("historical", Boolean, nullable=False),
    Column("stored_at", Float, nullable=False),
    # That it is known to have been processed: set when it is reprocessed (and by code before 0006 when it is finished).
    Column("processed_at", Float),
    Column("deleted_at", Float),
    Column("raw_expired_at", Float),  # retention took the raw bytes
    Column("recipients", Text),  # addresses, a line each; NULL: stored by older code, and not counted in `sender` yet
    Column("answers", Text),  # message ids, a line each: what it claims to answer besides in_reply_to
    UniqueConstraint("account_id", "sha256"),
    Index("ix_message_sha256", "sha256"),  # who else needs a blob
    # Listings, newest first: of everybody, and of one account.
    Index("ix_message_internal_date", "internal_date", "id"),
    Index("ix_message_account_id_internal_date", "account_id", "internal_date", "id"),
    Index(
        "ix_message_account_id_email_id",
        "account_id",
        "email_id",
        sqlite_where=text("email_id IS NOT NULL"),
        postgresql_where=text("email_id IS NOT NULL"),
    ),
    Index(
        "ix_message_account_id_x_gm_msgid",
        "account_id",
        "x_gm_msgid",
        sqlite_where=text("x_gm_msgid IS NOT NULL"),
        postgresql_where=text("x_gm_msgid IS NOT NULL"),
    ),
    Index(
        "ix_message_header",  # by what an answer names. A sender's text: PostgreSQL refuses an entry above 2.7 kB
        "account_id",
        "message_id_header",
        sqlite_where=text("length(message_id_header) < 250"),
        postgresql_where=text("length(message_id_header) < 250"),
    ),
    Index(
        "ix_message_uncounted",
        "account_id",
        "id",
        sqlite_where=text("recipients IS NULL"),
        postgresql_where=text("recipients IS NULL"),
    ),
)

sender = Table(
    "sender",  # who wrote to an account, under which name, and whom it wrote to (sender_history)
    metadata,
    Column("account_id", Id, ForeignKey("account.id", ondelete="CASCADE"), nullable=False),
    # com.example.mail@anna for anna@mail.example.com: an organisation's addresses lie side by side
    Column("address_key", _BYTEWISE, nullable=False),
    Column("name", String(100), nullable=False),  # as compared: case and blanks do not count
    Column("received", BigInteger, nullable=False, server_default="0"),
    Column("received_since", Float),  # internal_date of the earliest
    Column("sent", BigInteger, nullable=False, server_default="0"),
    Column("sent_since", Float),
    PrimaryKeyConstraint("account_id", "address_key", "name"),
    Index(
        "ix_sender_name",
        "account_id",
        "name",
        sqlite_where=text("name <> ''"),
        postgresql_where=text("name <> ''"),
    ),
    Index(
        "ix_sender_sent",
        "account_id",
        "address_key",
        sqlite_where=text("sent > 0"),
        postgresql_where=text("sent > 0"),
    ),
    sqlite_with_rowid=False,
)

place = Table(
    "place",
    metadata,
    Column("mailbox_id", Id, ForeignKey("mailbox.id", ondelete="CASCADE"), nullable=False),
    Column("uid_validity", BigInteger, nullable=False),
    Column("uid", BigInteger, nullable=False),
    Column("message_id", Id, ForeignKey("message.id", ondelete="CASCADE"), nullable=False),
    Column("flags", Text, nullable=False),  # sorted, one space between
    Column("mod_seq", BigInteger),
    Column("seen_at", Float, nullable=False),
    Column("expunged_at", Float),  # tombstone
    PrimaryKeyConstraint("mailbox_id", "uid_validity", "uid"),
    Index("ix_place_message_id", "message_id"),
    Index(
        "ix_place_expunged_at",
        "expunged_at",
        sqlite_where=text("expunged_at IS NOT NULL"),
        postgresql_where=text("expunged_at IS NOT NULL"),
    ),
    sqlite_with_rowid=False,
)

parked = Table(
    "parked",  # a message the server lists but that could not be fetched: shown, retried, never in the way
    metadata,
    Column("mailbox_id", Id, ForeignKey("mailbox.id", ondelete="CASCADE"), nullable=False),
    Column("uid_validity", BigInteger, nullable=False),
    Column("uid", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("retry_at", Float, nullable=False),
    PrimaryKeyConstraint("mailbox_id", "uid_validity", "uid"),
)

work = Table(
    "work",
    metadata,
    Column("message_id", Id, ForeignKey("message.id", ondelete="CASCADE"), nullable=False),
    Column("processor", String(80), nullable=False),
    Column("version", Integer, nullable=False),
    Column("account_id", Id, nullable=False),
    Column("shard", Integer, nullable=False),
    # pending | waiting (for run_at) | throttled (its account has enough in processing) | processing | failed
    Column("state", String(10), nullable=False),
    Column("priority", Integer, nullable=False),  # 0 new mail, 10 backlog and reprocessing
    Column("vt", Float, nullable=False),  # virtual time: fair order, set at enqueue
    Column("run_at", Float, nullable=False),
    Column("attempt", Integer, nullable=False, server_default="0"),
    Column("crashes", Integer, nullable=False, server_default="0"),
    Column("fence", BigInteger, nullable=False, server_default="0"),
    Column("worker_id", String(80), nullable=False, server_default=""),
    Column("deadline_at", Float, nullable=False, server_default="0"),
    Column("enqueued_at", Float, nullable=False),
    Column("last_error", Text, nullable=False, server_default=""),
    Column("errors", Text, nullable=False, server_default="[]"),  # JSON: the last of them, oldest first
    PrimaryKeyConstraint("message_id", "processor"),
    Index(
        "ix_work_claim",
        "processor",
        "priority",
        "vt",
        sqlite_where=text("state = 'pending'"),
        postgresql_where=text("state = 'pending'"),
    ),
    Index(
        "ix_work_crashed",  # few: they are claimed one by one
        "processor",
        "priority",
        "vt",
        sqlite_where=text("state = 'pending' AND crashes > 0"),
        postgresql_where=text("state = 'pending' AND crashes > 0"),
    ),
    Index(
        "ix_work_waiting", "run_at", sqlite_where=text("state = 'waiting'"), postgresql_where=text("state = 'waiting'")
    ),
    Index(
        "ix_work_aside",  # not to be claimed: in processing, failed, waiting, or throttled (by account)
        "state",
        "processor",
        "account_id",
        "priority",
        "vt",
        sqlite_where=text("state <> 'pending'"),
        postgresql_where=text("state <> 'pending'"),
    ),
)

lane = Table(
    "lane",  # the message that was queued last for a processor, of one account and priority (fair_order)
    metadata,
    Column("processor", String(80), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("account_id", Id, ForeignKey("account.id", ondelete="CASCADE"), nullable=False),
    Column("last_message_id", Id, nullable=False),
    PrimaryKeyConstraint("processor", "priority", "account_id"),
    Index("ix_lane_account_id", "account_id"),  # what goes with an account
    sqlite_with_rowid=False,
)

result = Table(
    "result",
    metadata,
    # Only who has deleted the row of work, under its fence, writes a result, and who deletes a message deletes its work
    # first: on PostgreSQL a foreign key would look the message up, and lock it, for nothing. A trigger cascades there.
    Column("message_id", Id, nullable=False),
    Column("processor", String(80), nullable=False),
    Column("version", Integer, nullable=False),
    Column("value", Text, nullable=False),  # JSON
    Column("attempts", Integer, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("finished_at", Float, nullable=False),
    Column("errors", Text, nullable=False, server_default="[]"),  # JSON: what went wrong before it succeeded
    PrimaryKeyConstraint("message_id", "processor", "version"),
    ForeignKeyConstraint(["message_id"], ["message.id"], ondelete="CASCADE").ddl_if(dialect="sqlite"),
    # Counted by verdict. Of other processors' results an index beside the key would be written for nobody.
    Index(
        "ix_result_threat",
        "message_id",
        "version",
        sqlite_where=text("processor = 'threat'"),
        postgresql_where=text("processor = 'threat'"),
    ),
    sqlite_with_rowid=False,
)

processor = Table(
    "processor",  # what an operator set for a processor, over all nodes
    metadata,
    Column("name", String(80), primary_key=True),
    Column("paused_at", Float),
)

reprocess = Table(
    "reprocess",  # a processor asked to run again over the past, and how far its rows are in the queue
    metadata,
    Column("id", Id, primary_key=True),
    Column("processor", String(80), nullable=False),
    Column("version", Integer, nullable=False),  # that runs now
    Column("asked", Text, nullable=False),  # JSON: which messages
    Column("state", String(10), nullable=False),  # running | done
    Column("position", Id, nullable=False, server_default="0"),  # the message up to which it has looked
    Column("last_id", Id, nullable=False),  # the newest message when it was asked for
    Column("busy_from", Id),  # the first message that an older version was just running over
    Column("total", BigInteger),  # messages to queue; NULL until they are counted
    Column("queued", BigInteger, nullable=False, server_default="0"),
    Column("created_at", Float, nullable=False),
    Column("finished_at", Float),
    sqlite_autoincrement=True,
)

worker = Table(
    "worker",  # proof of life
    metadata,
    Column("id", String(80), primary_key=True),
    Column("started_at", Float, nullable=False),
    Column("heartbeat_at", Float, nullable=False),
)

event = Table(
    "event",  # written in the transaction of what it tells; rendered when read
    metadata,
    Column("id", Id, primary_key=True),
    Column("tenant_id", String(40), nullable=False),
    Column("event", String(40), nullable=False),
    Column("account_id", Id),
    Column("path", Text),
    Column("special_use", String(40)),
    Column("message_id", Id),
    Column("historical", Boolean, nullable=False, server_default=text("false")),
    Column("data", Text, nullable=False, server_default="{}"),  # JSON: what the reference does not say
    Column("created_at", Float, nullable=False),
    # PostgreSQL: its number among what is committed, given by the sequencer; readers go by it. SQLite: NULL, the id is.
    Column("seq", BigInteger),
    Index("ix_event_seq", "seq", unique=True, postgresql_where=text("seq IS NOT NULL")).ddl_if(dialect="postgresql"),
    Index("ix_event_unnumbered", "id", postgresql_where=text("seq IS NULL")).ddl_if(dialect="postgresql"),
    sqlite_autoincrement=True,  # an id is never given twice, so cursors stay valid
)

delivery = Table(
    "delivery",  # the outbox: one event for one destination
    metadata,
    Column("id", Id, primary_key=True),
    Column("tenant_id", String(40), nullable=False),
    Column("destination", String(100), nullable=False),
    Column("event_id", Id, nullable=False),
    Column("state", String(10), nullable=False),  # pending | sending | delivered | failed
    Column("attempt", Integer, nullable=False, server_default="0"),
    Column("run_at", Float, nullable=False),
    Column("fence", BigInteger, nullable=False, server_default="0"),
    Column("worker_id", String(80), nullable=False, server_default=""),
    Column("deadline_at", Float, nullable=False, server_default="0"),
    Column("last_status", Integer),
    Column("last_error", Text, nullable=False, server_default=""),
    Column("created_at", Float, nullable=False),
    Column("finished_at", Float),
    UniqueConstraint("destination", "event_id"),
    Index("ix_delivery_event_id", "event_id"),  # what retention asks: who still needs an event
    Index(
        "ix_delivery_claim",
        "destination",
        "run_at",
        "id",
        sqlite_where=text("state = 'pending'"),
        postgresql_where=text("state = 'pending'"),
    ),
    Index(
        "ix_delivery_state",
        "state",
        "destination",
        sqlite_where=text("state in ('sending', 'failed')"),
        postgresql_where=text("state in ('sending', 'failed')"),
    ),
    sqlite_autoincrement=True,
)

request = Table(
    "request",  # the way back up: a change that the server is to make, and what became of it
    metadata,
    Column("id", Id, primary_key=True),
    Column("tenant_id", String(40), nullable=False),
    Column("account_id", Id, ForeignKey("account.id", ondelete="CASCADE"), nullable=False),
    Column("kind", String(10), nullable=False),  # flags | move | copy | delete | append
    Column("message_id", Id),
    # The place it is about, as of when it was asked for or found again; none for an append.
    Column("path", Text),
    Column("uid_validity", BigInteger),
    Column("uid", BigInteger),
    Column("data", Text, nullable=False, server_default="{}"),  # JSON: flags to add and remove, the bytes to append
    Column("state", String(10), nullable=False),  # pending | applying | done | failed
    Column("step", String(10), nullable=False, server_default=""),  # the command that may have gone out
    Column("target_path", Text),
    Column("target_uid_validity", BigInteger),
    Column("target_uid_next", BigInteger),  # as it was before the command: what it makes stands at or above
    Column("target_uid", BigInteger),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("run_at", Float, nullable=False),
    Column("error_code", String(40), nullable=False, server_default=""),
    Column("last_error", Text, nullable=False, server_default=""),
    Column("error_hint", Text, nullable=False, server_default=""),
    Column("note", Text, nullable=False, server_default=""),  # what is worth knowing about one that is done
    Column("idempotency_key", String(200)),
    Column("created_at", Float, nullable=False),
    Column("finished_at", Float),
    UniqueConstraint("account_id", "idempotency_key"),
    Index("ix_request_account_id_id", "account_id", "id"),
    Index(
        "ix_request_open",
        "account_id",
        "id",
        sqlite_where=text("state in ('pending', 'applying')"),
        postgresql_where=text("state in ('pending', 'applying')"),
    ),
    Index(
        "ix_request_open_message",
        "message_id",
        "id",
        sqlite_where=text("state in ('pending', 'applying')"),
        postgresql_where=text("state in ('pending', 'applying')"),
    ),
    Index(
        "ix_request_finished_at",
        "finished_at",
        sqlite_where=text("finished_at IS NOT NULL"),
        postgresql_where=text("finished_at IS NOT NULL"),
    ),
    sqlite_autoincrement=True,  # an id stands for one request for ever, also when it is pruned
)

EMAIL_STATUS_VIEW = """
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
       COALESCE((SELECT max(r.finished_at) FROM result r WHERE r.message_id = m.id), m.processed_at, m.stored_at)
         AS updated_at
FROM message m JOIN account a ON a.id = m.account_id
"""
