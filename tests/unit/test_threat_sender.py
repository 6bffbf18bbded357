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
        ("address_in_name", "'lena@mail.meadow-farm.com' <meadow@gmail.com>"),
        ("domain_in_name", '"taxoffice.gov.uk" <x9@tide-tables.net>'),
        ("domain_in_name", "refunds.taxes.com Team <x9@tide-tables.net>"),
        ("domain_in_name", '"Lena (www.bigbank.co.uk)" <lena@tide-tables.net>'),
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
    ("twin_of", "sender"),
    [
        ("address_in_name", '"lena@meadow-farm.com" <lena@meadow-farm.com>'),
        ("address_in_name", '"lena@mail.meadow-farm.com" <lena@meadow-farm.com>'),
        ("domain_in_name", '"Meadow-Farm.com" <news@meadow-farm.com>'),
        ("domain_in_name", '"meadow-farm.de" <news@meadow-farm.com>'),  # the same firm's other country
        ("brand_in_name", "PayPal <service@paypal.com>"),
        ("brand_in_name", "PayPal <service@mail.paypal.de>"),
        ("brand_in_name", "PayPal <service@paypal.se>"),  # its name under a country's suffix
        (
            "brand_in_name role_on_free_mail",
            "Microsoft account team <account-security-noreply@accountprotection.microsoft.com>",
        ),
        ("brand_in_name brand_within_name", "Apple Orchard Cider <cider@orchard-farm.com>"),
        ("brand_within_name", "Chase Whitfield <chase@meadow-farm.com>"),
        ("brand_within_name", "Tim <tim@meadow-farm.com>"),
        ("brand_within_name", "Ally <ally@meadow-farm.com>"),
        ("brand_within_name", "Visa Whitfield <v@meadow-farm.com>"),
        ("role_on_free_mail", "Lena Ott <lena.ott@gmail.com>"),
        ("role_on_free_mail", "Marketing Ott GmbH <news@ott-gmbh.de>"),
        ("disguised_letters", "Иван Петров <ivan@meadow-farm.com>"),
        ("disguised_letters", "Ελένη Παπαδοπούλου <eleni@meadow-farm.com>"),
        ("disguised_letters", "Zoë Müller-Łukasz <zoe@meadow-farm.com>"),
        ("malformed_from", '"Ott, Lena" <lena@meadow-farm.com>'),
        ("malformed_from", '"Ott, Lena, <Sales>" <lena@meadow-farm.com>'),
        ("malformed_from address_in_name", "lena@meadow-farm.com"),
        ("domain_in_name", '"Lena S.Ott, v2.10" <lena@meadow-farm.com>'),
        ("domain_in_name", '"Lena (pier B.de)" <lena@meadow-farm.com>'),
        ("role_on_free_mail", "Lena Servis <lena.servis@gmail.com>"),
        ("own_domain_in_name", '"Lena, example org" <lena@meadow-farm.com>'),
        ("own_domain_in_name", '"Dana of example.org" <dana@example.org>'),
    ],
)
def test_benign_twin(twin_of: str, sender: str) -> None:
    assert found(mail(sender), "sender") == set(), twin_of


@pytest.mark.parametrize(
    ("twin_of", "name"),
    [
        ("address_in_name", "lena@meadow-farm.com via tides"),
        ("domain_in_name", "meadow-farm.com via tides"),
        ("brand_in_name brand_within_name", "PayPal via tides"),
        ("brand_in_name", "PayPal Support"),
        ("brand_within_name", "Refund of your Airbnb stay"),
        ("own_domain_in_name", "dana of example.org via tides"),
    ],
)
def test_a_list_may_write_names_of_others(twin_of: str, name: str) -> None:
    message = mail(f'"{name}" <tides@lists.example.net>', results=BY_LIST, headers=LIST)
    assert found(message, "sender") == set(), twin_of


@pytest.mark.parametrize(
    ("twin_of", "sender", "headers"),
    [
        ("reply_to_differs", "Lena <lena@meadow-farm.com>", ("Reply-To: desk@desk-service.net",)),
        ("reply_to_free_mail", "Lena <lena@meadow-farm.com>", ("Reply-To: pia77@gmail.com",)),
        ("reply_to_lookalike", "Lena <lena@meadow-farm.com>", ("Reply-To: tides@meadow-farms.com",)),
        ("role_on_free_mail", "Support Team <support.team.x9@gmail.com>", ()),
        ("own_address", OWN, ()),
        ("own_domain", "Boss <boss@harbour.example.org>", ()),
    ],
)
def test_a_list_sends_on_what_its_members_write(twin_of: str, sender: str, headers: tuple[str, ...]) -> None:
    assert found(mail(sender, results=BY_LIST, headers=(*LIST, *headers)), "sender") == set(), twin_of


def test_who_writes_by_a_service_says_so_and_is_proven() -> None:
    message = "Lena via PayPal <lena@tide-tables.net>"
    assert "sender.brand_within_name" not in found(mail(message))
    assert "sender.brand_within_name" in found(mail(message, results=NOTHING))


def test_a_second_domain_of_a_brand_weighs_less_once_proven() -> None:
    message = "PayPal <news@paypal-research.com>"
    assert "sender.brand_within_name" in found(mail(message))
    assert "sender.brand_in_name" in found(mail(message, results=NOTHING))


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
    ("twin_of", "sender", "results"),
    [
        ("own_address", "Dana <dana@harbour.example.com>", NOTHING),
        ("own_address", "Dana Harbour <dana.harbour@gmail.com>", NOTHING),
        ("own_address own_domain", "Lena <lena@meadow-farm.com>", NOTHING),
        # our server passed DMARC, of another From than we see
        ("own_address", OWN, "spf=none; dkim=none; dmarc=pass header.from=elsewhere.example"),
        ("own_domain", "boss@example.org", "spf=none; dkim=none; dmarc=pass header.from=elsewhere.example"),
        ("own_domain", "Boss <boss@my-example.org>", NOTHING),
        ("own_domain", "Boss <boss@example.org.uk>", NOTHING),
    ],
)
def test_our_own_identity_benign_twin(twin_of: str, sender: str, results: str) -> None:
    ids = found(mail(sender, results=results), "sender")
    assert not ids & {f"sender.{one}" for one in twin_of.split()}


def test_a_name_that_ends_as_the_own_domain_does_is_another() -> None:
    assert "sender.own_domain_in_name" not in found(mail("bestexample.org News <news@bestexample.org>"))


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
    ("twin_of", "sender", "reply_to", "results"),
    [
        ("reply_to_differs reply_to_free_mail", "Lena <lena@meadow-farm.com>", "desk@mail.meadow-farm.com", PROVEN),
        ("reply_to_free_mail", "Lena <lena@meadow-farm.com>", "lena@gmail.com", PROVEN),  # herself, at home
        (
            "reply_to_differs",
            "Lena <lena@meadow-farm.com>",
            "case-7@desk-service.net",
            PROVEN + "; dkim=pass header.d=desk-service.net",
        ),
        ("reply_to_differs reply_to_free_mail", "Lena <lena@meadow-farm.com>", OWN, PROVEN),
        ("reply_to_differs", "Lena <lena@meadow-farm.com>", "desk@mail.meadow-farm.com", NOTHING),
    ],
)
def test_reply_to_benign_twin(twin_of: str, sender: str, reply_to: str, results: str) -> None:
    assert found(mail(sender, results=results, headers=(f"Reply-To: {reply_to}",)), "sender") == set(), twin_of


@pytest.mark.parametrize("finding_id", ["recipient_in_name_or_subject"])
@pytest.mark.parametrize(
    ("sender", "subject"),
    [
        ("Lena <lena@meadow-farm.com>", f"{OWN}, you have won"),
        ("Lena <lena@meadow-farm.com>", f"Notice for <{OWN.upper()}>"),
        (f'"{OWN}" <x@tide-tables.net>', "Notice"),
    ],
)
def test_the_own_address_as_bait(finding_id: str, sender: str, subject: str) -> None:
    assert f"sender.{finding_id}" in found(mail(sender, subject=subject))


@pytest.mark.parametrize("twin_of", ["recipient_in_name_or_subject"])
@pytest.mark.parametrize(
    ("sender", "subject"),
    [
        ("Lena <lena@meadow-farm.com>", "Notice for Dana"),
        ("Lena <lena@meadow-farm.com>", "Notice for dana@elsewhere.net"),
        ("Lena <lena@meadow-farm.com>", "Notice for harbour.example.org"),
        (f'"{OWN}" <{OWN}>', f"To myself, {OWN}"),
    ],
)
def test_the_own_address_as_bait_benign_twin(twin_of: str, sender: str, subject: str) -> None:
    assert found(mail(sender, subject=subject), "sender") == set(), twin_of


@pytest.mark.parametrize("finding_id", ["false_reply"])
@pytest.mark.parametrize("subject", ["Re: your invoice", "FW: contract", "AW: Angebot", "Re[2]: offer"])
def test_a_reply_to_nothing(finding_id: str, subject: str) -> None:
    assert f"sender.{finding_id}" in found(mail(subject=subject))


@pytest.mark.parametrize("twin_of", ["false_reply"])
@pytest.mark.parametrize(
    ("subject", "header"),
    [
        ("Re: your invoice", "In-Reply-To: <0@meadow-farm.com>"),
        ("Re: your invoice", "References: <0@meadow-farm.com>"),
        ("Regarding: your invoice", "X-Mailer: Pier 7"),
        ("Reply by Monday", "X-Mailer: Pier 7"),
        ("The answer: re: your invoice", "X-Mailer: Pier 7"),
    ],
)
def test_a_true_reply(twin_of: str, subject: str, header: str) -> None:
    assert found(mail(subject=subject, headers=(header,)), "sender") == set(), twin_of


@pytest.mark.parametrize("finding_id", ["disguised_letters"])
@pytest.mark.parametrize("subject", ["Your раyment is late", "Your acc\u200bount is locked", "𝐅𝐢𝐧𝐚𝐥 warning"])
def test_disguised_subject(finding_id: str, subject: str) -> None:
    assert f"sender.{finding_id}" in found(mail(subject=subject))


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
    ("twin_of", "sender", "subject"),
    [
        ("direction_override", "\u200fלאה\u200f <lea@meadow-farm.com>", "x"),
        ("direction_override", "Lena <lena@meadow-farm.com>", "\u2067שלום\u2069"),
        ("padded_name", '"Lena   Ott" <lena@meadow-farm.com>', "x"),
        ("padded_name", '"Lena ........ Ott" <lena@meadow-farm.com>', "To be continued................"),
        ("direction_override", "Lena <lena@meadow-farm.com>", "\u2068שלום\u2069 and the plan"),
        ("padded_name", '"Lena               Ott" <lena@meadow-farm.com>', "x"),
    ],
)
def test_honest_marks_and_blanks(twin_of: str, sender: str, subject: str) -> None:
    assert not found(mail(sender, subject=subject)) & {"sender.direction_override", "sender.padded_name"}


@pytest.mark.parametrize("finding_id", ["reply_to_lookalike"])
@pytest.mark.parametrize("reply_to", ["lena@meadovv-farm.com", "lena@meadow-farms.com", "lena@meadow-farm.co"])
def test_answers_to_a_domain_that_passes_for_the_senders(finding_id: str, reply_to: str) -> None:
    assert f"sender.{finding_id}" in found(mail(headers=(f"Reply-To: {reply_to}",)))


@pytest.mark.parametrize("twin_of", ["reply_to_lookalike"])
@pytest.mark.parametrize(
    "reply_to", ["lena@mail.meadow-farm.com", "lena@meadow-farm.de", "lena@meadow-shop.com", "lena@farm-meadow.com"]
)
def test_answers_to_a_sister_domain(twin_of: str, reply_to: str) -> None:
    assert f"sender.{twin_of}" not in found(mail(headers=(f"Reply-To: {reply_to}",))), twin_of


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
    ("twin_of", "to", "headers"),
    [
        ("addressed_to_itself", f"To: lena@meadow-farm.com, {OWN}", ()),
        ("addressed_to_itself undisclosed_recipients", "To: team@example.org", ()),
        ("undisclosed_recipients", f"To: {OWN}", ()),
        ("undisclosed_recipients", "X-To: nobody", ()),
        ("addressed_to_itself", ITSELF, ("List-Id: <tides.meadow-farm.com>",)),
        ("undisclosed_recipients", "To: undisclosed-recipients:;", ("List-Unsubscribe: <mailto:x@meadow-farm.com>",)),
    ],
)
def test_whom_it_is_addressed_to_benign_twin(twin_of: str, to: str, headers: tuple[str, ...]) -> None:
    assert addressed(to, *headers) == set(), twin_of
