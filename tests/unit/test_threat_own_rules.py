"""Family ``own_rules``: block and allow lists, YARA rules; who may profit from them, and what bounds them."""

from __future__ import annotations

import gc
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from threat_mail import NOTHING, OWN, PROVEN, SERVER, mail

from mailmill.errors import ConfigurationError
from mailmill.message_parser import ParsedMessage, parse_message
from mailmill.model import Address, Severity, Verdict
from mailmill.processing.threat.engine import ThreatEngine
from mailmill.processing.threat.evidence import yara_rules
from mailmill.processing.threat.evidence.address_list import check_allowed, read_list
from mailmill.processing.threat.evidence.hosts import organisation_of
from mailmill.processing.threat.evidence.yara_rules import MAX_PIECES, Piece, YaraRules
from mailmill.processing.threat.options import OwnWords, ThreatOptions, YaraSource

PHISH = '<p>Your account is locked.</p><a href="https://bit.ly/x1">https://www.paypal.com/login</a>'


def engine(*, yara: str = "", scoring: str = "", **words: tuple[str, ...]) -> ThreatEngine:
    sources = (YaraSource("own.yar", yara),) if yara else ()
    options = ThreatOptions(
        scoring=scoring, yara=sources, everybody=OwnWords(**words), inspect_files=False, entry_points=False
    )
    return ThreatEngine(options)


def scan(message: ParsedMessage, the_engine: ThreatEngine) -> Verdict:
    return the_engine.scan(message, own_address=OWN, authserv_id=SERVER)


def own(verdict: Verdict) -> dict[str, str]:
    """Evidence of the family's findings, by their names."""
    return {one.id.removeprefix("own_rules."): one.evidence for one in verdict.findings if one.family == "own_rules"}


# -- lists ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "address", "named"),
    [
        ("lena@meadow-farm.com", "lena@meadow-farm.com", True),
        ("Lena@Meadow-Farm.com", "lena@meadow-farm.com", True),
        ("lena@meadow-farm.com", "helena@meadow-farm.com", False),
        ("meadow-farm.com", "lena@meadow-farm.com", True),
        ("meadow-farm.com", "lena@news.meadow-farm.com", False),
        ("meadow-farm.com", "lena@my-meadow-farm.com", False),
        ("*.meadow-farm.com", "lena@news.meadow-farm.com", True),
        ("*.meadow-farm.com", "lena@meadow-farm.com", True),
        ("*.meadow-farm.com", "lena@my-meadow-farm.com", False),
        ("*.meadow-farm.com", "lena@meadow-farm.com.example", False),
        ("*.xn--mnchen-3ya.example", "x@post.münchen.example", True),
        ("*.tk", "x@prize.tk", True),
        ("meadow-farm.com", "meadow-farm.com", False),
    ],
)
def test_what_an_entry_names(entry: str, address: str, named: bool) -> None:
    assert bool(read_list([entry]).entry_for(address)) is named


@pytest.mark.parametrize(
    "entry", ["", "com", "@", "a b@c.example", "https://x.example", "*", "*@x.example", "x.*", "x@"]
)
def test_an_entry_that_is_neither_address_nor_domain(entry: str) -> None:
    with pytest.raises(ValueError, match="neither an address"):
        read_list([entry])


@pytest.mark.parametrize("entry", ["gmail.com", "*.outlook.com", "*.co.uk", "*.com", "*.github.io", "pages.dev"])
def test_nobody_can_allow_a_domain_that_is_anybodys(entry: str) -> None:
    with pytest.raises(ConfigurationError, match=r"'threat\.allow'.*anybody"):
        engine(allow=(entry,))
    assert engine(block=(entry,))


@pytest.mark.parametrize(
    "entry",
    ["dana@gmail.com", "meadow-farm.com", "*.meadow-farm.co.uk", "shop.github.io", "*.partner.example", "mail.lan"],
)
def test_what_has_one_owner_may_be_allowed(entry: str) -> None:
    check_allowed(read_list([entry]))


def test_a_wrong_entry_is_named_with_its_key() -> None:
    with pytest.raises(ConfigurationError) as raised:
        ThreatEngine(ThreatOptions(accounts=(("work", OwnWords(block=("not one",))),), inspect_files=False))
    assert raised.value.key == "accounts.work.threat.block"
    assert "'not one'" in raised.value.message and raised.value.hint


@pytest.mark.parametrize("finding_id", ["blocked_sender"])
@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("lena@meadow-farm.com", mail()),
        ("*.meadow-farm.com", mail("Lena <lena@news.meadow-farm.com>")),
        ("meadow-farm.com", mail(results=None)),
        ("caller@desk.example", mail(headers=("Reply-To: <caller@desk.example>",))),
        ("bulk.example", mail(headers=("Return-Path: <b-1@bulk.example>",))),
        ("sender@desk.example", mail(headers=("Sender: Desk <Sender@desk.example>",))),
    ],
)
def test_a_blocked_sender_is_malicious(finding_id: str, block: str, message: ParsedMessage) -> None:
    verdict = scan(message, engine(block=(block,)))
    assert verdict.verdict.value == "malicious"
    assert block in own(verdict)[finding_id]


@pytest.mark.parametrize("twin_of", ["blocked_sender"])
@pytest.mark.parametrize(
    "message",
    [
        mail(),
        mail("lena@desk.example.org <lena@meadow-farm.com>"),
        mail(subject="Mail from lena@desk.example", text="Write to lena@desk.example"),
    ],
)
def test_nobody_else_is_blocked(twin_of: str, message: ParsedMessage) -> None:
    assert twin_of not in own(scan(message, engine(block=("desk.example", "x@meadow-farm.com"))))


@pytest.mark.parametrize("finding_id", ["blocked_link"])
@pytest.mark.parametrize(
    "target", ["https://prizes.example/x", "http://www.prizes.example", "https://a.b.prizes.example:8443/?q"]
)
def test_a_link_to_a_blocked_domain(finding_id: str, target: str) -> None:
    verdict = scan(mail(html=f'<a href="{target}">look</a>'), engine(block=("*.prizes.example",)))
    assert verdict.verdict.value == "suspicious" and finding_id in own(verdict)


@pytest.mark.parametrize("twin_of", ["blocked_link"])
@pytest.mark.parametrize(
    "target",
    [
        "https://my-prizes.example/",
        "https://meadow-farm.com/?u=prizes.example",
        "https://prizes.example.org",
        "mailto:pia@elsewhere.example?subject=prizes.example",
    ],
)
def test_a_link_elsewhere_is_not_blocked(twin_of: str, target: str) -> None:
    html = f'<a href="{target}">prizes.example</a>'
    assert own(scan(mail(html=html), engine(block=("*.prizes.example",)))) == {}, twin_of


def test_the_detectors_learn_of_the_users_own_people_and_domains() -> None:
    dana, eve = Address("Dana Harbour", "dana@harbour.example.org"), Address("Eve Ott", "")
    options = ThreatOptions(
        everybody=OwnWords(people=(dana,), domains=("news.pier-north.com",)),
        accounts=(("work", OwnWords(people=(eve,), domains=("quay.example",))),),
        inspect_files=False,
        entry_points=False,
    )
    the_engine = ThreatEngine(options)
    work, home = (the_engine.prepare(mail(), own_address=OWN, account=name) for name in ("work", "home"))
    assert (work.people, home.people) == ((dana, eve), (dana,))
    own = organisation_of("harbour.example.org")
    assert (work.own_domains, home.own_domains) == ({own, "pier-north.com", "quay.example"}, {own, "pier-north.com"})
    assert the_engine.prepare(mail(), own_address="dana@gmail.com").own_domains == {"pier-north.com"}


# -- the allow list wants proof ---------------------------------------------------------------------------------------

ALLOW = ("meadow-farm.com", "*.meadow-farm.com")
ODD = '<a href="http://192.0.2.7/a">www.bigshop.com</a> <a href="https://shop.example@tide.example/">x</a>'


@pytest.mark.parametrize("finding_id", ["allowed_sender"])
@pytest.mark.parametrize(
    "message",
    [
        mail(html=ODD),
        mail("Lena Ott <lena@news.meadow-farm.com>", html=ODD),
        mail(html=ODD, results="spf=none; dkim=pass header.d={d}"),
    ],
)
def test_an_allowed_sender_who_is_proven_counts_a_quarter(finding_id: str, message: ParsedMessage) -> None:
    plain, allowed = scan(message, engine()), scan(message, engine(allow=ALLOW))
    assert (plain.verdict.value, allowed.verdict.value) == ("suspicious", "clean")
    assert allowed.score == pytest.approx(plain.score * 0.25, abs=0.1)
    assert finding_id in own(allowed)


@pytest.mark.parametrize("finding_id", ["allowed_sender_unproven"])
@pytest.mark.parametrize(
    "message",
    [
        mail(html=ODD, results=NOTHING),
        mail(html=ODD, results=None),
        mail(html=ODD, results="spf=pass smtp.mailfrom=bulk.example; dkim=pass header.d=bulk.example"),
        mail(html=ODD, results=PROVEN.replace("pass", "fail")),
        mail(
            html=ODD,
            results=None,
            headers=("Authentication-Results: mx.evil.example; dmarc=pass header.from=meadow-farm.com",),
        ),
        mail(html=ODD, headers=("From: <x@evil.example>",)),
        mail("lena@meadow-farm.com, x@evil.example", html=ODD, results=PROVEN.replace("{d}", "meadow-farm.com")),
    ],
)
def test_a_forger_gains_nothing_from_the_allow_list(finding_id: str, message: ParsedMessage) -> None:
    plain, allowed = scan(message, engine()), scan(message, engine(allow=ALLOW))
    assert (allowed.verdict, allowed.score) == (plain.verdict, plain.score)
    assert "allowed_sender" not in own(allowed) and finding_id in own(allowed)


@pytest.mark.parametrize("twin_of", ["allowed_sender allowed_sender_unproven"])
@pytest.mark.parametrize(
    "sender", ["lena@meadow-farm.com.evil.example", "lena@my-meadow-farm.com", "lena@meadow-farm.com <x@evil.example>"]
)
def test_one_who_resembles_an_allowed_sender_is_none(twin_of: str, sender: str) -> None:
    assert own(scan(mail(sender), engine(allow=ALLOW))) == {}, twin_of


def test_a_program_from_an_allowed_sender_is_still_one() -> None:
    message = mail(attachments=(("invoice.pdf.exe", "application/octet-stream", b"MZ" + b"\0" * 100),))
    assert scan(message, engine(allow=ALLOW)).verdict.value == "malicious"


def test_the_block_list_beats_the_allow_list() -> None:
    verdict = scan(mail(), engine(allow=ALLOW, block=("lena@meadow-farm.com",)))
    assert verdict.verdict.value == "malicious"
    assert set(own(verdict)) == {"blocked_sender"}


def test_an_account_may_say_more_than_all_do() -> None:
    options = ThreatOptions(
        everybody=OwnWords(block=("a.example",)),
        accounts=(("work", OwnWords(block=("meadow-farm.com",))),),
        inspect_files=False,
        entry_points=False,
    )
    the_engine = ThreatEngine(options)

    def verdict(sender: str, account: str) -> str:
        return the_engine.scan(mail(sender), own_address=OWN, authserv_id=SERVER, account=account).verdict.value

    assert [verdict("x@meadow-farm.com", name) for name in ("work", "home")] == ["malicious", "clean"]
    assert [verdict("x@a.example", name) for name in ("work", "home")] == ["malicious", "malicious"]


# -- YARA -------------------------------------------------------------------------------------------------------------

RULES = """
rule wire_details {
  meta: score = 55 severity = "high" description = "It names the bank account that the fraud of May used."
  strings: $iban = "XX00 1234 5678" nocase
  condition: $iban
}
rule only_attachments { strings: $a = "needle" condition: $a and part == "attachment" }
rule by_filename { meta: score = "many" severity = "dreadful" condition: filename matches /\\.scr$/i }
rule certain { meta: score = 100 conclusive = true strings: $a = "XJS*C4JDBQADN1" condition: $a }
private rule unseen { strings: $a = "needle" condition: $a }
rule by_header { strings: $a = /X-Mailer: Blaster \\d/ condition: $a and part == "message" }
"""


@pytest.fixture(scope="module")
def ruled() -> ThreatEngine:
    return engine(yara=RULES)


@pytest.mark.parametrize(
    ("message", "rules"),
    [
        (mail(text="Pay to xx00 1234 5678."), {"wire_details"}),
        (mail(html="<p>Pay to XX00 <b>1234</b> 5678.</p>"), {"wire_details"}),
        (mail(attachments=(("a.txt", "text/plain", b"XX00 1234 5678 needle"),)), {"wire_details", "only_attachments"}),
        (mail(attachments=(("prize.SCR", "application/octet-stream", b"x"),)), {"by_filename"}),
        (mail(headers=("X-Mailer: Blaster 7",)), {"by_header"}),
        (mail(text="a needle in the text"), set()),
        (mail(text="Pay to XX00 1234 5679."), set()),
        (mail(attachments=(("scr.txt", "text/plain", b"x"),)), set()),
        (mail(text="X-Mailer: Blaster"), set()),
    ],
)
def test_rules_see_message_text_and_attachments(ruled: ThreatEngine, message: ParsedMessage, rules: set[str]) -> None:
    assert {name.removeprefix("yara.") for name in own(scan(message, ruled))} == rules


def test_a_rule_speaks_through_its_metadata(ruled: ThreatEngine) -> None:
    verdict = scan(mail(text="Pay to XX00 1234 5678."), ruled)
    (found,) = verdict.findings
    assert (found.id, found.score, found.severity) == ("own_rules.yara.wire_details", 55.0, Severity.HIGH)
    assert found.evidence == "rule wire_details in message ($iban)"
    assert ruled.as_json(verdict)["reasons"] == ["It names the bank account that the fraud of May used."]


def test_odd_metadata_counts_as_none(ruled: ThreatEngine) -> None:
    verdict = scan(mail(attachments=(("a.scr", "text/plain", b"x"),)), ruled)
    found = next(one for one in verdict.findings if one.family == "own_rules")
    assert (found.score, found.severity) == (40.0, Severity.HIGH)


def test_a_conclusive_rule_is_enough_for_malicious(ruled: ThreatEngine) -> None:
    message = mail(text="XJS*C4JDBQADN1")
    assert scan(message, ruled).verdict.value == "malicious"
    table = '[weights.own_rules."yara.certain"]\npoints = 100\nseverity = "high"\nwords = "x"\n'
    assert scan(message, engine(yara=RULES, scoring=table)).verdict.value == "suspicious", "the table beats the rule"


def test_rules_see_the_raw_message_where_it_was_kept() -> None:
    raw = b"From: a@b.example\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\nbmVlZGxl\r\n"
    the_engine = engine(yara='rule encoded { strings: $a = "bmVlZGxl" condition: $a }')
    assert "yara.encoded" in own(scan(parse_message(raw, keep_raw=True), the_engine))
    assert own(scan(parse_message(raw), the_engine)) == {}


def test_equal_names_in_two_files() -> None:
    text = 'rule same { strings: $a = "%s" condition: $a }'
    rules = YaraRules([YaraSource("a.yar", text % "one"), YaraSource("b.yar", text % "two")])
    for word in (b"one", b"two"):
        assert [match.rule for match in rules.scan([Piece("text", "", word)]).matches] == ["same"]


def test_what_does_not_compile_is_named_with_file_and_line() -> None:
    good = YaraSource("/rules/good.yar", "rule good { condition: true }")
    bad = YaraSource("/rules/bad.yar", "rule a { condition: true }\n\nrule b { condition: tru }")
    worse = YaraSource("/rules/worse.yar", 'include "good.yar"\nrule c { strings: $a = /(/ condition: $a }')
    with pytest.raises(ConfigurationError) as raised:
        YaraRules([good, bad, worse])
    problems = raised.value.problems
    assert problems[0].startswith("/rules/bad.yar: line 3: unknown identifier `tru`")
    assert problems[1].startswith("/rules/worse.yar: line 1: include")
    assert problems[2].startswith("/rules/worse.yar: line 2: invalid regular expression")
    assert raised.value.key == "threat.yara_rules" and raised.value.hint


def test_rules_are_compiled_in_one_thread_and_used_in_others(monkeypatch: pytest.MonkeyPatch) -> None:
    unraisable: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    good = YaraSource("good.yar", 'rule r { strings: $a = "needle" condition: $a }')
    bad = YaraSource("bad.yar", "rule b { condition: nope }")
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(4) as others:
        rules = one.submit(YaraRules, [good]).result()
        scanned = list(others.map(rules.scan, [[Piece("text", "", b"a needle")]] * 200))
        failure = one.submit(YaraRules, [bad]).exception()
    assert {match.rule for each in scanned for match in each.matches} == {"r"} and all(each.matches for each in scanned)
    assert isinstance(failure, ConfigurationError)
    del rules, failure
    gc.collect()
    assert unraisable == [], "freed in another thread than it was made in"


def test_a_thousand_mistakes_are_not_a_thousand_lines() -> None:
    text = "\n".join(f"rule r{n} {{ condition: nothing{n} }}" for n in range(1000))
    with pytest.raises(ConfigurationError) as raised:
        YaraRules([YaraSource("many.yar", text)])
    assert raised.value.problems[-1] == "and 990 more"


def test_what_is_not_scanned_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = YaraRules([YaraSource("a.yar", 'rule r { strings: $a = "needle" condition: $a }')])
    needle = Piece("attachment", "last", b"needle")
    many = rules.scan([*(Piece("attachment", str(n), b"x") for n in range(MAX_PIECES)), needle])
    assert (many.matches, many.unfinished) == ((), f"stopped before part {MAX_PIECES + 1}")
    monkeypatch.setattr(yara_rules, "MAX_BYTES", 10)
    large = rules.scan([Piece("attachment", "big", b"x" * 8 + b"needle"), needle])
    assert (large.matches, large.unfinished) == ((), "the attachment 'big' is larger than what is scanned")


@pytest.mark.parametrize("finding_id", ["yara_unfinished"])
@pytest.mark.parametrize(
    ("files", "most", "said"),
    [
        ([b"x" * 9_000], (100, 3_000), "the attachment 'f0.txt' is larger than what is scanned"),
        ([b"x" * 1_200] * 3, (100, 3_000), "the attachment 'f2.txt' is larger than what is scanned"),
        ([b"x"] * 8, (4, 9_000), "stopped before part 5"),
    ],
    ids=["a large file", "all files together", "many files"],
)
def test_what_rules_did_not_see_is_a_finding(
    finding_id: str, files: list[bytes], most: tuple[int, int], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    the_engine = engine(yara='rule r { strings: $a = "needle" condition: $a }')
    monkeypatch.setattr(yara_rules, "MAX_PIECES", most[0])
    monkeypatch.setattr(yara_rules, "MAX_BYTES", most[1])
    attached = tuple((f"f{number}.txt", "text/plain", content) for number, content in enumerate(files))
    assert said in own(scan(mail(attachments=attached), the_engine))[finding_id]


@pytest.mark.parametrize("twin_of", ["yara_unfinished"])
@pytest.mark.parametrize(
    "message",
    [
        mail(),
        mail(text="A long letter. " * 20_000),
        mail(attachments=tuple((f"{number}.txt", "text/plain", b"x") for number in range(MAX_PIECES - 2))),
    ],
    ids=["a letter", "a long one", "many files"],
)
def test_rules_see_all_of_honest_mail(twin_of: str, message: ParsedMessage, ruled: ThreatEngine) -> None:
    assert twin_of not in own(scan(message, ruled))


def test_rules_that_take_too_long_lose_only_their_word() -> None:
    slow = engine(yara="rule slow { condition: for all i in (0..1000000000000) : ( uint8(i % 100) != 300 ) }")
    verdict = scan(mail("PayPal <x@tide-tables.net>", html=PHISH, results=NOTHING), slow)
    assert verdict.verdict.value == "malicious"
    assert set(own(verdict)) == {"yara_unfinished"}
    assert "took too long" in own(verdict)["yara_unfinished"]
