"""Family impersonation: the message speaks as a brand that it does not come from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from threat_mail import NOTHING, OWN, PROVEN, SERVER, context, found, mail

from mailmill.model import SenderHistory
from mailmill.processing.threat.context import prepare
from mailmill.processing.threat.engine import scan
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


@pytest.mark.parametrize("finding_id", ["poses_as_brand"])
@pytest.mark.parametrize(("sender", "subject", "html"), POSES)
@pytest.mark.parametrize("results", [NOTHING, PROVEN])
def test_poses(finding_id: str, sender: str, subject: str, html: str, results: str) -> None:
    assert f"impersonation.{finding_id}" in found(mail(sender, subject=subject, html=html, results=results))


@pytest.mark.parametrize("finding_id", ["speaks_as_brand"])
@pytest.mark.parametrize(
    ("sender", "subject", "html"),
    [
        (STRANGER, "Notice", page("Please confirm.", "The PayPal Team")),
        (STRANGER, "Notice", page("Please confirm.", "© 2026 Chase")),
        (STRANGER, "Netflix: payment declined", page("Update your Netflix account")),
        ("Trust Wallet <n@tide-tables.net>", "Verify your Trust Wallet", page("Please confirm.")),
    ],
)
def test_speaks(finding_id: str, sender: str, subject: str, html: str) -> None:
    ids = found(mail(sender, subject=subject, html=html, results=NOTHING), "impersonation")
    assert ids == {f"impersonation.{finding_id}"}


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
    # most of its links lead to the brand, and it is proven
    (
        "Lena <lena@meadow-farm.com>",
        POSES[0][1],
        page(
            '<a href="https://www.netflix.com/a">1</a> <a href="https://www.netflix.com/b">2</a>',
            "The Netflix Team",
            "© 2026 Netflix, Inc.",
        ),
    ),
    # a second domain that carries the name, proven
    ("Netflix <n@netflix-research.com>", POSES[0][1], page("The Netflix Team", "© 2026 Netflix, Inc.")),
]  # fmt: skip


@pytest.mark.parametrize("twin_of", ["poses_as_brand speaks_as_brand"])
@pytest.mark.parametrize(("sender", "subject", "html"), BENIGN)
def test_benign_twin(twin_of: str, sender: str, subject: str, html: str) -> None:
    assert found(mail(sender, subject=subject, html=html, results=PROVEN), "impersonation") == set(), twin_of


NOTICE = "<p>Your account is suspended. Verify your identity within 24 hours.</p>"


@pytest.mark.parametrize("finding_id", ["service_on_free_page"])
@pytest.mark.parametrize(
    "target",
    ["https://account-desk.web.app/x", "https://bit.ly/3abc", "https://forms.gle/abc123", "http://x.ddns.net/a"],
)
def test_a_service_on_a_page_that_nobody_stands_behind(finding_id: str, target: str) -> None:
    message = mail(STRANGER, html=f'{NOTICE}<a href="{target}">Go on</a>', results=PROVEN)
    assert f"impersonation.{finding_id}" in found(message)


@pytest.mark.parametrize("twin_of", ["service_on_free_page"])
@pytest.mark.parametrize(
    ("sender", "html"),
    [
        (STRANGER, f'{NOTICE}<a href="https://tide-tables.net/account">Go on</a>'),  # its own site
        (
            STRANGER,
            f'{NOTICE}<a href="https://forms.gle/abc123">Survey</a> <a href="https://tide-tables.net/">Tide tables</a>',
        ),
        (STRANGER, '<p>The photos of Monday are here.</p><a href="https://photo-club.web.app/x">Look</a>'),
        ("Desk <n@account-desk.web.app>", f'{NOTICE}<a href="https://account-desk.web.app/x">Go on</a>'),
    ],
)
def test_a_service_on_its_own_page(twin_of: str, sender: str, html: str) -> None:
    assert f"impersonation.{twin_of}" not in found(mail(sender, html=html, results=PROVEN))


def test_a_second_domain_that_carries_the_name_wants_proof() -> None:
    html = page("The Netflix Team", "© 2026 Netflix, Inc.")
    message = mail("Netflix <n@netflix-research.com>", subject=POSES[0][1], html=html, results=NOTHING)
    assert found(message, "impersonation") == {"impersonation.poses_as_brand"}


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


NOTE = (
    'Note from Max Hill: "If you did not make this transaction, please call us at +1 (803) 555-0121 to cancel. '
    '$629.99 will be deducted today."'
)
FOOT = "We never ask for your password. Learn about phishing and scams in our help pages."


@pytest.mark.parametrize("finding_id", ["strangers_note"])
@pytest.mark.parametrize(
    ("subject", "text"),
    [
        ("Money request", f"Max Hill requested $629.99.\n{NOTE}"),
        ("Invoice 7", f"Payment request\n{NOTE}\n{FOOT}"),
        ("Max Hill sent you a request", f"Seller note to customer\n{NOTE}"),
    ],
)
def test_a_service_passes_on_a_strangers_note(finding_id: str, subject: str, text: str) -> None:
    message = mail("PayPal <service@paypal.com>", subject=subject, text=text)
    assert f"impersonation.{finding_id}" in found(message)
    # That the service is known and often heard of says nothing for its user.
    history = SenderHistory(known=True, account_messages=200, received=40, sent=1)
    for known in (SenderHistory(), history):
        assert scan(message, own_address=OWN, authserv_id=SERVER, history=known).verdict.value == "suspicious"


@pytest.mark.parametrize("twin_of", ["strangers_note"])
@pytest.mark.parametrize(
    ("sender", "text"),
    [
        ("PayPal <service@paypal.com>", 'Max Hill requested $20. Note from Max Hill: "For the boat, thank you."'),
        ("PayPal <service@paypal.com>", "Max Hill requested $20. Questions? Call Max at +1 (803) 555-0121."),
        (
            "Meadow Farm <shop@meadow-farm.com>",
            f"Thank you for your order.\n{NOTE}",
        ),  # its own words, and its own number
    ],
)
def test_an_honest_note(twin_of: str, sender: str, text: str) -> None:
    assert f"impersonation.{twin_of}" not in found(mail(sender, text=text))
