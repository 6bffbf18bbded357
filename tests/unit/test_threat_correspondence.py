"""Family sender, by history: strangers, names of others, threads taken over, and the honest twins of each."""

from __future__ import annotations

import pytest
from threat_mail import NOTHING, OWN, PROVEN, SERVER, mail

from mailmill.model import Address, SenderHistory
from mailmill.processing.threat.context import ThreatContext, prepare
from mailmill.processing.threat.engine import DETECTORS
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


@pytest.mark.parametrize("sender", [LENA, "lena@gmail.com", "Shop <news@mail.meadow-farm.com>"])
def test_a_stranger(sender: str) -> None:
    assert told(sender, OLD) - {"unrelated_name"} == {"first_time"}


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
def test_no_stranger(known: SenderHistory) -> None:
    assert told(LENA, known) == set()


def test_nobody_of_the_own_house_is_a_stranger() -> None:
    assert told("Boss <boss@harbour.example.org>", OLD) == set()
    assert told(OWN, OLD) == set()


# -- names of others --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sender", "known", "finding_id"),
    [
        ("Max Hill <max.hill.office@gmail.com>", history(name_addresses=("max@hill.com",), name_sent=4), True),
        ("Max Hill <x1@tide-tables.net>", history(name_addresses=("max@hill.com",), name_sent=1), True),
        ("Max Hill <x1@tide-tables.net>", history(name_addresses=("max@harbour.example.org",)), True),
        ("Mаx Hill <x1@tide-tables.net>", history(name_addresses=("max@hill.com",), name_sent=1), True),  # Cyrillic а
        ("Max Hill <x1@tide-tables.net>", history(name_addresses=("max@hill.com", "max@gmail.com")), False),
        ("Max Hill <max.hill7@gmail.com>", history(name_addresses=("max@gmail.com",)), False),
        ('"HILL, Max" <x1@tide-tables.net>', history(name_addresses=("m@a.net",)), False),
    ],
)
def test_a_stranger_under_a_known_name(sender: str, known: SenderHistory, *, finding_id: bool) -> None:
    expected = "correspondents_name" if finding_id else "known_name"
    assert told(sender, known) - {"disguised_letters", "unrelated_name"} == {expected, "first_time"}


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
def test_a_known_name_benign_twin(sender: str, known: SenderHistory) -> None:
    assert not told(sender, known) & {"correspondents_name", "known_name"}


PEOPLE = (Address("Dr. Rosa Lind", "rosa@harbour.example.org"), Address("Rosa Lind", "rosa.lind@gmail.com"))


def own_people(sender: str, *, results: str = PROVEN) -> set[str]:
    message = mail(sender, results=results)
    return found(
        prepare(message, own_address=OWN, authserv_id=SERVER, people=PEOPLE, own_domains=("harbour-works.com",))
    )


@pytest.mark.parametrize(
    "sender",
    [
        "Rosa Lind <rosa.lind.ceo@gmail.com>",
        '"LIND, Rosa" <x1@tide-tables.net>',
        '"Rosa Lind CEO" <x1@outlook.com>',
        "Rоsa Lind <x1@outlook.com>",  # Cyrillic о
    ],
)
def test_one_of_the_own_people_from_elsewhere(sender: str) -> None:
    assert "own_person" in own_people(sender)


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
def test_one_of_the_own_people_benign_twin(sender: str) -> None:
    assert "own_person" not in own_people(sender)


@pytest.mark.parametrize(
    "sender", ["Boss <b@harbour-w0rks.com>", "Boss <b@harbourworks.com>", "Boss <b@harbour-works.co>"]
)
def test_a_domain_that_passes_for_the_own(sender: str) -> None:
    assert "own_domain_lookalike" in own_people(sender)


@pytest.mark.parametrize(
    "sender", ["Boss <b@harbour-works.com>", "Boss <b@mail.harbour-works.com>", "Boss <b@harbour-house.com>", LENA]
)
def test_a_domain_that_passes_for_the_own_benign_twin(sender: str) -> None:
    assert "own_domain_lookalike" not in own_people(sender, results=NOTHING)


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
    ("sender", "known", "headers"),
    [
        ("Max Hill <max@hill-works.com>", history(thread=THREAD), ()),
        ("Max Hill <max@mail.hill-works.com>", history(thread=THREAD), ()),
        ("Ida Hill <ida@hill-works.com>", history(thread=THREAD), ()),  # a colleague
        ("Pia <pia@gmail.com>", history(thread=THREAD), ()),
        ("Boss <boss@harbour.example.org>", history(thread=THREAD), ()),
        ("Max Hill <max@gmail.com>", history(thread=THREAD, received=2), ()),
        ("Desk <reply@desk-service.net>", history(thread=THREAD), ("Auto-Submitted: auto-replied",)),
        ("Desk <reply@desk-service.net>", history(thread=THREAD), ("List-Unsubscribe: <https://desk-service.net/u>",)),
        (LENA, history(), ()),
    ],
)
def test_a_thread_benign_twin(sender: str, known: SenderHistory, headers: tuple[str, ...]) -> None:
    assert {one for one in told(sender, known, *headers) if one.startswith("thread_")} == set()


@pytest.mark.parametrize(
    ("sender", "headers"),
    [
        ("Max <max@hi11-works.com>", ()),
        ("Max <max@hill-work.com>", ()),
        ("Max <max@hill-works.co>", ()),
        (LENA, ("Reply-To: max@hil1-works.com",)),
    ],
)
def test_a_domain_that_passes_for_a_correspondents(sender: str, headers: tuple[str, ...]) -> None:
    assert "correspondent_lookalike" in told(sender, history(correspondents=("mail.hill-works.com",)), *headers)


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
def test_a_domain_that_passes_for_a_correspondents_benign_twin(sender: str, known: SenderHistory) -> None:
    assert "correspondent_lookalike" not in told(sender, known)
