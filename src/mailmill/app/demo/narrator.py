"""One line per message as it is processed, for the person who watches the demo.

On a terminal a line fits its width; a line that wraps cannot be read while others scroll in.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

_VERDICT_STYLE = {"clean": "green", "suspicious": "yellow", "malicious": "bold red"}
_ALERT_STYLE = "magenta"

_TIME, _VERDICT, _CATEGORY, _SUBJECT = 8, 10, 12, 46
_LEAST_SUMMARY = 24
_PIPE_WIDTH = 160


@dataclass(frozen=True, slots=True)
class Opening:
    """What the first lines say. ``config`` is the demo's configuration file, ``program`` how mailmill was called."""

    link: str
    config: str
    program: str
    interval_seconds: float


class Narrator(Protocol):
    """Every method writes and flushes; raises OSError where nobody reads any more."""

    def starting(self) -> None: ...
    def opened(self, opening: Opening) -> None: ...
    def processed(self, message: dict[str, Any]) -> None: ...
    def alerted(self, event: dict[str, Any]) -> None: ...
    def ended(self, *, processed: int, alerted: int) -> None: ...


class TerminalNarrator:
    """Coloured lines on a terminal, plain ones elsewhere. ``width`` in cells; by default the terminal's."""

    def __init__(self, width: int | None = None) -> None:
        # Into a file or a pipe nothing is cut to the width of a terminal that is not there.
        width = width or (None if sys.stdout.isatty() else _PIPE_WIDTH)
        self._console = Console(file=sys.stdout, highlight=False, markup=False, emoji=False, width=width)

    def starting(self) -> None:
        self._say(Text("Starting mailmill and a mail server with sample mail …", "dim"))

    def opened(self, opening: Opening) -> None:
        self._say(
            Text(),
            Text("mailmill is running on sample mail. Its page (the link opens once):", "bold"),
            Text(opening.link, "cyan"),
            Text(),
            Text(
                f"An IMAP server inside the demo gets a message every {opening.interval_seconds:g} seconds; each line"
            ),
            Text.assemble(
                "below is one of them, processed. ", ("⚑", _ALERT_STYLE), " is what a webhook was told about it."
            ),
            Text("In another terminal:"),
            Text(f"  {opening.program} --config {opening.config} status"),
            Text("Ctrl-C ends the demo and leaves nothing behind."),
            Text(),
            self._line(Text("time", "dim"), Text("verdict", "dim"), Text("category", "dim"), "message", "", "dim"),
        )

    def processed(self, message: dict[str, Any]) -> None:
        threat = message.get("threat") or {"verdict": "clean", "score": 0}
        verdict = str(threat["verdict"])
        self._say(
            self._line(
                Text(_clock(message.get("date")), "dim"),
                Text(verdict, _VERDICT_STYLE.get(verdict, "")),
                Text(str(message.get("category") or "")),
                message["subject"],
                message.get("summary") or "",
                "bold" if verdict == "malicious" else "",
            )
        )

    def alerted(self, event: dict[str, Any]) -> None:
        data = event["data"]
        reasons = " ".join((data.get("threat") or {}).get("reasons", []))
        self._say(
            self._line(
                Text(_clock(event.get("date")), "dim"),
                Text("⚑ webhook", _ALERT_STYLE),
                Text(event["event"], _ALERT_STYLE),
                data.get("subject") or "",
                reasons,
                "",
            )
        )

    def ended(self, *, processed: int, alerted: int) -> None:
        words = (
            f"Processed {processed} messages, alerted {alerted} times. The demo, its server and its folder are gone."
        )
        self._say(Text(), Text(words, "dim"))

    def _line(self, time: Text, verdict: Text, category: Text, subject: str, summary: str, style: str) -> Text:
        """Columns of a fixed width; the summary is shown where a good piece of it fits beside the subject."""
        room = self._console.width - _TIME - _VERDICT - _CATEGORY - 4
        beside = room - _SUBJECT - 2
        parts = [*_column(time, _TIME + 2), *_column(verdict, _VERDICT + 1), *_column(category, _CATEGORY + 1)]
        if beside < _LEAST_SUMMARY or not summary:
            parts.append((_cut(subject, max(room, 1)), style))
        else:
            parts += [(set_cell_size(_cut(subject, _SUBJECT), _SUBJECT + 2), style), (_cut(summary, beside), "dim")]
        return Text.assemble(*parts)

    def _say(self, *lines: Text) -> None:
        # Not printed by Rich itself, which ends the process where the reader has gone away.
        with self._console.capture() as captured:
            for line in lines:
                self._console.print(line, soft_wrap=True)
        sys.stdout.write(captured.get())
        sys.stdout.flush()


class JsonNarrator:
    """JSON lines for machines."""

    def starting(self) -> None:
        return

    def opened(self, opening: Opening) -> None:
        self._print({"page": opening.link, "config": opening.config})

    def processed(self, message: dict[str, Any]) -> None:
        self._print({"processed": message})

    def alerted(self, event: dict[str, Any]) -> None:
        self._print({"alerted": event})

    def ended(self, *, processed: int, alerted: int) -> None:
        self._print({"ended": {"processed": processed, "alerted": alerted}})

    def _print(self, value: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
        sys.stdout.flush()


def _column(text: Text, width: int) -> list[tuple[str, str]]:
    return [(set_cell_size(_cut(text.plain, width - 1), width), str(text.style))]


def _clock(moment: str | None) -> str:
    """The time of day where the reader is; the day for what is older than today."""
    if not moment:
        return ""
    local = datetime.fromisoformat(moment).astimezone()
    today = datetime.now(local.tzinfo).date()
    return local.strftime("%H:%M:%S") if local.date() == today else local.strftime("%d %b")


def _cut(text: str, width: int) -> str:
    """One line without control characters, at most ``width`` cells of a terminal."""
    line = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    return line if cell_len(line) <= width else set_cell_size(line, width - 1).rstrip() + "…"
