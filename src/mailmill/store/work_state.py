"""The states of a work row as conditions, worded so that both databases find the partial indexes of ``work``.

Law: the state stands in the statement as a literal. A bound parameter hides from the planner which index covers it:
PostgreSQL's generic plans never use a partial index then, and SQLite would have to plan every statement again.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import ColumnElement, and_, literal_column

from mailmill.store.tables import work

PENDING: Final[ColumnElement[bool]] = work.c.state == literal_column("'pending'")
WAITING: Final[ColumnElement[bool]] = work.c.state == literal_column("'waiting'")

# SQLite does not conclude from "= 'failed'" that it is not 'pending', which is what the index is about.
NOT_PENDING: Final[ColumnElement[bool]] = work.c.state != literal_column("'pending'")
PROCESSING: Final[ColumnElement[bool]] = and_(work.c.state == literal_column("'processing'"), NOT_PENDING)
FAILED: Final[ColumnElement[bool]] = and_(work.c.state == literal_column("'failed'"), NOT_PENDING)

# Of rows that are named by their keys. As an expression no index serves it: the planner's statistics are of a time when
# few rows were in hand, and it would rather read all that are (and all that lately were, until vacuumed) for each key.
PROCESSING_BY_KEY: Final[ColumnElement[bool]] = work.c.state.concat(literal_column("''")) == literal_column(
    "'processing'"
)

PENDING_BY_KEY: Final[ColumnElement[bool]] = work.c.state.concat(literal_column("''")) == literal_column("'pending'")

# Rows over what their account may have in processing at once: nobody claims them until it has less.
THROTTLED: Final[ColumnElement[bool]] = and_(work.c.state == literal_column("'throttled'"), NOT_PENDING)

# Whose worker died while holding them, ready to be run again.
CRASHED: Final[ColumnElement[bool]] = and_(PENDING, work.c.crashes > literal_column("0"))
