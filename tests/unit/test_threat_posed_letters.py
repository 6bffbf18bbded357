"""Letters about money, papers and silence: who writes decides, not the words."""

from __future__ import annotations

import pytest
from threat_mail import NOTHING, OWN, SERVER, found, mail

from mailmill.model import NO_HISTORY, SenderHistory
from mailmill.processing.threat.context import prepare
from mailmill.processing.threat.engine import assess, scan
from mailmill.processing.threat.evidence.lures import read_lure_text

LANDLORD = "Meadow Farm Lettings <lena@meadow-farm.com>"
ACCOUNT = (
    "We have changed our bank. Please send all payments to the new account from now on: DE02 1203 0000 0000 2020 51"
)
BOSS = "Are you at your desk? I need an urgent favor, I am in a meeting, no calls please."
WIRE = "Please send a wire transfer of $48,000 today. It is strictly confidential until Friday."
RECORDS = "Please send me the current aging report with the customers' e-mails."
PAYROLL = "I have a new bank account. Please change my direct deposit before the next payroll."
CARDS = "Please buy ten Steam gift cards for the staff. Scratch the back and send me the codes."
COURT = "You visited sites with minors. Send your justification or an arrest warrant follows."

KNOWN = SenderHistory(known=True, account_messages=200, received=9, sent=3, organisation_received=12)
UNHEARD_OF = SenderHistory(known=True, account_messages=200)


def judged(sender: str, text: str, *headers: str, history: SenderHistory = NO_HISTORY, subject: str = "Hello") -> str:
    message = mail(sender, subject=subject, text=text, headers=headers)
    return scan(message, own_address=OWN, authserv_id=SERVER, history=history).verdict.value


@pytest.mark.parametrize("finding_id", ["posed_letter"])
@pytest.mark.parametrize(
    ("sender", "text", "subject", "headers"),
    [
        ("Robert Klein <kolmar@ibex-tools.com>", WIRE, "Today", ()),
        ("Robert Klein <kolmar@ibex-tools.com>", RECORDS, "Aging", ()),
        ("Detective Bureau <kolmar@ibex-tools.com>", COURT, "Summons", ()),
        (LANDLORD, ACCOUNT, "The rent", ("Reply-To: lettings.meadow@gmail.com",)),
        (LANDLORD, ACCOUNT, "Re: The rent", ()),
        (LANDLORD, PAYROLL, "Re: My pay", ()),
    ],
)
def test_somebody_poses(finding_id: str, sender: str, text: str, subject: str, headers: tuple[str, ...]) -> None:
    assert f"language.{finding_id}" in found(mail(sender, subject=subject, text=text, headers=headers))
    assert judged(sender, text, *headers, subject=subject) == "suspicious"


@pytest.mark.parametrize("twin_of", ["posed_letter"])
@pytest.mark.parametrize("text", [ACCOUNT, WIRE, RECORDS, COURT])
def test_an_authenticated_house_that_writes_under_its_own_name(twin_of: str, text: str) -> None:
    findings = found(mail(LANDLORD, text=text), "language")
    assert findings and f"language.{twin_of}" not in findings
    assert judged(LANDLORD, text) == "clean"


@pytest.mark.parametrize("twin_of", ["posed_letter"])
@pytest.mark.parametrize(
    ("sender", "text", "results"),
    [
        ("Robert Klein <kolmar@ibex-tools.com>", "The plan for Monday is on the wall.", NOTHING),
        ("Robert Klein <kolmar@ibex-tools.com>", WIRE, NOTHING),  # nothing was softened that is to be regained
    ],
)
def test_no_posed_letter(twin_of: str, sender: str, text: str, results: str) -> None:
    assert f"language.{twin_of}" not in found(mail(sender, text=text, results=results))


@pytest.mark.parametrize("text", [ACCOUNT, BOSS, WIRE, RECORDS, PAYROLL, CARDS])
@pytest.mark.parametrize("sender", [LANDLORD, "Lena Ott <lena.ott@gmail.com>", "Boss <kolmar@meadow-farm.com>"])
def test_who_is_known_is_not_suspected_for_one_letter(sender: str, text: str) -> None:
    assert judged(sender, text, history=KNOWN) == "clean"


@pytest.mark.parametrize("text", [ACCOUNT, BOSS, WIRE, PAYROLL, CARDS])
def test_a_known_house_whose_answers_go_to_a_free_mailbox(text: str) -> None:
    assert judged(LANDLORD, text, "Reply-To: kolmar77@gmail.com", history=KNOWN) == "suspicious"


@pytest.mark.parametrize("text", [ACCOUNT, BOSS, WIRE, PAYROLL, CARDS])
def test_who_was_never_heard_of(text: str) -> None:
    assert judged(LANDLORD, text, history=UNHEARD_OF) == "suspicious"


def test_the_house_has_several_domains() -> None:
    message = mail("Boss <boss@harbour-group.com>", text=BOSS)
    verdicts = [
        assess(prepare(message, own_address=OWN, authserv_id=SERVER, own_domains=domains)).verdict.value
        for domains in ((), ("harbour-group.com",))
    ]
    assert verdicts == ["suspicious", "clean"]


@pytest.mark.parametrize(
    ("text", "group"),
    [
        ("Beware of fraudsters.", "about_fraud"),
        ("This is a scam.", "about_fraud"),
        ("Cybercriminals are at work.", "about_fraud"),
        ("He was a con artist.", "about_fraud"),
        ("Your session expired, please log in.", "account_danger"),
        ("If you ignore this message,", "pressure"),
        ("O acesso termina em até 24 horas.", "pressure"),
        ("Os pedidos em menos de 3 horas.", "pressure"),
        ("Estou em reunião.", "quiet"),
        ("I have infected all of your devices.", "hacked_you"),
        ("I got full access to your account.", "hacked_you"),
        ("The Powerball foundation", "fund_story"),
        ("The IMF released the fund.", "fund_story"),
    ],
)
def test_an_option_of_several_words_does_not_bind_the_others(text: str, group: str) -> None:
    assert read_lure_text("language", "", text).counts.get(group)


def test_a_phrase_of_two_groups_stands_for_the_one_that_is_missing() -> None:
    told = read_lure_text(
        "language",
        "",
        "I am a soldier on a peace mission in Syria. We found two boxes of cash and I need an honest person. Write me.",
    ).told
    assert "advance_fee" in told
