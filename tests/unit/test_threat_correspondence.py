"""Family sender, by history: strangers, names of others, threads taken over, and the honest twins of each."""

from __future__ import annotations

import pytest
from threat_mail import NOTHING, OWN, PROVEN, SERVER, mail

from mailmill.model import Address, SenderHistory
from mailmill.processing.threat.context import ThreatContext, prepare
from mailmill.processing.threat.engine import DETECTORS, scan
from mailmill.processing.threat.evidence.names import person_of

OLD = SenderHistory(known=True, account_messages=200)
LENA = "Lena Ott <lena@meadow-farm.com>"
THREAD = (Address("Max Hill", "max@hill-works.com"), Address("", OWN), Address("", "pia@gmail.com"))


def found(context: ThreatContext) -> set[str]:
    return {
        one.id.removeprefix("sender.")
        for detector in DETECTORS
        for one in detector(context)
        if one.id.startswith("sender.")
    }


def told(sender: str, history: SenderHistory, *headers: str, results: str = PROVEN) -> set[str]:
    message = mail(sender, results=results, headers=headers)
    return found(prepare(message, own_address=OWN, authserv_id=SERVER, history=history))


def history(**what: object) -> SenderHistory:
    return SenderHistory(**{"known": True, "account_messages": 200, "received": 0, **what})  # type: ignore[arg-type]


# -- strangers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("finding_id", ["first_time"])
@pytest.mark.parametrize("sender", [LENA, "lena@gmail.com", "Shop <news@mail.meadow-farm.com>"])
def test_a_stranger(finding_id: str, sender: str) -> None:
    assert told(sender, OLD) - {"unrelated_name"} == {finding_id}


@pytest.mark.parametrize("twin_of", ["first_time"])
@pytest.mark.parametrize(
    "known",
    [
        SenderHistory(),
        history(known=False),
        history(account_messages=10),
        history(received=1),
        history(sent=1),
        history(organisation_received=3),
        history(thread=(Address("Lena Ott", "lena@meadow-farm.com"),)),
        history(thread=(Address("", "desk@meadow-farm.com"),)),
    ],
)
def test_no_stranger(twin_of: str, known: SenderHistory) -> None:
    assert told(LENA, known) == set(), twin_of


def test_nobody_of_the_own_house_is_a_stranger() -> None:
    assert told("Boss <boss@harbour.example.org>", OLD) == set()
    assert told(OWN, OLD) == set()


# -- names of others --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sender", "known", "finding_id"),
    [
        (
            "Max Hill <max.hill.office@gmail.com>",
            history(name_addresses=("max@hill.com",), name_sent=4),
            "correspondents_name",
        ),
        (
            "Max Hill <x1@tide-tables.net>",
            history(name_addresses=("max@hill.com",), name_sent=1),
            "correspondents_name",
        ),
        ("Max Hill <x1@tide-tables.net>", history(name_addresses=("max@harbour.example.org",)), "correspondents_name"),
        (
            "Mаx Hill <x1@tide-tables.net>",
            history(name_addresses=("max@hill.com",), name_sent=1),
            "correspondents_name",
        ),  # Cyrillic а
        ("Max Hill <x1@tide-tables.net>", history(name_addresses=("max@hill.com", "max@gmail.com")), "known_name"),
        ("Max Hill <max.hill7@gmail.com>", history(name_addresses=("max@gmail.com",)), "known_name"),
        ('"HILL, Max" <x1@tide-tables.net>', history(name_addresses=("m@a.net",)), "known_name"),
    ],
)
def test_a_stranger_under_a_known_name(sender: str, known: SenderHistory, finding_id: str) -> None:
    assert told(sender, known) - {"disguised_letters", "unrelated_name"} == {finding_id, "first_time"}


@pytest.mark.parametrize("twin_of", ["correspondents_name known_name"])
@pytest.mark.parametrize(
    ("sender", "known"),
    [
        ("Max Hill <max@gmail.com>", history(name_addresses=("max@hill.com",), name_sent=4, received=1)),
        ("Max Hill <max@gmail.com>", history(name_addresses=("max@hill.com",), name_sent=4, sent=1)),
        ("Max Hill <max.hill@hill.com>", history(name_addresses=("max@hill.com",), organisation_received=2)),
        ("Max <max@gmail.com>", history(name_addresses=("max@hill.com",), organisation_received=1)),
        ("Support Team <x@meadow-farm.com>", history(name_addresses=("a@hill.com",), organisation_received=1)),
        (
            "Max Hill <max@gmail.com>",
            history(name_addresses=("a@a.com", "b@b.com", "c@c.com", "d@d.com"), organisation_received=1),
        ),
        ("Max Hill <max@harbour.example.org>", history(name_addresses=("max@hill.com",), name_sent=4)),
    ],
    ids=["wrote before", "written to", "his firm", "one word", "a role", "many mailboxes", "of the house"],
)
def test_a_known_name_benign_twin(twin_of: str, sender: str, known: SenderHistory) -> None:
    assert not told(sender, known) & set(twin_of.split())


PEOPLE = (Address("Dr. Rosa Lind", "rosa@harbour.example.org"), Address("Rosa Lind", "rosa.lind@gmail.com"))


def own_people(sender: str, *, results: str = PROVEN) -> set[str]:
    message = mail(sender, results=results)
    return found(
        prepare(message, own_address=OWN, authserv_id=SERVER, people=PEOPLE, own_domains=("harbour-works.com",))
    )


@pytest.mark.parametrize("finding_id", ["own_person"])
@pytest.mark.parametrize(
    "sender",
    [
        "Rosa Lind <rosa.lind.ceo@gmail.com>",
        '"LIND, Rosa" <x1@tide-tables.net>',
        '"Rosa Lind CEO" <x1@outlook.com>',
        "Rоsa Lind <x1@outlook.com>",  # Cyrillic о
    ],
)
def test_one_of_the_own_people_from_elsewhere(finding_id: str, sender: str) -> None:
    assert finding_id in own_people(sender)


@pytest.mark.parametrize("twin_of", ["own_person"])
@pytest.mark.parametrize(
    "sender",
    [
        "Rosa Lind <rosa@harbour.example.org>",
        "Rosa Lind <rosa.lind@gmail.com>",
        "Rosa Lind <desk@harbour-works.com>",
        "Rosa Lindt <rosa@tide-tables.net>",
        "Rosa <rosa@tide-tables.net>",
        "Rosa Lind Bakery <rosa@tide-tables.net>",
    ],
)
def test_one_of_the_own_people_benign_twin(twin_of: str, sender: str) -> None:
    assert twin_of not in own_people(sender)


@pytest.mark.parametrize("finding_id", ["own_domain_lookalike"])
@pytest.mark.parametrize(
    "sender", ["Boss <b@harbour-w0rks.com>", "Boss <b@harbourworks.com>", "Boss <b@harbour-works.co>"]
)
def test_a_domain_that_passes_for_the_own(finding_id: str, sender: str) -> None:
    assert finding_id in own_people(sender)


@pytest.mark.parametrize("twin_of", ["own_domain_lookalike"])
@pytest.mark.parametrize(
    "sender", ["Boss <b@harbour-works.com>", "Boss <b@mail.harbour-works.com>", "Boss <b@harbour-house.com>", LENA]
)
def test_a_domain_that_passes_for_the_own_benign_twin(twin_of: str, sender: str) -> None:
    assert twin_of not in own_people(sender, results=NOTHING)


def test_persons() -> None:
    same = {person_of(name) for name in ("Anna Ott", "OTT, Anna", "Dr. Anna Ott", "Anna Ott (anna@farm.example)")}
    assert same == {frozenset({"anna", "ott"})}
    for name in ("Anna", "", "Support Team", "a b", "The Very Long Name Of Some Kind Of Club"):
        assert person_of(name) == frozenset(), name


# -- threads ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sender", "finding_id"),
    [
        ("Max Hill <max@hill-vvorks.com>", "thread_taken_over"),
        ("Max Hill <max@hi11-works.com>", "thread_taken_over"),
        ("Accounts <pay@hillworks.com>", "thread_taken_over"),
        ("Max Hill <max.hill7@gmail.com>", "thread_other_address"),
        ('"HILL, Max" <x1@tide-tables.net>', "thread_other_address"),
        ("Mах Hill <x1@tide-tables.net>", "thread_other_address"),  # Cyrillic ах
        ("Eve Stone <eve@tide-tables.net>", "thread_joined"),
        ("Eve Stone <eve@gmail.com>", "thread_joined"),
        ("pia2@gmail.com", "thread_joined"),
    ],
)
def test_a_thread_is_answered_from_outside(sender: str, finding_id: str) -> None:
    assert finding_id in told(sender, history(thread=THREAD))


@pytest.mark.parametrize(
    ("twin_of", "sender", "known", "headers"),
    [
        ("thread_taken_over thread_other_address", "Max Hill <max@hill-works.com>", history(thread=THREAD), ()),
        ("thread_taken_over thread_other_address", "Max Hill <max@mail.hill-works.com>", history(thread=THREAD), ()),
        (
            "thread_taken_over thread_other_address",
            "Ida Hill <ida@hill-works.com>",
            history(thread=THREAD),
            (),
        ),  # a colleague
        ("thread_joined", "Pia <pia@gmail.com>", history(thread=THREAD), ()),
        ("thread_joined", "Boss <boss@harbour.example.org>", history(thread=THREAD), ()),
        ("thread_other_address", "Max Hill <max@gmail.com>", history(thread=THREAD, received=2), ()),
        ("thread_joined", "Desk <reply@desk-service.net>", history(thread=THREAD), ("Auto-Submitted: auto-replied",)),
        (
            "thread_joined",
            "Desk <reply@desk-service.net>",
            history(thread=THREAD),
            ("List-Unsubscribe: <https://desk-service.net/u>",),
        ),
        ("thread_taken_over thread_joined", LENA, history(), ()),
    ],
)
def test_a_thread_benign_twin(twin_of: str, sender: str, known: SenderHistory, headers: tuple[str, ...]) -> None:
    assert {one for one in told(sender, known, *headers) if one.startswith("thread_")} == set(), twin_of


@pytest.mark.parametrize("finding_id", ["correspondent_lookalike"])
@pytest.mark.parametrize(
    ("sender", "headers"),
    [
        ("Max <max@hi11-works.com>", ()),
        ("Max <max@hill-work.com>", ()),
        ("Max <max@hill-works.co>", ()),
        (LENA, ("Reply-To: max@hil1-works.com",)),
    ],
)
def test_a_domain_that_passes_for_a_correspondents(finding_id: str, sender: str, headers: tuple[str, ...]) -> None:
    assert finding_id in told(sender, history(correspondents=("mail.hill-works.com",)), *headers)


@pytest.mark.parametrize("twin_of", ["correspondent_lookalike"])
@pytest.mark.parametrize(
    ("sender", "known"),
    [
        ("Max <max@hill-works.com>", history(correspondents=("hill-works.com",))),
        ("Max <max@hill-works.de>", history(correspondents=("hill-works.com",))),
        ("Max <max@hill-work.com>", history(correspondents=("hill-works.com",), received=1)),
        ("Max <max@hill-work.com>", history(correspondents=("hill-works.com",), organisation_received=1)),
        ("Max <max@hill-work.com>", history(correspondents=("hill-works.com", "hill-work.com"))),
        ("Max <max@hotmail.com>", history(correspondents=("gmail.com", "hotmai.com"))),
        ("Max <max@works-hill.com>", history(correspondents=("hill-works.com",))),
    ],
)
def test_a_domain_that_passes_for_a_correspondents_benign_twin(twin_of: str, sender: str, known: SenderHistory) -> None:
    assert twin_of not in told(sender, known)


WRITTEN_TO = SenderHistory(
    known=True,
    account_messages=90,
    correspondents=("meadow-farm.com", "bluewater-shipping.co.uk", "ott.de", "gmail.com"),
    thread=(Address("Ines", "ines@northern-timber.com"),),
)


def by_history(sender: str) -> set[str]:
    return told(sender, WRITTEN_TO) - {"first_time", "thread_joined"}


@pytest.mark.parametrize("finding_id", ["correspondent_lookalike"])
@pytest.mark.parametrize(
    "domain",
    [
        "meadow-farrn.com",
        "meadowfarm.com",
        "meadow-farms.com",
        "mail.bluewatershipping.com",
        "bluewater-shiping.co.uk",
    ],
)
def test_a_sender_who_imitates_a_correspondent(finding_id: str, domain: str) -> None:
    assert by_history(f"Ines <ines@{domain}>") == {finding_id}


@pytest.mark.parametrize("twin_of", ["correspondent_lookalike"])
@pytest.mark.parametrize(
    "domain",
    [
        "meadow-farm.com",
        "news.meadow-farm.com",
        "meadow-farm.de",
        "meadow-park.com",
        "southern-timber.com",
        "northern-lights.com",
        "otto.de",  # too short a name to tell
        "gmial.com",
        "hotmail.com",
    ],
)
def test_a_sender_beside_the_correspondents(twin_of: str, domain: str) -> None:
    assert by_history(f"Ines <ines@{domain}>") == set(), twin_of


@pytest.mark.parametrize("domain", ["northern-tirnber.com", "north3rn-timber.com", "northern-timber-invoices.com"])
def test_who_imitates_one_of_the_thread_is_told_once(domain: str) -> None:
    assert by_history(f"Ines <ines@{domain}>") == {"thread_taken_over"}


def test_one_fact_makes_no_second_family() -> None:
    message = mail("Ines <ines@northern-timber-invoices.com>")
    findings = scan(message, own_address=OWN, authserv_id=SERVER, history=WRITTEN_TO).findings
    assert {one.family for one in findings if one.score >= 10} == {"sender"}


BY_LIST = "spf=pass smtp.mailfrom=lists.example.net; dkim=none; dmarc=none header.from={d}"
LIST = "List-Id: Tides <tides.lists.example.net>"


@pytest.mark.parametrize(
    ("twin_of", "sender", "known"),
    [
        ("thread_other_address", "Max Hill <x1@tide-tables.net>", history(thread=THREAD)),
        ("thread_taken_over", "Max Hill <max@hi11-works.com>", history(thread=THREAD)),
        ("known_name", "Max Hill <x1@tide-tables.net>", history(name_addresses=("max@hill.com",))),
        (
            "correspondents_name",
            "Max Hill <x1@tide-tables.net>",
            history(name_addresses=("max@hill.com",), name_sent=4),
        ),
    ],
)
def test_a_list_sends_on_what_its_members_write(twin_of: str, sender: str, known: SenderHistory) -> None:
    assert twin_of in told(sender, known)
    assert twin_of not in told(sender, known, LIST, results=BY_LIST)


def test_own_people_write_on_lists_too() -> None:
    message = mail("Rosa Lind <rosa.lind.ceo@gmail.com>", results=BY_LIST, headers=(LIST,))
    assert "own_person" not in found(prepare(message, own_address=OWN, authserv_id=SERVER, people=PEOPLE))
