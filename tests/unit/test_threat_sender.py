"""Family sender: positives and their benign twins."""

from __future__ import annotations

import pytest
from threat_mail import NOTHING, OWN, PROVEN, found, mail

from mailmill.message_parser import parse_message
from mailmill.processing.threat.evidence.impersonation import brand_named
from mailmill.processing.threat.evidence.lookalike import disguised_word, edit_distance_at_most_one, folded, skeleton
from mailmill.processing.threat.evidence.near_domains import passes_for

LIST = ("List-Id: Tide tables <tides.lists.example.net>", "List-Post: <mailto:tides@lists.example.net>")
BY_LIST = "spf=pass smtp.mailfrom=lists.example.net; dkim=none; dmarc=none header.from={d}"


@pytest.mark.parametrize(
    ("finding_id", "sender"),
    [
        ("address_in_name", '"support@bigbank.com" <x9@tide-tables.net>'),
        ("address_in_name", '"Lena Ott (lena@meadow-farm.com)" <lena.ott@tide-tables.net>'),
        ("domain_in_name", '"taxoffice.gov.uk" <x9@tide-tables.net>'),
        ("domain_in_name", "refunds.taxes.com Team <x9@tide-tables.net>"),
        ("brand_in_name", "PayPal <service@tide-tables.net>"),
        ("brand_in_name", "PаyPаl Support <service@tide-tables.net>"),  # Cyrillic а
        ("brand_in_name", "Micros0ft Account Team <x@tide-tables.net>"),
        ("brand_in_name", "Apple Support <x@tide-tables.net>"),
        ("brand_within_name", "Your parcel from DHL is waiting <x@tide-tables.net>"),
        ("brand_within_name", "Netflix Sommerfest <x@tide-tables.net>"),
        ("brand_within_name", "Refund of your Airbnb stay <x@tide-tables.net>"),
        ("own_domain_in_name", "harbour.example.org Mail Desk <x@tide-tables.net>"),
        ("own_domain_in_name", '"IT example.org" <x@tide-tables.net>'),
        ("own_domain_in_name", '"Mailbox of EXAMPLE.ORG" <x@tide-tables.net>'),
        ("disguised_letters", "Sесurity desk <x@tide-tables.net>"),  # Cyrillic е, с
        ("disguised_letters", "𝗣𝗮𝘆𝗺𝗲𝗻𝘁𝘀 <x@tide-tables.net>"),
        ("role_on_free_mail", "Accounts Department <acc.dept.771@gmail.com>"),
        ("role_on_free_mail", "IT Helpdesk <helpdesk77@outlook.com>"),
        ("role_on_free_mail", "Human Resources <x90@yahoo.com>"),
        ("malformed_from", "Parcel Service, <x@tide-tables.net>"),
        ("malformed_from", "Parcel Service"),
        ("malformed_from", "Parcel Service(<x@tide-tables.net>"),
    ],
)
def test_found(finding_id: str, sender: str) -> None:
    assert f"sender.{finding_id}" in found(mail(sender), "sender")


@pytest.mark.parametrize(
    "sender",
    [
        '"lena@meadow-farm.com" <lena@meadow-farm.com>',
        '"lena@mail.meadow-farm.com" <lena@meadow-farm.com>',
        '"Meadow-Farm.com" <news@meadow-farm.com>',
        '"meadow-farm.de" <news@meadow-farm.com>',  # the same firm's other country
        "PayPal <service@paypal.com>",
        "PayPal <service@mail.paypal.de>",
        "PayPal <service@paypal.se>",  # its name under a country's suffix
        "Microsoft account team <account-security-noreply@accountprotection.microsoft.com>",
        "Apple Orchard Cider <cider@orchard-farm.com>",
        "Chase Whitfield <chase@meadow-farm.com>",
        "Tim <tim@meadow-farm.com>",
        "Ally <ally@meadow-farm.com>",
        "Visa Whitfield <v@meadow-farm.com>",
        "Lena Ott <lena.ott@gmail.com>",
        "Marketing Ott GmbH <news@ott-gmbh.de>",
        "Иван Петров <ivan@meadow-farm.com>",
        "Ελένη Παπαδοπούλου <eleni@meadow-farm.com>",
        "Zoë Müller-Łukasz <zoe@meadow-farm.com>",
        '"Ott, Lena" <lena@meadow-farm.com>',
        '"Ott, Lena, <Sales>" <lena@meadow-farm.com>',
        "lena@meadow-farm.com",
    ],
)
def test_benign_twin(sender: str) -> None:
    assert found(mail(sender), "sender") == set()


def test_a_list_may_write_names_of_others() -> None:
    message = mail('"lena@meadow-farm.com via tides" <tides@lists.example.net>', results=BY_LIST, headers=LIST)
    assert found(message, "sender") == set()


@pytest.mark.parametrize(
    ("finding_id", "sender"),
    [
        ("own_address", OWN),
        ("own_address", f'"Dana" <{OWN}>'),
        ("own_address", f"Mail Administrator <{OWN.upper()}>"),
        ("own_domain", "Dana <dana@mail.example.org>"),
        ("own_domain", "boss@harbour.example.org"),
        ("own_domain", "Scanner <scanner@example.org>"),
    ],
)
def test_our_own_identity_needs_proof(finding_id: str, sender: str) -> None:
    assert f"sender.{finding_id}" in found(mail(sender, results=NOTHING))
    assert f"sender.{finding_id}" not in found(mail(sender, results=PROVEN))
    assert f"sender.{finding_id}" not in found(mail(sender, results=None)), (
        "our own server said nothing: we cannot tell"
    )


@pytest.mark.parametrize(
    ("finding_id", "reply_to", "results"),
    [
        ("reply_to_free_mail", "director.private@gmail.com", PROVEN),
        ("reply_to_free_mail", "Somebody <x77@proton.me>", NOTHING),
        ("reply_to_free_mail", "Lena Ott <lena.ott@outlook.com>", PROVEN),
        ("reply_to_differs", "answers@lists-of.net, lena@meadow-farm.com", NOTHING),
        ("reply_to_differs", "x@tide-tables.net", PROVEN),
        ("reply_to_differs", "x@tide-tables.net", NOTHING),
    ],
)
def test_reply_to_elsewhere(finding_id: str, reply_to: str, results: str) -> None:
    assert f"sender.{finding_id}" in found(mail(results=results, headers=(f"Reply-To: {reply_to}",)))


@pytest.mark.parametrize(
    ("sender", "reply_to", "results"),
    [
        ("Lena <lena@meadow-farm.com>", "desk@mail.meadow-farm.com", PROVEN),
        ("Lena <lena@meadow-farm.com>", "lena@gmail.com", PROVEN),  # herself, at home
        ("Lena <lena@meadow-farm.com>", "case-7@desk-service.net", PROVEN + "; dkim=pass header.d=desk-service.net"),
        ("Lena <lena@meadow-farm.com>", OWN, PROVEN),
    ],
)
def test_reply_to_benign_twin(sender: str, reply_to: str, results: str) -> None:
    assert found(mail(sender, results=results, headers=(f"Reply-To: {reply_to}",)), "sender") == set()


@pytest.mark.parametrize("subject", [f"{OWN}, you have won", f"Notice for <{OWN.upper()}>"])
def test_the_own_address_as_bait(subject: str) -> None:
    assert "sender.recipient_in_name_or_subject" in found(mail(subject=subject))


@pytest.mark.parametrize("subject", ["Notice for Dana", "Notice for dana@elsewhere.net"])
def test_the_own_address_as_bait_benign_twin(subject: str) -> None:
    assert found(mail(subject=subject), "sender") == set()


@pytest.mark.parametrize("subject", ["Re: your invoice", "FW: contract", "AW: Angebot", "Re[2]: offer"])
def test_a_reply_to_nothing(subject: str) -> None:
    assert "sender.false_reply" in found(mail(subject=subject))


@pytest.mark.parametrize("header", ["In-Reply-To: <0@meadow-farm.com>", "References: <0@meadow-farm.com>"])
def test_a_true_reply(header: str) -> None:
    assert found(mail(subject="Re: your invoice", headers=(header,)), "sender") == set()
    assert found(mail(subject="Regarding: your invoice"), "sender") == set()


@pytest.mark.parametrize("subject", ["Your раyment is late", "Your acc\u200bount is locked", "𝐅𝐢𝐧𝐚𝐥 warning"])
def test_disguised_subject(subject: str) -> None:
    assert "sender.disguised_letters" in found(mail(subject=subject))


@pytest.mark.parametrize(
    "word",
    [
        "USB-кабель",
        "naïve",
        "Привет",
        "µm",
        "5Ω",
        "soft\u00adhyphen",
        "family 👩\u200d👩\u200d👧",
        "नमस्ते",
        "می\u200cخواهم",
    ],
)
def test_honest_letters(word: str) -> None:
    assert disguised_word(word) == ""


def test_letters_are_seen_through() -> None:
    assert skeleton("РаyРаl") == "paypal"
    assert skeleton("Ｇｏｏｇｌé") == "google"
    assert folded("rnicr0soft") == folded("microsoft")
    assert [edit_distance_at_most_one("netflix", other) for other in ("netflx", "netfliix", "nteflix", "natflix")] == [
        True
    ] * 4
    assert not edit_distance_at_most_one("netflix", "natfllx")


def test_a_brand_is_named_wholly_or_within() -> None:
    whole = brand_named("DHL Express Kundenservice")
    within = brand_named("Gewinnspiel mit DHL Paketen")
    assert whole is not None
    assert within is not None
    assert (whole.brand.name, whole.whole, within.whole) == ("dhl", True, False)
    spelled = brand_named("C o i n b a s e")
    assert spelled is not None
    assert spelled.brand.name == "coinbase"
    assert brand_named("A b c d") is None
    assert brand_named("Lena Ott") is None
    assert brand_named("") is None


FORWARD = "Please see below.\n\n---------- Forwarded message ---------\nFrom: Max Hill <max@hill.example.net>\n"


@pytest.mark.parametrize(
    ("subject", "text", "false"),
    [
        ("Fwd: contract", "Please see the contract.", True),
        ("FW: invoice", "", True),
        ("WG: Rechnung", "Bitte zahlen.", True),
        ("Fwd: contract", FORWARD, False),
        ("FW: invoice", "See this.\n\n> From: Max Hill <max@hill.example.net>\n> Sent: Monday", False),
        ("WG: Rechnung", "Bitte.\n\nVon: Max Hill <max@hill.example.net>\nGesendet: Montag", False),
        ("Re: invoice", FORWARD, True),
    ],
)
def test_a_forward_carries_what_it_forwards(subject: str, text: str, *, false: bool) -> None:
    assert ("sender.false_reply" in found(mail(subject=subject, text=text))) is false


def test_a_forward_may_attach_what_it_forwards() -> None:
    message = mail(subject="Fwd: contract", attachments=(("a.eml", "message/rfc822", b"From: a@b.example\n\nx"),))
    assert "sender.false_reply" not in found(message)


@pytest.mark.parametrize(
    ("finding_id", "sender", "subject"),
    [
        ("direction_override", "Lena \u202emoc.knabgib <lena@meadow-farm.com>", "x"),
        ("direction_override", "\u202dLena <lena@meadow-farm.com>", "x"),
        ("direction_override", "Lena <lena@meadow-farm.com>", "Your \u202ekcehc"),
        ("padded_name", '"Bigbank' + " " * 40 + '" <lena@meadow-farm.com>', "x"),
        ("padded_name", '"Bigbank' + "\u2800" * 20 + '." <lena@meadow-farm.com>', "x"),
        ("padded_name", '"Bigbank' + "\u200b" * 20 + 'x" <lena@meadow-farm.com>', "x"),
    ],
)
def test_a_name_that_hides(finding_id: str, sender: str, subject: str) -> None:
    assert f"sender.{finding_id}" in found(mail(sender, subject=subject))


@pytest.mark.parametrize(
    ("sender", "subject"),
    [
        ("\u200fלאה\u200f <lea@meadow-farm.com>", "x"),
        ("Lena <lena@meadow-farm.com>", "\u2067שלום\u2069"),
        ('"Lena   Ott" <lena@meadow-farm.com>', "x"),
        ('"Lena ........ Ott" <lena@meadow-farm.com>', "To be continued................"),
    ],
)
def test_honest_marks_and_blanks(sender: str, subject: str) -> None:
    assert not found(mail(sender, subject=subject)) & {"sender.direction_override", "sender.padded_name"}


@pytest.mark.parametrize("reply_to", ["lena@meadovv-farm.com", "lena@meadow-farms.com", "lena@meadow-farm.co"])
def test_answers_to_a_domain_that_passes_for_the_senders(reply_to: str) -> None:
    assert "sender.reply_to_lookalike" in found(mail(headers=(f"Reply-To: {reply_to}",)))


@pytest.mark.parametrize(
    "reply_to", ["lena@mail.meadow-farm.com", "lena@meadow-farm.de", "lena@meadow-shop.com", "lena@farm-meadow.com"]
)
def test_answers_to_a_sister_domain(reply_to: str) -> None:
    assert "sender.reply_to_lookalike" not in found(mail(headers=(f"Reply-To: {reply_to}",)))


@pytest.mark.parametrize(
    ("left", "right", "near"),
    [
        ("bigshop.com", "blgshop.com", True),
        ("bigshop.com", "bigsh0p.com", True),
        ("bigshop.com", "bigshop.co", True),
        ("acme-us.com", "acme-uk.com", False),
        ("acme.de", "acme.be", False),
        ("bigshop1.com", "bigshop2.com", False),
        ("cat.com", "bat.com", False),
        ("bigshop.com", "bigshop.com", False),
        ("bigshop.de", "bigshop.com", False),
        ("localhost", "localhosts", False),
    ],
)
def test_domains_that_pass_for_one_another(left: str, right: str, *, near: bool) -> None:
    assert passes_for(left, right) is near
    assert passes_for(right, left) is near


ITSELF = "To: lena@meadow-farm.com"


def addressed(to: str, *headers: str) -> set[str]:
    lines = ["From: Lena <lena@meadow-farm.com>", to, "Subject: x", *headers, "", "x"]
    message = parse_message("\r\n".join(lines).encode())
    return found(message, "sender")


@pytest.mark.parametrize(
    ("to", "finding_id"),
    [
        (ITSELF, "addressed_to_itself"),
        ("To: Customer <Lena@Meadow-Farm.com>", "addressed_to_itself"),
        ("To: <lena@meadow-farm.com>, lena@meadow-farm.com", "addressed_to_itself"),
        ("To: undisclosed-recipients:;", "undisclosed_recipients"),
        ("To: Undisclosed recipients: ;", "undisclosed_recipients"),
        ('To: "Recipient list not shown" <>', "undisclosed_recipients"),
    ],
)
def test_whom_it_is_addressed_to(to: str, finding_id: str) -> None:
    assert addressed(to) == {f"sender.{finding_id}"}


@pytest.mark.parametrize(
    ("to", "headers"),
    [
        (f"To: lena@meadow-farm.com, {OWN}", ()),
        ("To: team@example.org", ()),
        (f"To: {OWN}", ()),
        ("X-To: nobody", ()),
        (ITSELF, ("List-Id: <tides.meadow-farm.com>",)),
        ("To: undisclosed-recipients:;", ("List-Unsubscribe: <mailto:x@meadow-farm.com>",)),
    ],
)
def test_whom_it_is_addressed_to_benign_twin(to: str, headers: tuple[str, ...]) -> None:
    assert addressed(to, *headers) == set()
