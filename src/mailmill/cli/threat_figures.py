"""The figures of ``mailmill threat evaluate`` as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mailmill.cli.output import Cell, Column, Value
from mailmill.cli.safe_text import one_line

if TYPE_CHECKING:
    from mailmill.cli.output import Output

JsonObject = dict[str, Any]

MAX_FINDINGS = 25
MAX_FAILURES = 20


def show_figures(output: Output, report: JsonObject, *, errors: bool) -> None:
    """Everything but the lists of errors; with ``errors`` the false positives too."""
    _folders(output, report)
    _templates(output, report)
    _overall(output, report)
    _without(output, report)
    _thresholds(output, report)
    _findings(output, report)
    for peer in report["peers"]:
        _peer(output, peer)
    if errors:
        _errors(output, report["errors"]["falsePositives"])
    for trouble in report["failed"][:MAX_FAILURES]:
        output.remark(f"{one_line(trouble['place'])}: {one_line(trouble['reason'], 300)}", "red")
    if len(report["failed"]) > MAX_FAILURES:
        output.remark(f"and {len(report['failed']) - MAX_FAILURES:,} more that failed; --json has them all", "red")
    for each in report["folders"]:
        if not each["messages"]:
            output.remark(
                f"{one_line(each['folder'])} holds no mail: what is said of {each['kind']} lacks it", "yellow"
            )
    if report["skipped"]:
        output.remark(f"{report['skipped']:,} without mail passed over")


def percent(part: JsonObject) -> str:
    """``12.3 % (10.1-14.9)``: the share and its 95 % interval."""
    if part["share"] is None:
        return "-"
    return f"{_percent(part['share'])} % ({_percent(part['low'])}-{_percent(part['high'])})"


def _percent(value: float) -> str:
    return f"{100 * value:.2f}" if 0 < value < 0.1 else f"{100 * value:.1f}"


def _auc(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1000 * seconds:.1f} ms"


def _flagged(part: JsonObject) -> list[Value]:
    return [
        part["suspicious"]["count"],
        percent(part["suspicious"]),
        part["malicious"]["count"],
        percent(part["malicious"]),
    ]


_FLAGGED = (
    Column("Suspicious", "right"),
    Column("Share (95 %)", "right", leaves=1),
    Column("Malicious", "right"),
    Column("Share (95 %)", "right", leaves=1),
)


def _folders(output: Output, report: JsonObject) -> None:
    columns = (
        Column("Folder", shrinks=True, least=16),
        Column("Kind"),
        Column("Messages", "right"),
        *_FLAGGED,
        Column("AUC"),
    )
    rows: list[list[Value]] = [
        [one_line(each["folder"]), each["kind"], each["messages"], *_flagged(each), _auc(each.get("auc"))]
        for each in report["folders"]
    ]
    rows += [
        [Cell("all", "bold"), kind, report[kind]["messages"], *_flagged(report[kind]), auc]
        for kind, auc in (("phish", ""), ("ham", _auc(report["auc"])))
    ]
    output.table(columns, rows, empty="no messages")


def _templates(output: Output, report: JsonObject) -> None:
    # Where every message is of its own template, there is nothing to add.
    counted = [each for each in report["folders"] if "byTemplate" in each]
    found = [each for each in counted if each["byTemplate"]["templates"] < each["messages"]]
    if not found:
        return
    output.line("")
    output.table(
        (Column("Ham by template", shrinks=True, least=16), Column("Templates", "right"), *_FLAGGED),
        ([one_line(each["folder"]), each["byTemplate"]["templates"], *_flagged(each["byTemplate"])] for each in found),
        empty="",
    )


def _overall(output: Output, report: JsonObject) -> None:
    output.line("")
    for title, key in (("all messages", "all"), ("messages without attachments", "withoutFiles")):
        time = report["time"][key]
        output.line(
            Cell(f"time, {title}: ", "dim"),
            f"mean {_milliseconds(time['mean'])}, p95 {_milliseconds(time['p95'])}, max {_milliseconds(time['max'])}",
            f", processor time mean {_milliseconds(time['cpuMean'])}",
            Cell(f"  ({time['messages']:,}; slowest {one_line(time['slowest'] or '-', 120)})", "dim"),
        )


def _without(output: Output, report: JsonObject) -> None:
    output.line("")
    columns = (
        Column("Without"),
        Column("Recall suspicious", "right"),
        Column("Recall malicious", "right", leaves=2),
        Column("Ham suspicious", "right"),
        Column("Ham malicious", "right", leaves=1),
        Column("AUC"),
    )

    def row(title: Value, part: JsonObject) -> list[Value]:
        shares = [part[kind][verdict] for kind in ("phish", "ham") for verdict in ("suspicious", "malicious")]
        return [title, *(percent(each) for each in shares), _auc(part["auc"])]

    rows = [row(Cell("nothing", "bold"), report), *(row(each["left"], each) for each in report["without"])]
    output.table(columns, rows, empty="")


def _thresholds(output: Output, report: JsonObject) -> None:
    output.line("")
    output.table(
        (Column("Score from", "right"), Column("Recall", "right"), Column("Ham flagged", "right")),
        ([each["from"], percent(each["phish"]), percent(each["ham"])] for each in report["thresholds"]),
        empty="",
    )


def _findings(output: Output, report: JsonObject) -> None:
    output.line("")
    phish, ham = report["phish"]["messages"], report["ham"]["messages"]

    def part(count: int, of: int) -> str:
        return f"{100 * count / of:.1f} %" if of else "-"

    output.table(
        (
            Column("Finding"),
            Column("Phish", "right"),
            Column("Share", "right"),
            Column("Ham", "right"),
            Column("Share", "right"),
        ),
        (
            [each["id"], each["phish"], part(each["phish"], phish), each["ham"], part(each["ham"], ham)]
            for each in report["findings"][:MAX_FINDINGS]
        ),
        empty="nothing was found in any message",
    )


def _peer(output: Output, peer: JsonObject) -> None:
    output.line("")
    name = one_line(peer["name"])
    columns = (Column(name), Column("Kind"), Column("Messages", "right"), *_FLAGGED, Column("AUC"))
    rows: list[list[Value]] = [
        [one_line(each["folder"]), each["kind"], each["messages"], *_flagged(each), ""] for each in peer["folders"]
    ]
    rows += [
        [Cell("all", "bold"), kind, peer[kind]["messages"], *_flagged(peer[kind]), auc]
        for kind, auc in (("phish", ""), ("ham", _auc(peer["auc"])))
    ]
    output.table(columns, rows, empty="")
    time = peer["time"]
    output.line(
        Cell(f"time, {name}: ", "dim"),
        f"mean {_milliseconds(time['mean'])}, p95 {_milliseconds(time['p95'])}, max {_milliseconds(time['max'])}",
    )


def _errors(output: Output, errors: list[JsonObject]) -> None:
    output.line("")
    output.line(Cell(f"honest mail that was flagged: {len(errors):,}", "bold"))
    for error in errors:
        output.line(f"{one_line(error['folder'])}/{one_line(error['place'])}: {error['verdict']}, {error['score']:g}")
        for one in error["findings"]:
            output.line(f"  {one['score']:>5g}  {one_line(one['id'])}  ", Cell(one_line(one["evidence"], 200), "dim"))
