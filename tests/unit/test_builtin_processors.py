"""The built-in processors, as the service calls them."""

from __future__ import annotations

import json

from threat_mail import NOTHING, OWN, SERVER, mail

from mailmill.message_parser import parse_message
from mailmill.processing.builtin import BUILTIN, announce_threat
from mailmill.processing.registry import Context

CONTEXT = Context("work", OWN, 1, ("INBOX",), SERVER, 1, historical=False)


def test_their_names_and_values() -> None:
    message = mail("PayPal <x@tide-tables.net>", results=NOTHING)
    values = {processor.name: processor.function(message, CONTEXT) for processor in BUILTIN}
    assert list(values) == ["threat", "summary", "category"]
    assert set(values["threat"]) == {"verdict", "score", "findings", "reasons"}
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
