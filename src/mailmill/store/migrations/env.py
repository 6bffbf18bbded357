"""What Alembic runs. The connection comes from ``mailmill.store.migrate``; there is no alembic.ini."""

from __future__ import annotations

from alembic import context

from mailmill.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
    transaction_per_migration=True,
    # SQLite cannot alter a table in place; Alembic then copies it.
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
