"""The statistics of an evaluation against known values, the figures made of cases, and runs over small folders."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from mailmill.app.threat_evaluation import peers
from mailmill.app.threat_evaluation.cases import Case, Folder, Kind, Opinion, PeerOpinion, Trouble
from mailmill.app.threat_evaluation.figures import NUMBERED_VARIANT, by_template, figures, template_of
from mailmill.app.threat_evaluation.peers import PeerError, Rspamd, SpamAssassin, rspamd_files
from mailmill.app.threat_evaluation.running import evaluate, without_origin
from mailmill.app.threat_evaluation.statistics import auc, mean, quantile, share
from mailmill.app.threat_scanner import Scanner, Scope
from mailmill.message_parser import parse_message
from mailmill.model import Finding, Severity, VerdictName

PHISH, HAM = Folder("phish", Kind.PHISH), Folder("ham", Kind.HAM)

# -- statistics -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "of", "low", "high"),
    [
        # Newcombe 1998, table I: the score method without continuity correction.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (29, 29, 0.8830, 1.0),
    ],
)
def test_wilson_interval(count: int, of: int, low: float, high: float) -> None:
    found = share(count, of)
    assert found.share == count / of
    assert (found.low, found.high) == pytest.approx((low, high), abs=6e-5)


def test_a_share_of_nothing_is_not_known() -> None:
    assert share(0, 0).share is None and share(0, 0).low is None


def test_bounds_of_none_and_all_are_exact() -> None:
    assert share(0, 7).low == 0.0 and share(7, 7).high == 1.0


@pytest.mark.parametrize(
    ("positive", "negative", "expected"),
    [
        ([2, 3], [0, 1], 1.0),
        ([0, 1], [2, 3], 0.0),
        ([1, 1], [1, 1, 1], 0.5),
        ([1, 3], [2], 0.5),
        ([1, 2, 3], [1, 2, 0], 6 / 9 + 2 * 0.5 / 9),
    ],
)
def test_auc_counts_ties_half(positive: list[float], negative: list[float], expected: float) -> None:
    assert auc(positive, negative) == pytest.approx(expected)


def test_auc_of_one_kind_is_not_known() -> None:
    assert auc([1.0], []) is None and auc([], [1.0]) is None


def test_quantile_is_of_the_nearest_rank() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert quantile(values, 0.95) == 95.0
    assert quantile(values, 1.0) == 100.0
    assert quantile([7.0], 0.95) == 7.0
    assert quantile([], 0.95) is None and mean([]) is None


# -- figures ----------------------------------------------------------------------------------------------------------


def case(folder: Folder, place: str, score: float, **more: Any) -> Case:
    """A case whose verdict follows from its score, as in the default table."""
    values: dict[str, Any] = {
        "findings": (),
        "unproven": opinion(score),
        "seconds": 0.001,
        "cpu_seconds": 0.001,
        "has_files": False,
        **more,
    }
    return Case(folder, place, opinion(score), **values)


def opinion(score: float) -> Opinion:
    names = VerdictName
    return Opinion(names.MALICIOUS if score >= 80 else names.SUSPICIOUS if score >= 40 else names.CLEAN, score)


def found(finding_id: str) -> Finding:
    return Finding(finding_id, finding_id.partition(".")[0], Severity.LOW, 10.0, "seen")


def test_recall_and_false_positives_at_both_thresholds() -> None:
    cases = [case(PHISH, f"{n}.eml", score) for n, score in enumerate((90, 50, 50, 10))]
    cases += [case(HAM, f"{n}.eml", score) for n, score in enumerate((0, 0, 45, 85, 0))]
    report = figures([PHISH, HAM], cases)
    assert report["phish"]["suspicious"]["share"] == 0.75
    assert report["phish"]["malicious"]["count"] == 1
    assert report["ham"]["suspicious"]["count"] == 2
    assert report["ham"]["malicious"]["count"] == 1
    assert [(each["folder"], each["messages"]) for each in report["folders"]] == [("phish", 4), ("ham", 5)]
    # 90 beats 5, 50 beats 4 twice, 10 beats 3: 16 of 20.
    assert report["auc"] == pytest.approx(0.8) == report["folders"][1]["auc"]
    assert [each["place"] for each in report["errors"]["falsePositives"]] == ["2.eml", "3.eml"]
    assert [each["place"] for each in report["errors"]["missed"]] == ["3.eml"]


def test_other_thresholds_are_told_by_the_score_alone() -> None:
    cases = [case(PHISH, "a", 30.0), case(PHISH, "b", 29.9), case(HAM, "c", 30.0), case(HAM, "d", 0.0)]
    found_at = {each["from"]: each for each in figures([PHISH, HAM], cases)["thresholds"]}
    assert list(found_at) == [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]
    assert (found_at[30]["phish"]["count"], found_at[30]["ham"]["count"]) == (1, 1)
    assert (found_at[20]["phish"]["count"], found_at[40]["ham"]["count"]) == (2, 0)


def test_what_is_left_out_counts_for_those_that_had_it() -> None:
    cases = [
        case(
            PHISH,
            "a.eml",
            85,
            findings=(found("links.shortener"),),
            without=MappingProxyType({"links": opinion(30)}),
            unproven=opinion(50),
        ),
        case(PHISH, "b.eml", 60, unproven=opinion(0)),
        case(HAM, "c.eml", 0),
    ]
    without = {each["left"]: each for each in figures([PHISH, HAM], cases)["without"]}
    assert list(without) == ["Authentication-Results", "links"]
    assert without["links"]["phish"]["suspicious"]["count"] == 1
    assert without["links"]["phish"]["malicious"]["count"] == 0
    assert without["Authentication-Results"]["phish"]["suspicious"]["count"] == 1


def test_findings_are_counted_on_both_sides() -> None:
    cases = [
        case(PHISH, "a", 50, findings=(found("links.shortener"), found("html.tiny"))),
        case(HAM, "b", 0, findings=(found("links.shortener"),)),
    ]
    assert figures([PHISH, HAM], cases)["findings"] == [
        {"id": "links.shortener", "phish": 1, "ham": 1},
        {"id": "html.tiny", "phish": 1, "ham": 0},
    ]


def test_times_are_of_all_and_of_those_without_files() -> None:
    cases = [case(PHISH, "a", 0, seconds=0.5, has_files=True), case(HAM, "b", 0, seconds=0.1, cpu_seconds=0.05)]
    time = figures([PHISH, HAM], cases)["time"]
    assert time["all"]["max"] == 0.5 and time["all"]["slowest"] == "phish/a"
    assert (time["withoutFiles"]["messages"], time["withoutFiles"]["cpuMean"]) == (1, 0.05)


@pytest.mark.parametrize(
    ("place", "template"),
    [
        ("receipt-0.eml", "receipt"),
        ("basic-full-receipt-12.eml", "basic-full-receipt"),
        ("welcome_2.eml", "welcome"),
        ("sub/welcome 2.eml", "sub/welcome"),
        ("kasan-dev-123456789012.eml", "kasan-dev-123456789012.eml"),
        ("00001.7c53336b37003a.txt", "00001.7c53336b37003a.txt"),
        ("letter.eml", "letter.eml"),
        ("7.eml", "7.eml"),
    ],
)
def test_a_small_number_at_the_end_is_a_variant(place: str, template: str) -> None:
    assert template_of(place, NUMBERED_VARIANT) == template


def test_a_pattern_of_ones_own_may_name_a_folder() -> None:
    assert template_of("receipt/own-domain.eml", re.compile("([^/]+)/")) == "receipt"
    assert template_of("receipt-0.eml", re.compile("[a-z]+")) == "receipt"


def test_a_template_is_flagged_if_any_variant_is() -> None:
    cases = [case(HAM, f"receipt-{n}.eml", score) for n, score in enumerate((0, 0, 41, 0))]
    cases += [case(HAM, f"news-{n}.eml", 0) for n in range(4)]
    found_by = by_template(cases, NUMBERED_VARIANT)
    assert (found_by["templates"], found_by["suspicious"]["count"], found_by["flagged"]) == (2, 1, ["receipt"])
    assert found_by["malicious"]["count"] == 0


def test_peers_are_measured_on_what_they_answered() -> None:
    said = PeerOpinion(7.0, suspicious=True, malicious=None, seconds=0.1)
    cases = [
        case(PHISH, "a", 0, peers=MappingProxyType({"x": said})),
        case(PHISH, "b", 0),
        case(HAM, "c", 0, peers=MappingProxyType({"x": PeerOpinion(1.0, False, None, 0.3)})),
    ]
    [peer] = figures([PHISH, HAM], cases)["peers"]
    assert peer["phish"]["messages"] == 1 and peer["phish"]["suspicious"]["share"] == 1.0
    assert peer["phish"]["malicious"]["share"] is None
    assert peer["auc"] == 1.0 and peer["time"]["mean"] == pytest.approx(0.2)


def test_what_failed_is_told_and_what_is_no_mail_is_counted() -> None:
    troubles = [Trouble(HAM, "LICENSE", "it does not look like mail", False), Trouble(HAM, "x", "ValueError: y", True)]
    report = figures([PHISH, HAM], [], troubles)
    assert report["failed"] == [{"folder": "ham", "place": "x", "reason": "ValueError: y"}]
    assert report["skipped"] == 1


# -- running ----------------------------------------------------------------------------------------------------------

FORGED = (
    b"Authentication-Results: mx.harbour.example; spf=fail smtp.mailfrom=a.example;"
    b" dmarc=fail header.from=bank.example\r\n"
    b"From: Bank <a@bank.example>\r\nSubject: Hello\r\n\r\nHello\r\n"
)
HONEST = b"From: Ada <ada@meadow.example>\r\nSubject: Tea\r\n\r\nAt four?\r\n"


@pytest.fixture
def folders(tmp_path: Path) -> list[Folder]:
    for name, raw in (("phish/1.eml", FORGED), ("ham/tea-1.eml", HONEST), ("ham/tea-2.eml", HONEST)):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(raw)
    (tmp_path / "ham" / "LICENSE").write_text("Permission is granted.\n")
    return [Folder(str(tmp_path / "phish"), Kind.PHISH), Folder(str(tmp_path / "ham"), Kind.HAM)]


@pytest.fixture
def scanner() -> Iterator[Scanner]:
    with Scanner(Scope(authserv_id="mx.harbour.example")) as made:
        yield made


def test_every_message_is_judged_with_and_without_its_origin(folders: list[Folder], scanner: Scanner) -> None:
    done: list[int] = []
    results = list(evaluate(folders, scanner, progress=done.append))
    cases = [one for one in results if isinstance(one, Case)]
    assert [(one.folder.kind, one.place) for one in cases] == [
        (Kind.PHISH, "1.eml"),
        (Kind.HAM, "tea-1.eml"),
        (Kind.HAM, "tea-2.eml"),
    ]
    [forged, *_] = cases
    assert any(one.family == "authentication" for one in forged.findings)
    assert forged.unproven.score < forged.opinion.score
    assert forged.without["authentication"].score < forged.opinion.score
    assert sum(done) == len(FORGED) + 2 * len(HONEST) + len("Permission is granted.\n")
    [license_file] = [one for one in results if isinstance(one, Trouble)]
    assert (license_file.place, license_file.failed) == ("LICENSE", False)


def test_a_fault_of_ours_costs_one_message(
    folders: list[Folder], scanner: Scanner, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = scanner.read

    def broken(raw: bytes) -> Any:
        if b"Bank" in raw:
            raise ValueError("boom")
        return read(raw)

    monkeypatch.setattr(scanner, "read", broken)
    results = list(evaluate(folders, scanner))
    assert [one.reason for one in results if isinstance(one, Trouble) and one.failed] == ["ValueError: boom"]
    assert sum(isinstance(one, Case) for one in results) == 2


def test_all_that_servers_said_of_the_origin_is_taken_away() -> None:
    raw = (
        b"Received-SPF: pass\r\nARC-Authentication-Results: i=1; x; spf=pass\r\nAuthentication-Results: y; spf=pass\r\n"
        b"authentication-results: z; spf=pass\r\nReceived: from a\r\nSubject: x\r\n\r\n"
    )
    assert [name for name, _ in without_origin(parse_message(raw)).headers] == ["Received", "Subject"]


class SaysYes:
    name = "yes 1.0"

    def ask(self, raw: bytes) -> PeerOpinion:
        if b"Tea" in raw:
            raise PeerError("no answer")
        return PeerOpinion(9.0, suspicious=True, malicious=True, seconds=0.0)


def test_a_peer_that_does_not_answer_costs_its_own_word_alone(folders: list[Folder], scanner: Scanner) -> None:
    results = list(evaluate(folders, scanner, peers=[SaysYes()]))
    assert [list(one.peers) for one in results if isinstance(one, Case)] == [["yes 1.0"], [], []]
    failed = [one.reason for one in results if isinstance(one, Trouble) and one.failed]
    assert failed == ["yes 1.0: no answer"] * 2


# -- peers: their answers, as they send them ---------------------------------------------------------------------------


@contextmanager
def answering(monkeypatch: pytest.MonkeyPatch, head: bytes, body: bytes = b"") -> Iterator[list[bytes]]:
    asked: list[bytes] = []

    def exchange(_port: int, request: bytes) -> tuple[bytes, bytes]:
        asked.append(request)
        return head, body

    monkeypatch.setattr("mailmill.app.threat_evaluation.peers._exchange", exchange)
    yield asked


@pytest.mark.parametrize(
    ("answer", "score", "spam"),
    [
        (b"SPAMD/1.1 0 EX_OK\r\nSpam: True ; 15.0 / 5.0", 15.0, True),
        (b"SPAMD/1.1 0 EX_OK\r\nContent-length: 0\r\nSpam: False ; -2.3 / 5.0", -2.3, False),
    ],
)
def test_spamassassins_answer(monkeypatch: pytest.MonkeyPatch, answer: bytes, score: float, spam: bool) -> None:
    with answering(monkeypatch, answer) as asked:
        said = SpamAssassin("spamassassin", 1).ask(b"Subject: x\r\n\r\n")
    assert (said.score, said.suspicious, said.malicious) == (score, spam, None)
    assert asked == [b"CHECK SPAMC/1.2\r\nContent-length: 14\r\n\r\nSubject: x\r\n\r\n"]


@pytest.mark.parametrize(
    ("action", "suspicious", "malicious"),
    [("no action", False, False), ("greylist", False, False), ("add header", True, False), ("reject", True, True)],
)
def test_rspamds_answer(monkeypatch: pytest.MonkeyPatch, action: str, suspicious: bool, malicious: bool) -> None:
    with answering(monkeypatch, b"HTTP/1.1 200 OK", b'{"score": 6.5, "action": "%s"}' % action.encode()):
        said = Rspamd("rspamd", 1).ask(b"x")
    assert (said.score, said.suspicious, said.malicious) == (6.5, suspicious, malicious)


@pytest.mark.parametrize("peer", [SpamAssassin("s", 1), Rspamd("r", 1)])
def test_an_answer_of_another_form_is_told(monkeypatch: pytest.MonkeyPatch, peer: SpamAssassin | Rspamd) -> None:
    with answering(monkeypatch, b"HTTP/1.1 500 no", b"[]"), pytest.raises(PeerError, match="answered"):
        peer.ask(b"x")


def test_rspamd_asks_no_network() -> None:
    files = rspamd_files(4711)
    for module in ("rbl", "surbl", "spf", "dkim", "dmarc", "fuzzy_check", "rspamd_update"):
        assert "enabled = false" in files[f"{module}.conf"]
    assert '"127.0.0.1:4711"' in files["worker-normal.inc"]


def test_what_is_not_installed_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from mailmill.app.threat_evaluation.peers import PEERS

    monkeypatch.setattr("shutil.which", lambda *_arguments, **_options: None)
    for start in PEERS.values():
        with pytest.raises(PeerError, match="is not installed"), start():
            pass


# -- peers: programs that are started and ended -----------------------------------------------------------------------

DAEMON = """
import os, socket, sys, time
alive = open(sys.argv[2], "w")
if os.fork() == 0:
    time.sleep(600)
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    listener.accept()
"""


def test_a_peer_ends_with_the_evaluation_and_all_that_it_started(tmp_path: Path) -> None:
    port = peers._free_port()
    alive = tmp_path / "alive"
    os.mkfifo(alive)
    # It is at its end once nobody has it open for writing any more.
    reader = os.open(alive, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with peers._running([sys.executable, "-c", DAEMON, str(port), str(alive)], port, tmp_path):
            assert peers._listens(port)
            with pytest.raises(BlockingIOError):
                os.read(reader, 1)
        os.set_blocking(reader, True)
        assert os.read(reader, 1) == b""
    finally:
        os.close(reader)
    assert not peers._listens(port)


def test_a_peer_that_does_not_start_says_why(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "print('starting'); raise SystemExit('cannot bind')"]
    with pytest.raises(PeerError, match="did not start: cannot bind"), peers._running(command, 1, tmp_path):
        pass
