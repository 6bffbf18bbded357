"""How verdicts on mail in files are shown: a table or JSON lines, and one message explained."""

from __future__ import annotations

import textwrap
from collections import Counter
from typing import TYPE_CHECKING, Any

from mailmill.app.mail_files import Mail
from mailmill.cli.output import Cell, Output, stated
from mailmill.cli.safe_text import one_line
from mailmill.cli.scan_table import Row, sender, show

if TYPE_CHECKING:
    from mailmill.app.mail_files import NoMail
    from mailmill.app.threat_scanner import Scope

JsonObject = dict[str, Any]

_NO_MAIL = "does not look like mail: that nothing was found in it says nothing"

BADNESS = {"clean": 0, "suspicious": 1, "malicious": 2}
WIDTH = 100


class ScanView:
    """Shows records as they come (JSON lines), or in a table at the end; counts all. ``only``: so bad or worse."""

    def __init__(self, output: Output, scope: Scope, *, only: str | None) -> None:
        self._output = output
        self._scope = scope
        self._from_badness = BADNESS[only] if only else 0
        self._rows: list[Row] = []
        self._verdicts: Counter[str] = Counter()
        self._servers: Counter[str] = Counter()
        self._skipped = 0
        self._doubtful: list[str] = []
        self._failures: list[str] = []

    @property
    def failed(self) -> bool:
        """Whether something could not be scanned."""
        return bool(self._failures)

    @property
    def worst(self) -> int:
        return max((BADNESS[verdict] for verdict in self._verdicts), default=0)

    def add(self, item: Mail | NoMail, record: JsonObject) -> None:
        """One item of ``scan_each``, and its record."""
        number = getattr(item, "number", None)
        if not record:
            reason = getattr(item, "reason", "")
            if getattr(item, "failed", False):
                self._fail(item.name, None, {"code": "unreadable", "message": reason})
            else:
                self._skipped += 1
        elif "error" in record:
            self._fail(item.name, number, record["error"])
        else:
            if isinstance(item, Mail) and not item.looks_like_mail:
                self._doubtful.append(item.place)
            self._verdicts[record["verdict"]] += 1
            self._servers[record["authserv"]] += 1
            if BADNESS[record["verdict"]] < self._from_badness:
                return
            if self._output.as_json:
                self._output.json({"file": item.name, "number": number, **record}, indent=None)
            else:
                self._rows.append(_row(getattr(item, "place", item.name), record))

    def _fail(self, name: str, number: int | None, error: JsonObject) -> None:
        place = name if number is None else f"{name}#{number}"
        self._failures.append(f"{one_line(place)}: {one_line(error['message'], 300)}")
        if self._output.as_json:
            self._output.json({"file": name, "number": number, "error": error}, indent=None)

    def end(self) -> None:
        """The table, what failed, and the summary."""
        if not self._output.as_json:
            show(self._output, self._rows)
            for line in self._failures:
                self._output.remark(line, "red")
            self._output.remark(self._summary())
        if self._doubtful:
            others = f" (and {len(self._doubtful) - 1:,} more)" if len(self._doubtful) > 1 else ""
            self._output.remark(f"{one_line(self._doubtful[0])}{others} {_NO_MAIL}", "yellow")
        remark = authserv_remark(self._scope, self._servers)
        if remark:
            self._output.remark(remark, "yellow")

    def _summary(self) -> str:
        count = self._verdicts.total()
        parts = [
            f"{count:,} message{'' if count == 1 else 's'}: "
            + ", ".join(f"{self._verdicts[verdict]:,} {verdict}" for verdict in BADNESS)
        ]
        if self._skipped:
            parts.append(f"{self._skipped:,} without mail passed over")
        if self._failures:
            parts.append(f"{len(self._failures):,} could not be scanned")
        return " · ".join(parts)


def authserv_remark(scope: Scope, servers: Counter[str]) -> str:
    """What a person should know where no message's origin was believed; ``servers`` counts topmost authserv-ids."""
    if scope.authserv_id and any(_is_believed(scope.authserv_id, server) for server in servers):
        return ""
    seen = next((server for server, _ in servers.most_common() if server), "")
    if not scope.authserv_id and not servers.total():
        return ""
    if scope.authserv_id:
        said = f"no message has Authentication-Results of {scope.authserv_id!r}"
    else:
        said = "no --authserv-id: what servers wrote of the mail's origin was not believed"
    if not seen:
        return said
    name = one_line(seen, 80)
    return f"{said}; most have those of {name!r}: if that is your mail server, say --authserv-id {name}"


def _is_believed(authserv_id: str, server: str) -> bool:
    wanted = authserv_id.lower()
    domain = wanted.removeprefix("*.")
    return server == wanted or (wanted != domain and (server == domain or server.endswith("." + domain)))


def _row(place: str, record: JsonObject) -> Row:
    return Row(
        verdict=record["verdict"],
        score=record["score"],
        name=record["from"]["name"],
        address=record["from"]["address"],
        subject=record["subject"],
        reason=next(iter(record["reasons"]), ""),
        place=place,
    )


def show_explanation(output: Output, mail: Mail, record: JsonObject, scope: Scope) -> None:
    """One message, in words."""
    told = record["explanation"]
    verdict = record["verdict"]
    output.line(stated(verdict, f"● {told['sentence']}"))
    output.line(Cell(f"  {verdict}, {record['score']:g} points of 100", "dim"))
    if not mail.looks_like_mail:
        output.remark(f"{one_line(mail.place)} {_NO_MAIL}", "yellow")
    output.line("")
    output.fields(
        [
            ("From", sender(record["from"]["name"], record["from"]["address"])),
            ("Subject", one_line(record["subject"])),
            ("File", one_line(mail.place)),
        ]
    )
    if told["against"]:
        _title(output, "What speaks against it")
        for point in told["against"]:
            output.line(
                "  ", stated(point["severity"], f"{point['points']:>5g}  "), Cell(one_line(point["words"]), "bold")
            )
            _paragraph(output, f"seen: {one_line(point['evidence'])}" if point["evidence"] else "", " " * 9)
        families = [point["id"].partition(".")[0] for point in told["against"]]
        if len(set(families)) < len(families):
            output.line(Cell("  (of one kind, each further finding counts less than the one before)", "dim"))
    if told["noted"]:
        _title(output, "Counts nothing, but was found")
        for point in told["noted"]:
            _paragraph(output, one_line(point["words"]), "  ")
            _paragraph(output, f"seen: {one_line(point['evidence'])}" if point["evidence"] else "", " " * 4)
    _section(output, "Where it comes from", told["origin"])
    _section(output, "What speaks for it", told["benign"])
    _section(output, "What to do", told["advice"])
    remark = (
        authserv_remark(scope, Counter([record["authserv"]])) if record["authserv"] or not scope.authserv_id else ""
    )
    if remark:
        output.line("")
        output.remark(remark, "yellow")


def _title(output: Output, title: str) -> None:
    output.line("")
    output.line(Cell(title, "bold"))


def _section(output: Output, title: str, sentences: list[str]) -> None:
    if sentences:
        _title(output, title)
        for sentence in sentences:
            _paragraph(output, one_line(sentence), "  ")


def _paragraph(output: Output, text: str, indent: str) -> None:
    width = min(WIDTH, output.console.width) if output.on_terminal else WIDTH
    for line in textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent, break_long_words=False):
        output.line(line)
