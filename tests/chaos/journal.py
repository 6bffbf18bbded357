"""What a process writes down as it lives: one file for each life, a JSON object a line, only ever appended to.

A line is in the file when `Journal.write` returns, whatever becomes of the process then; the machine's own death is not
what these tests are about. `read` turns the files of a folder into what `history` judges.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from chaos.history import ClaimKey, End, Journals, Page, Receipt, Refusal, Transaction


class Journal:
    """The file ``FOLDER/LIFE.jsonl``, new."""

    def __init__(self, folder: Path, life: str) -> None:
        self.life = life
        flags = os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_WRONLY
        self._file = os.open(folder / f"{life}.jsonl", flags, 0o600)

    def write(self, kind: str, **what: Any) -> None:
        os.write(self._file, json.dumps({"kind": kind, "at": boot_seconds(), **what}).encode() + b"\n")

    def close(self) -> None:
        os.close(self._file)


def boot_seconds() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """The records of one life, as far as they were written whole."""
    for line in path.read_bytes().splitlines(keepends=True):
        if line.endswith(b"\n"):
            yield json.loads(line)


def read(folder: Path) -> Journals:
    """All lives of ``folder``. Blocks."""
    transactions: list[Transaction] = []
    ends: list[End] = []
    refusals: list[Refusal] = []
    receipts: list[Receipt] = []
    pages: list[Page] = []
    for path in sorted(folder.glob("*.jsonl")):
        life = path.stem
        records = list(lines(path))
        known = {record["number"]: record["at"] for record in records if record["kind"] == "committed"}
        for record in records:
            match record["kind"]:
                case "committing":
                    transactions.append(_transaction(life, record, known.get(record["number"])))
                case "end":
                    ends.append(End(life, record["phase"], record["how"]))
                case "refused":
                    refusals.append(Refusal(life, record["what"]))
                case "received":
                    receipts.append(
                        Receipt(record["webhook_id"], record["envelope_id"], record["event"], record["message_id"])
                    )
                case "read":
                    pages.append(Page(life, record["after"], record["cursor"], tuple(record["events"])))
    return Journals(transactions, ends, refusals, receipts, pages)


def _transaction(life: str, record: dict[str, Any], known_at: float | None) -> Transaction:
    owner = record.get("owner")
    return Transaction(
        life=life,
        began_at=record["at"],
        known_at=known_at,
        points=tuple(record["points"]),
        claimed=_keys(record.get("claimed", ())),
        recorded=_keys(record.get("recorded", ())),
        owner=(owner[0], owner[1]) if owner else None,
        took={int(shard): epoch for shard, epoch in record.get("took", {}).items()},
    )


def _keys(found: Iterable[Any]) -> tuple[ClaimKey, ...]:
    return tuple(ClaimKey(*each) for each in found)
