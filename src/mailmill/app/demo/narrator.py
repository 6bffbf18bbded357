"""One line per message as it is processed, for the person who watches the demo."""

from __future__ import annotations

import json
import sys
from typing import Any, Protocol

from rich.console import Console
from rich.text import Text

_VERDICT_STYLE = {"clean": "green", "suspicious": "yellow", "malicious": "bold red"}


class Narrator(Protocol):
    def link(self, link: str) -> None: ...
    def processed(self, message: dict[str, Any]) -> None: ...
    def alerted(self, event: dict[str, Any]) -> None: ...


class TerminalNarrator:
    """Coloured lines on a terminal, plain ones elsewhere."""

    def __init__(self) -> None:
        # Into a file or a pipe nothing is cut to the width of a terminal that is not there.
        width = None if sys.stdout.isatty() else 200
        self._console = Console(file=sys.stdout, highlight=False, width=width)

    def link(self, link: str) -> None:
        self._console.print()
        self._console.print(
            Text.assemble("mailmill is running on sample mail. Its page: ", (link, "bold cyan")), soft_wrap=True
        )
        self._console.print(
            Text("A message arrives every few seconds. Ctrl-C ends it and leaves nothing behind.", "dim")
        )
        self._console.print()

    def processed(self, message: dict[str, Any]) -> None:
        threat = message.get("threat") or {"verdict": "clean", "score": 0}
        verdict = str(threat["verdict"])
        line = Text.assemble(
            (str(message.get("date") or "")[11:19], "dim"),
            "  ",
            (f"{verdict:<10}", _VERDICT_STYLE.get(verdict, "")),
            " ",
            (f"{message.get('category') or '':<12}", "cyan"),
            " ",
            (_plain(message["subject"], 48), "bold"),
            ("  " + _plain(message.get("summary") or "", 80), "dim"),
            no_wrap=True,
            overflow="ellipsis",
        )
        self._console.print(line)

    def alerted(self, event: dict[str, Any]) -> None:
        data = event["data"]
        findings = ", ".join(finding["id"] for finding in (data.get("threat") or {}).get("findings", [])[:3])
        self._console.print(
            Text.assemble(
                "          ",
                ("⚑ webhook received ", "bold yellow"),
                (event["event"], "yellow"),
                f": {_plain(data.get('subject') or '', 48)}",
                (f"  {findings}", "dim"),
                no_wrap=True,
                overflow="ellipsis",
            )
        )


class JsonNarrator:
    """JSON lines for machines."""

    def link(self, link: str) -> None:
        self._print({"page": link})

    def processed(self, message: dict[str, Any]) -> None:
        self._print({"processed": message})

    def alerted(self, event: dict[str, Any]) -> None:
        self._print({"alerted": event})

    def _print(self, value: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
        sys.stdout.flush()


def _plain(text: str, width: int) -> str:
    """One line without control characters, cut to ``width``."""
    line = "".join(character if character.isprintable() else " " for character in text)
    line = " ".join(line.split())
    return line if len(line) <= width else line[: width - 1] + "…"
