"""Honest mail as mailing services, states, lists and forwarders send it, each beside the fraud that it looks like."""

from __future__ import annotations

import pytest
from threat_mail import OWN, PROVEN, SERVER, context, found, mail, verdict

from mailmill.processing.threat.context import prepare
from mailmill.processing.threat.evidence.brand_index import belongs_to
from mailmill.processing.threat.evidence.hosts import parse_url, state_suffix
from mailmill.processing.threat.evidence.impersonation import brand_inside, brand_named
from mailmill.processing.threat.evidence.targets import redirect_target

TRACKED = '<a href="https://ctrk.tide-clicks.net/l/{}">open</a>'
NEWSLETTER = "".join(TRACKED.format(number) for number in range(4))
LEAVE = ("List-Unsubscribe: <https://tide-clicks.net/leave>",)
UNALIGNED = "spf=pass smtp.mailfrom=posts.example.net; dkim=none; dmarc=none header.from={d}"
FORWARDED = (
    "ARC-Seal: i=1; a=rsa-sha256; cv=none; d=google.com; s=x; b=x",
    "ARC-Authentication-Results: i=1; mx.google.com; dkim=pass header.i=@{d}; dmarc=pass header.from={d}",
)


# -- a name unlike the address, and links of a mailing service -----------------------------------------------------


@pytest.mark.parametrize("results", [PROVEN, UNALIGNED, None])
@pytest.mark.parametrize(
    ("body", "finding_id"),
    [
        ("", "sender.unrelated_to_all"),
        ("<p>Somebody's Rewards Ltd, 1 Quay Road</p>", "sender.unrelated_to_all"),
        ("<p>Meadow Farm Ltd, 1 Quay Road</p>", "sender.unrelated_name"),
        ("<p>You signed up at meadow-farm.com.</p>", "sender.unrelated_name"),
        ('<img src="https://pictures.meadow-farm.com/logo.png">', "sender.unrelated_name"),
    ],
)
def test_a_newsletter_bears_its_senders_name(body: str, finding_id: str, results: str | None) -> None:
    message = mail("Your Rewards <hello@meadow-farm.com>", html=NEWSLETTER + body, results=results)
    assert found(message, "sender") & {"sender.unrelated_to_all", "sender.unrelated_name"} == {finding_id}


@pytest.mark.parametrize("sender", ["Your Rewards <kolmar@gmail.com>", "Your Rewards <kolmar@harbour.example.org>"])
def test_the_name_of_a_free_service_or_of_the_own_house_says_nothing(sender: str) -> None:
    message = mail(sender, html=f"{NEWSLETTER}<p>Gmail, gmail.com, harbour.example.org, example.org</p>")
    assert "sender.unrelated_to_all" in found(message, "sender")


@pytest.mark.parametrize(("sender", "foreign"), [("inn@oldmill.com", False), ("inn@mill.com", True)])
def test_a_proven_sender_has_its_name_under_other_suffixes(sender: str, foreign: bool) -> None:
    other = sender.partition("@")[2].replace(".com", ".co.uk")
    assert context(mail(f"Inn <{sender}>")).is_foreign(other) is foreign
    assert context(mail(f"Inn <{sender}>", results=UNALIGNED)).is_foreign(other)


@pytest.mark.parametrize(("results", "tells"), [(PROVEN, False), (UNALIGNED, True)])
def test_a_proven_sender_may_show_its_own_domain_above_a_counted_link(results: str, tells: bool) -> None:
    html = '<a href="https://ctrk.example.com/l/1">www.meadow-farm.com</a>'
    assert ("links.text_differs_from_target" in found(mail(html=html, results=results), "links")) is tells


@pytest.mark.parametrize(
    ("raw", "host"),
    [
        (
            "https://a1.r.us-east-1.awstrack.me/L0/https:%2F%2Ftide.example.com%2Fx%3Fa=1/1/0100-0/x=300",
            "tide.example.com",
        ),
        ("https://click.pstmrk.it/3s/tide.example.com%2Fx/AbCd/EfGh/AQ/0/1/x", "tide.example.com"),
        ("https://x.mjt.lu/lnk/a/1/b/aHR0cHM6Ly90aWRlLmV4YW1wbGUuY29tL3g", "tide.example.com"),
        ("https://click.pstmrk.it/3s/", ""),
        ("https://x.mjt.lu/oo/nothing", ""),
    ],
)
def test_click_counters_that_tell_the_target(raw: str, host: str) -> None:
    url = parse_url(raw)
    assert url is not None
    target = redirect_target(url)
    assert (target.host if target else "") == host


def test_a_click_counter_is_no_open_redirect() -> None:
    html = '<a href="https://click.pstmrk.it/3s/tide.example.com%2Fx/AbCd/EfGh/AQ/0/1/x">open</a>'
    assert "links.open_redirect" not in found(mail(html=html), "links")
    bait = html.replace("tide.example.com", "paypa1.com")
    assert "domains.lookalike_link" in found(mail(html=bait), "domains")


# -- states, and companies in rented software -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "host", "own"),
    [
        ("Receita Federal", "servicos.gov.br", True),
        ("Receita Federal", "town.ba.gov.br", False),
        ("Receita Federal", "gov-br.com", False),
        ("Internal Revenue Service", "treasury.gov", True),
        ("Internal Revenue Service", "treasury.gov.example.com", False),
        ("PayPal", "treasury.gov", False),
    ],
)
def test_a_body_of_a_state_writes_from_the_states_domains(name: str, host: str, own: bool) -> None:
    claim = brand_named(name)
    assert claim is not None
    assert belongs_to(claim.brand, host) is own


@pytest.mark.parametrize(
    ("host", "suffix"), [("a.gouv.fr", "gouv.fr"), ("irs.gov", "gov"), ("a.go.jp", "go.jp"), ("gov.com", ""), ("", "")]
)
def test_what_a_state_keeps_for_itself(host: str, suffix: str) -> None:
    assert state_suffix(host) == suffix


@pytest.mark.parametrize(
    ("sender", "tells"),
    [
        ('"taxes.gouv.fr" <no-reply@finances.gouv.fr>', False),
        ('"taxes.gouv.fr" <no-reply@tide-tables.net>', True),
        ('"amazon.de" <no-reply@amazon.com>', False),
    ],
)
def test_a_domain_of_the_same_house_in_the_name(sender: str, tells: bool) -> None:
    assert ("sender.domain_in_name" in found(mail(sender), "sender")) is tells


@pytest.mark.parametrize(
    ("host", "told"),
    [("lufthansa.eu.qualtrics.com", False), ("lufthansa.okta.com", False), ("lufthansa.tide-tables.net", True)],
)
def test_a_companys_room_in_software_that_it_rents(host: str, told: bool) -> None:
    assert (brand_inside(host) is not None) is told


@pytest.mark.parametrize(
    ("address", "tells"),
    [("MicrosoftExchange329e71ec88ae4615bbc36ab6ce41109e@tide.example.com", False), ("outlook@tide.example.com", True)],
)
def test_reports_of_what_could_not_be_delivered(address: str, tells: bool) -> None:
    assert ("sender.brand_in_name" in found(mail(f"Microsoft Outlook <{address}>"), "sender")) is tells


# -- what is quoted, told and passed on -----------------------------------------------------------------------------

QUOTED = "> Your mailbox will be suspended within 24 hours.\n> Click here to verify your password.\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"On Monday, Bo wrote:\n{QUOTED}\nWe had this one too.", False),
        (f"Am Montag schrieb Bo:\n\n{QUOTED}\nDas hatten wir auch.", False),
        (QUOTED.replace("> ", ""), True),
        (f"On Monday, Bo wrote:\n{QUOTED}", False),
        (QUOTED, True),
    ],
)
def test_who_quotes_says_whom(text: str, told: bool) -> None:
    assert ("language.credential_urgency" in found(mail(text=text), "language")) is told


DIGEST = (
    "Anatomy of a letter: I recorded you with your webcam, pay 900 dollars in bitcoin or I send it to all contacts."
)


@pytest.mark.parametrize(
    ("headers", "results", "links", "told"),
    [
        (LEAVE, PROVEN, NEWSLETTER, False),
        (LEAVE, UNALIGNED, NEWSLETTER, True),
        (LEAVE, PROVEN, "", True),
        ((), PROVEN, NEWSLETTER, True),
    ],
)
def test_a_newsletter_tells_of_letters(headers: tuple[str, ...], results: str, links: str, told: bool) -> None:
    message = mail(html=f"<p>{DIGEST}</p>{links}", headers=headers, results=results)
    assert ("language.extortion" in found(message, "language")) is told


@pytest.mark.parametrize(
    ("head", "told"),
    [
        (f"Hello {OWN},", True),
        (f"{OWN}", True),
        (f"Please confirm that {OWN} is your address.", False),
        (f"A new sign-in to the account {OWN} from Oslo.", False),
    ],
)
def test_an_address_is_a_greeting_where_a_name_would_stand(head: str, told: bool) -> None:
    text = f"{head}\n\nYour account will be suspended within 24 hours. Click here to verify your identity."
    assert ("language.vague_greeting" in found(mail(text=text), "language")) is told


@pytest.mark.parametrize(
    ("sender", "text", "told"),
    [
        ("Lena Ott <lena@meadow-farm.com>", "Coinbase: your account is limited.", True),
        ("Lena Ott <lena@meadow-farm.com>", "Meadow Farm: your account is limited.", False),
        (
            "Meadow Farm <lena@meadow-farm.com>",
            "Your order is there." + " ." * 150 + " WhatsApp +44 20 7946 0958",
            False,
        ),
        ("Amazon <no-reply@amazon.com>", "A sign-in with Google Chrome: your account is limited.", False),
    ],
)
def test_who_is_spoken_for(sender: str, text: str, told: bool) -> None:
    message = mail(sender, text=f"{text} Please verify your information. {'' if told else text}")
    assert ("language.in_a_services_name" in found(message, "language")) is told


@pytest.mark.parametrize(
    "text",
    [
        "Le document est disponible dès maintenant.\nCe message est confidentiel.",
        "La factura está disponible en el área de clientes.\nEste mensaje es confidencial.",
        "Il documento è disponibile. Le informazioni contenute sono riservate.",
        "O recibo está disponível na área reservada.\nEsta mensagem é confidencial.",
        "I need your help with the slides, are you around at three?\n\nSent from my iPhone",
        "We can offer a business proposal for your web site.",
        "You changed the bank account for your direct deposit at Meadow Farm.",
    ],
)
def test_what_letters_say_every_day(text: str) -> None:
    lures = {"business_compromise", "boss_in_a_hurry", "stranger_deal", "payroll_change"}
    assert not found(mail(text=text), "language") & {f"language.{lure}" for lure in lures}


def test_one_phrase_is_no_two() -> None:
    assert "language.stranger_deal" in found(mail(text="A business proposal of mutual benefit to us both."), "language")
    assert "language.stranger_deal" not in found(mail(text="A business proposal."), "language")


def test_members_of_a_list_show_one_another_what_they_got() -> None:
    list_mail = "spf=pass smtp.mailfrom=lists.example.net; dkim=none; dmarc=none header.from={d}"
    headers = ("List-Id: <dev.lists.example.net>", "List-Post: <mailto:dev@lists.example.net>")
    text = "Is this one real? http://paypa1-secure.com/login"
    assert "domains.lookalike_link" not in found(mail(text=text, results=list_mail, headers=headers), "domains")
    assert "domains.lookalike_link" in found(mail(text=text), "domains")


@pytest.mark.parametrize("sealed", [True, False])
def test_a_forwarder_that_we_know_explains_what_it_broke(sealed: bool) -> None:
    arc = "pass" if sealed else "fail"
    results = (
        f"spf=fail smtp.mailfrom={{d}}; dkim=fail header.d={{d}}; arc={arc}; dmarc=fail (p=reject) header.from={{d}}"
    )
    headers = tuple(field.replace("{d}", "meadow-farm.com") for field in FORWARDED)
    html = f"<p>The plan for Monday, as we said.</p>{TRACKED.format(1)}"
    message = mail("Lena Ott <lena@meadow-farm.com>", html=html, results=results, headers=headers)
    prepared = prepare(message, own_address=OWN, authserv_id=SERVER)
    assert (prepared.unproven, prepared.authenticated) == (not sealed, False)
    assert verdict(message) == ("clean" if sealed else "suspicious")
