"""The built-in processors, as the service calls them."""

from __future__ import annotations

import json
import pickle

import pytest
from threat_mail import NOTHING, OWN, SERVER, mail

from mailmill.errors import ConfigurationError
from mailmill.message_parser import parse_message
from mailmill.model import SenderHistory
from mailmill.processing.builtin import Threat, announce_threat, builtin_processors
from mailmill.processing.registry import Context, can_be_imported
from mailmill.processing.runners import Runners
from mailmill.processing.threat.options import OwnWords, ThreatOptions, YaraSource

BUILTIN = builtin_processors()
CONTEXT = Context("work", OWN, 1, ("INBOX",), SERVER, 1, historical=False)


def test_their_names_and_values() -> None:
    message = mail("PayPal <x@tide-tables.net>", results=NOTHING)
    values = {processor.name: processor.function(message, CONTEXT) for processor in BUILTIN}
    assert list(values) == ["threat", "summary", "category"]
    assert set(values["threat"]) == {"verdict", "score", "findings", "reasons", "promptInjection"}
    assert set(values["summary"]) == {"text", "method"}
    assert set(values["category"]) == {"category", "priority", "evidence"}
    assert json.loads(json.dumps(values)) == values


def test_a_threat_is_announced_unless_clean() -> None:
    threat = BUILTIN[0]
    assert threat.announce is announce_threat
    assert threat.announce(threat.function(mail("PayPal <x@tide-tables.net>", results=NOTHING), CONTEXT)) == (
        "threatFound",
    )
    assert threat.announce(threat.function(mail(), CONTEXT)) == ()
    assert [processor.announce for processor in BUILTIN[1:]] == [None, None]


def test_an_empty_message_is_no_error() -> None:
    for processor in BUILTIN:
        json.dumps(processor.function(parse_message(b""), CONTEXT))


def test_results_are_believed_only_where_the_server_is_known() -> None:
    unknown = Context("work", OWN, 1, ("INBOX",), None, 1, historical=False)
    value = BUILTIN[0].function(mail(results=NOTHING), unknown)
    assert value["findings"] == []


# -- the configured engine --------------------------------------------------------------------------------------------

OPTIONS = ThreatOptions(
    yara=(YaraSource("own.yar", 'rule raw { strings: $a = "Ym9vaw==" condition: $a and part == "message" }'),),
    everybody=OwnWords(block=("blocked.example",)),
    accounts=(("work", OwnWords(block=("blocked-at-work.example",))),),
    inspect_files=False,
    entry_points=False,
)
RAW = (
    b"From: x@blocked-at-work.example\r\nTo: dana@harbour.example.org\r\nContent-Transfer-Encoding: base64\r\n"
    b"Content-Type: text/plain\r\n\r\nYm9vaw==\r\n"
)


def ids(value: dict[str, list[dict[str, object]]]) -> set[object]:
    return {one["id"] for one in value["findings"]}


def test_it_works_as_configured() -> None:
    threat = builtin_processors(OPTIONS)[0]
    assert threat.keep_raw and threat.wants_history and threat.version == 2
    value = threat.function(parse_message(RAW, keep_raw=True), CONTEXT)
    assert ids(value) == {"own_rules.blocked_sender", "own_rules.yara.raw"}
    elsewhere = Context("home", OWN, 1, ("INBOX",), SERVER, 1, historical=False)
    assert ids(threat.function(parse_message(RAW, keep_raw=True), elsewhere)) == {"own_rules.yara.raw"}


def test_raw_bytes_are_kept_only_for_rules_that_look_at_them() -> None:
    assert [processor.keep_raw for processor in BUILTIN] == [False, False, False]


def test_what_makes_no_sense_is_told_before_anything_runs() -> None:
    with pytest.raises(ConfigurationError, match=r"own\.yar: line 1"):
        builtin_processors(ThreatOptions(yara=(YaraSource("own.yar", "rule {"),)))
    with pytest.raises(ConfigurationError, match=r"own\.toml: .*'weights.links.ip_host.points'"):
        builtin_processors(ThreatOptions(scoring="[weights.links.ip_host]\npoints = 900", scoring_file="own.toml"))
    with pytest.raises(ConfigurationError, match=r"own\.toml: the scoring table is not TOML") as raised:
        builtin_processors(ThreatOptions(scoring="points = ", scoring_file="own.toml"))
    assert raised.value.hint and raised.value.key == "threat.scoring_file"


def test_it_can_be_sent_to_another_process() -> None:
    threat = builtin_processors(OPTIONS)[0].function
    assert all(can_be_imported(processor.function) for processor in BUILTIN)
    sent = pickle.loads(pickle.dumps(threat))
    assert isinstance(sent, Threat) and sent.options == OPTIONS
    assert sent(parse_message(RAW), CONTEXT) == threat(parse_message(RAW), CONTEXT)


async def test_a_row_that_crashed_gets_the_same_verdict_in_a_child() -> None:
    threat = builtin_processors(OPTIONS)[0]
    runners = Runners(threads=1, children=1)
    try:
        apart = await runners.run(threat, RAW, CONTEXT, apart=True)
        known = Context("work", OWN, 2, ("INBOX",), SERVER, 1, False, history=SenderHistory(known=True, received=3))
        again = await runners.run(threat, RAW, known, apart=True)
    finally:
        await runners.close()
    assert ids(json.loads(apart.value)) == {"own_rules.blocked_sender", "own_rules.yara.raw"}
    assert apart.announce == ("threatFound",)
    assert ids(json.loads(again.value)) >= {"own_rules.blocked_sender", "own_rules.yara.raw"}
