"""Family sender: positives and their benign twins."""

from __future__ import annotations

import pytest
from threat_mail import NOTHING, OWN, PROVEN, found, mail

from mailmill.processing.threat.impersonation import brand_named
from mailmill.processing.threat.lookalike import disguised_word, edit_distance_at_most_one, folded, skeleton

LIST = ("List-Id: Tide tables <tides.lists.example.net>",)
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
        ("own_domain_in_name", "harbour.example.org Mail Desk <x@tide-tables.net>"),
        ("own_domain_in_name", '"IT example.org" <x@tide-tables.net>'),
        ("disguised_letters", "Sесurity desk <x@tide-tables.net>"),  # Cyrillic е, с
        ("disguised_letters", "𝗣𝗮𝘆𝗺𝗲𝗻𝘁𝘀 <x@tide-tables.net>"),
        ("role_on_free_mail", "Accounts Department <acc.dept.771@gmail.com>"),
        ("role_on_free_mail", "IT Helpdesk <helpdesk77@outlook.com>"),
        ("malformed_from", "Parcel Service, <x@tide-tables.net>"),
        ("malformed_from", "Parcel Service"),
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
    assert brand_named("Lena Ott") is None
    assert brand_named("") is None
