"""JSON inside a text column, in a statement that both makes of database understand."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, String
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler


class json_text(ColumnElement[str]):  # noqa: N801 - reads as a function, as SQLAlchemy's own do
    """The text at a top-level key of a JSON object kept in a text column; NULL where it is not there."""

    inherit_cache = False
    type = String()

    def __init__(self, value: ColumnElement[str], key: str) -> None:
        if not key.isalnum():
            raise ValueError(f"not a plain key: {key!r}")
        self.value = value
        self.key = key


@compiles(json_text, "sqlite")
def _json_text_sqlite(element: json_text, compiler: SQLCompiler, **options: Any) -> str:
    return f"json_extract({compiler.process(element.value, **options)}, '$.{element.key}')"


@compiles(json_text, "postgresql")
def _json_text_postgresql(element: json_text, compiler: SQLCompiler, **options: Any) -> str:
    return f"(({compiler.process(element.value, **options)})::json ->> '{element.key}')"
