"""Family impersonation: the message speaks as a brand that it does not come from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from threat_mail import NOTHING, OWN, PROVEN, SERVER, context, found, mail

from mailmill.model import SenderHistory
from mailmill.processing.threat.context import prepare
from mailmill.processing.threat.evidence import posing as posing_module
from mailmill.processing.threat.evidence.impersonation import brand_at
from mailmill.processing.threat.evidence.posing import MAX_FIRST_LINES, Sign, posings
from mailmill.processing.threat.families.impersonation import poses_as_brand

LINK = '<a href="https://tide-tables.net/x1">Go on</a>'
STRANGER = "Notice <n@tide-tables.net>"


def page(*lines: str, link: str = LINK) -> str:
    return "".join(f"<p>{line}</p>" for line in lines) + link


POSES = [
    # (sender, subject, html)
    (STRANGER, "Your Netflix membership", page("We could not bill you.", "The Netflix Team", "© 2026 Netflix, Inc.")),
    (STRANGER, "Action required", page("Dear PayPal customer,", "your PayPal account is limited.")),
    (
        STRANGER,
        "Payment",
        page("Update your card.", "Sincerely,", "PayPal", "Copyright © 1999-2026 PayPal. All rights reserved."),
    ),
    (STRANGER, "Your Apple ID", page("Sign in again.", "© 2026 Apple Inc. All rights reserved.")),
    ("Netflix <n@tide-tables.net>", "Netflix: payment declined", page("Update your Netflix account")),
    (STRANGER, "Ihr Sparkasse-Konto", page("Bitte bestätigen.", "Mit freundlichen Grüßen", "Ihre Sparkasse")),
    (STRANGER, "Colis", page("Votre colis Chronopost est en attente", "Cordialement,", "L'équipe Chronopost")),
    (STRANGER, "Storage", page('<img src="cid:1" alt="Microsoft logo">', "Microsoft account team")),
    (STRANGER, "DHL Express: shipment on hold", page("Customs fee is due.", "DHL Customer Service Team")),
    (STRANGER, "Mailbox", page("Ρayρal Support Team", "© ΡayΡal")),  # Greek letters
]


@pytest.mark.parametrize(("sender", "subject", "html"), POSES)
@pytest.mark.parametrize("results", [NOTHING, PROVEN])
def test_poses(sender: str, subject: str, html: str, results: str) -> None:
    assert "impersonation.poses_as_brand" in found(mail(sender, subject=subject, html=html, results=results))


@pytest.mark.parametrize(
    ("sender", "subject", "html"),
    [
        (STRANGER, "Notice", page("Please confirm.", "The PayPal Team")),
        (STRANGER, "Notice", page("Please confirm.", "© 2026 Chase")),
        (STRANGER, "Netflix: payment declined", page("Update your Netflix account")),
        ("Trust Wallet <n@tide-tables.net>", "Verify your Trust Wallet", page("Please confirm.")),
    ],
)
def test_speaks(sender: str, subject: str, html: str) -> None:
    ids = found(mail(sender, subject=subject, html=html, results=NOTHING), "impersonation")
    assert ids == {"impersonation.speaks_as_brand"}


BENIGN = [
    # the brand itself, proven or not (that is another family's question)
    ("Netflix <info@account.netflix.com>", *POSES[0][1:]),
    ("PayPal <service@paypal.de>", *POSES[1][1:]),
    # it talks of brands
    (STRANGER, "How Netflix changed television", page("This week we look at Netflix.", "© 2026 Tide Tables Ltd")),
    (STRANGER, "Our summer news", page("Follow us on Facebook", "Facebook Instagram YouTube", "© 2026 Meadow Farm")),
    (STRANGER, "Your order", page("Pay with PayPal", "or with Visa", "Thanks,", "Meadow Farm")),
    (STRANGER, "Welcome", page("Sign in with Google", "Sign in with your Google account", "The Meadow Team")),
    (STRANGER, "Invoice 7", page("Bank: Commerzbank AG", "IBAN DE00 0000", "Kind regards,", "Lena Ott")),
    (STRANGER, "The app", page("Get it on Google Play", "Apple is a trademark of Apple Inc.", "© 2026 Ott")),
    (STRANGER, "Target your audience", page("Your target account list", "Chase Whitfield", "The Orange County Team")),
    (STRANGER, "Article", page('<img alt="Facebook"><img alt="Instagram logo">', "Meadow Farm")),
    (STRANGER, "Thanks for your purchase", page("You paid with your Visa card ending 1234.", "© 2026 Bigshop")),
    # it passes on what the brand wrote
    (
        STRANGER,
        "Fwd: Your Netflix membership",
        page("See below", "---------- Forwarded message ---------", "The Netflix Team", "© 2026 Netflix, Inc."),
    ),
    # it asks for nothing
    (STRANGER, POSES[0][1], page("We could not bill you.", "The Netflix Team", "© 2026 Netflix, Inc.", link="")),
    # it leads to the brand
    (
        "Lena <lena@meadow-farm.com>",
        POSES[0][1],
        page("The Netflix Team", "© 2026 Netflix, Inc.", link='<a href="https://www.netflix.com/x">Go on</a>'),
    ),
    # a second domain that carries the name, proven
    ("Netflix <n@netflix-research.com>", POSES[0][1], page("The Netflix Team", "© 2026 Netflix, Inc.")),
]  # fmt: skip


@pytest.mark.parametrize(("sender", "subject", "html"), BENIGN)
def test_benign_twin(sender: str, subject: str, html: str) -> None:
    assert found(mail(sender, subject=subject, html=html, results=PROVEN), "impersonation") == set()


def test_a_mailbox_at_a_brands_service_is_not_the_brand() -> None:
    subject, html = "Your Google account", page("The Google Team", "© 2026 Google LLC")
    assert found(mail("Google <goog.team7@gmail.com>", subject=subject, html=html), "impersonation")
    assert not found(mail("Google <no-reply@accounts.google.com>", subject=subject, html=html), "impersonation")
    yahoo = ("Your Yahoo account", page("The Yahoo Team", "© 2026 Yahoo"))
    assert found(mail("Y <x9@yahoo.com>", subject=yahoo[0], html=yahoo[1]), "impersonation")
    assert not found(mail("Y <no-reply@yahoo.com>", subject=yahoo[0], html=yahoo[1]), "impersonation")


def test_a_file_or_a_telephone_is_an_act_too() -> None:
    text = "Dear Norton customer,\nyour Norton subscription was renewed.\n"
    assert not found(mail(STRANGER, text=text), "impersonation")
    assert found(mail(STRANGER, text=text + "Call +1 (808) 555-0199 to cancel."), "impersonation")
    assert found(mail(STRANGER, text=text, attachments=(("a.pdf", "application/pdf", b"%PDF-1.4"),)), "impersonation")


def test_a_list_passes_on_whatever_its_members_write() -> None:
    by_list = mail(
        POSES[0][0],
        subject=POSES[0][1],
        html=POSES[0][2],
        results="spf=pass smtp.mailfrom=lists.example.net; dkim=none; dmarc=none header.from={d}",
        headers=("List-Id: Tides <tides.lists.example.net>",),
    )
    assert not found(by_list, "impersonation")


@pytest.mark.parametrize("history", [SenderHistory(known=True, sent=1), SenderHistory(known=True, received=9)])
def test_who_is_known_and_proven_is_no_impostor(history: SenderHistory) -> None:
    for results, quiet in ((PROVEN, True), (NOTHING, False)):
        message = mail(POSES[0][0], subject=POSES[0][1], html=POSES[0][2], results=results)
        prepared = prepare(message, own_address=OWN, authserv_id=SERVER, history=history)
        assert (list(poses_as_brand(prepared)) == []) is quiet


def test_the_evidence_names_brand_signs_and_sender() -> None:
    (one,) = poses_as_brand(context(mail(POSES[0][0], subject=POSES[0][1], html=POSES[0][2])))
    assert "as netflix" in one.evidence
    assert "a signature" in one.evidence
    assert "tide-tables.net" in one.evidence


@pytest.mark.parametrize(
    ("line", "sign"),
    [
        ("Dear PayPal user", Sign.GREETING),
        ("Sehr geehrter PayPal-Kunde", Sign.GREETING),
        ("Sehr geehrter PayPal Kunde", Sign.GREETING),
        ("your PayPal account", Sign.ACCOUNT),
        ("votre compte PayPal", Sign.ACCOUNT),
        ("your friend at PayPal", None),
        ("(c) 2020 by PayPal", Sign.RIGHTS),
        ("© PayPalooza", None),
        ("© 2026 Tide Tables, a friend of PayPal", None),
        ("PayPal Customer Support", Sign.SIGNATURE),
        ("PayPal", None),
        ("our friends of the PayPal Support Team", None),
        ("pay the PayPal team at once or else we", None),
        ("> The PayPal Team", None),
    ],
)
def test_signs(line: str, sign: Sign | None) -> None:
    signs = {one for posing in posings("", "", line, ()) for one in posing.signs}
    assert signs == ({sign} if sign else set())


def test_text_is_read_at_both_ends_only() -> None:
    lines = ["a"] * MAX_FIRST_LINES + ["The PayPal Team"] + ["b"] * 5_000
    assert posings("", "", "\n".join(lines), ()) == []
    assert posings("", "", "\n".join([*lines, "The PayPal Team"]), ())


@given(st.text(max_size=300), st.text(max_size=300), st.text(max_size=2_000))
def test_any_text_can_be_read(name: str, subject: str, text: str) -> None:
    posings(name, subject, text, (name, subject))


@pytest.mark.parametrize(
    "trap",
    [
        "© " * 50_000,
        "your " * 20_000,
        "dear paypal " * 8_000,
        "(c)" * 33_000,
        "+1 (" * 25_000,
        "1 " * 50_000,
        "re: " * 25_000,
    ],
)
def test_traps(trap: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work is counted in words looked up, for every further step is paid by one."""
    asked = 0

    def counted(words: list[str], start: int) -> object:
        nonlocal asked
        asked += 1
        return brand_at(words, start)

    monkeypatch.setattr(posing_module, "brand_at", counted)
    found(mail(STRANGER, subject=trap, text=trap), "impersonation")
    found(mail(STRANGER, subject=trap[:900], text="\n".join([trap[:200]] * 400)), "impersonation")
    assert asked < 20_000
