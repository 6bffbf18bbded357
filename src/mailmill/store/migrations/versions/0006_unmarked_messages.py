"""Finishing work writes nothing to its message any more: neither a mark nor, on PostgreSQL, a lock for a foreign key.

Revision: 0006, after 0005. Code of 0005 runs on it: it goes on to mark messages, which newer code reads as it reads the
marks of a reprocessing. On PostgreSQL it relies on results going with their message; a trigger sees to that now.
"""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_VIEW = """
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

_GO_WITH_MESSAGE = """
CREATE FUNCTION result_goes_with_message() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  DELETE FROM result WHERE message_id = OLD.id;
  RETURN NULL;
END $$
"""


def upgrade() -> None:
    op.execute("DROP VIEW email_status")
    op.execute(_VIEW)
    if op.get_bind().dialect.name == "postgresql":
        op.drop_constraint("fk_result_message_id", "result", type_="foreignkey")
        op.execute(_GO_WITH_MESSAGE)
        # Triggers of one row fire by name: "result…" comes after "RI_…", by which its work goes. So a worker that was
        # just recording a result is waited for, and what it has recorded is seen here.
        op.execute(
            "CREATE TRIGGER result_goes_with_message AFTER DELETE ON message"
            " FOR EACH ROW EXECUTE FUNCTION result_goes_with_message()"
        )
    op.execute("DELETE FROM setting WHERE name = 'schema_oldest_code'")
    op.execute("INSERT INTO setting (name, value) VALUES ('schema_oldest_code', '0003')")
