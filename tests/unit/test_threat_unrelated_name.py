"""Strangers whose name has nothing to do with their address."""

from __future__ import annotations

import pytest
from threat_mail import OWN, SERVER, found, mail, verdict

from mailmill.model import SenderHistory
from mailmill.processing.threat.context import prepare
from mailmill.processing.threat.evidence.name_in_address import in_common
from mailmill.processing.threat.families.unrelated_name import unrelated_name

ELSEWHERE = '<p>Please look at it today.</p><a href="https://tide-tables.net/x">open</a>'


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("Anna Ott", "anna@meadow-farm.com"),
        ("Anna Ott", "a.ott@meadow-farm.com"),
        ("Robert Hill", "rob.h@meadow-farm.com"),
        ("Ångström Øberg", "angstrom@meadow-farm.com"),
        ("Meadow Farm", "no-reply@meadow-farm.com"),
        ("MeadowFarm News", "hello@mail.meadow-farm.com"),
        ("The Meadow", "news@meadow.farm"),
        ("World Tide Office", "news@wto.example"),
        ("Lena from Tidetables", "hi@tidetables.example"),
        ("J. Smith", "jsmith@meadow-farm.com"),
        ("John Smith", "js@meadow-farm.com"),
        ("John Smith", "j@meadow-farm.com"),
    ],
)
def test_names_and_addresses_of_honest_people(name: str, address: str) -> None:
    assert in_common(name, address) is True


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("Parcel Desk", "kolmar@ibex-tools.com"),
        ("Energy Savings Club", "dreier.loma@zeltis.example"),
        ("Canvas Prints", "webb_susana_70683@mnx1.shop"),
    ],
)
def test_names_from_nowhere(name: str, address: str) -> None:
    assert in_common(name, address) is False


@pytest.mark.parametrize(("name", "address"), [("", "a@b.example"), ("田中", "t@b.example"), ("2024", "a@b.example")])
def test_what_cannot_be_compared(name: str, address: str) -> None:
    assert in_common(name, address) is None


@pytest.mark.parametrize(
    ("finding_id", "sender", "html"),
    [
        ("sender.unrelated_to_all", "Parcel Desk <kolmar@ibex-tools.com>", ELSEWHERE),
        ("sender.unrelated_to_all", "Energy Savings Club <dreier@zeltis.com>", ELSEWHERE),
        ("sender.unrelated_to_all", "Canvas Prints <webb_susana_70683@mnx1.shop>", ELSEWHERE),
        ("sender.unrelated_name", "Parcel Desk <kolmar@ibex-tools.com>", ""),
        ("sender.unrelated_name", "Parcel Desk <kolmar@gmail.com>", ""),
        ("sender.unrelated_name", "Parcel Desk <kolmar@ibex-tools.com>", '<a href="https://ibex-tools.com/x">open</a>'),
    ],
)
def test_found(finding_id: str, sender: str, html: str) -> None:
    unrelated = {"sender.unrelated_to_all", "sender.unrelated_name"}
    assert found(mail(sender, html=html), "sender") & unrelated == {finding_id}


@pytest.mark.parametrize("twin_of", ["unrelated_to_all unrelated_name"])
@pytest.mark.parametrize(
    ("sender", "headers"),
    [
        ("Anna Ott <anna@meadow-farm.com>", ()),
        ("Meadow Farm <bounce-7@mail.meadow-farm.com>", ()),
        ("anna@meadow-farm.com", ()),
        # what is said of it is worse, and said by others
        ("bigbank.com <kolmar@ibex-tools.com>", ()),
        # a member of a mailing list, whose list nobody authenticated
        ("Kilroy <tom@ibex-tools.com>", ("List-Post: <mailto:dev@lists.meadow-farm.com>",)),
    ],
)
def test_benign(twin_of: str, sender: str, headers: tuple[str, ...]) -> None:
    ids = found(mail(sender, html=ELSEWHERE, headers=headers), "sender")
    assert not ids & {f"sender.{one}" for one in twin_of.split()}


def test_an_answer_with_a_signature_full_of_links_is_less() -> None:
    message = mail("Kilroy <tom@ibex-tools.com>", html=ELSEWHERE, headers=("In-Reply-To: <1@meadow-farm.com>",))
    assert "sender.unrelated_to_all" not in found(message, "sender")


@pytest.mark.parametrize("history", [SenderHistory(known=True, received=1), SenderHistory(known=True, sent=1)])
def test_who_is_known_may_be_called_what_he_likes(history: SenderHistory) -> None:
    message = mail("Kilroy <tom@ibex-tools.com>", html=ELSEWHERE)
    assert list(unrelated_name(prepare(message, own_address=OWN, authserv_id=SERVER, history=history))) == []


def test_it_is_not_enough_by_itself() -> None:
    assert verdict(mail("Kilroy <tom@ibex-tools.com>", html=ELSEWHERE)) == "clean"


# -- who is vouched for -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sender", "history", "vouched"),
    [
        ("Anna <anna@meadow-farm.com>", SenderHistory(), True),
        ("Anna <anna@gmail.com>", SenderHistory(), False),
        ("Anna <anna@gmail.com>", SenderHistory(known=True, sent=1), True),
    ],
)
def test_a_proof_by_free_mail_proves_nobody(sender: str, history: SenderHistory, vouched: bool) -> None:
    message = mail(sender)
    prepared = prepare(message, own_address=OWN, authserv_id=SERVER, history=history)
    assert (prepared.authenticated, prepared.vouched) == (True, vouched)


@pytest.mark.parametrize(
    ("list_post", "by_list"),
    [
        ("", False),
        ("List-Post: <https://meadow-farm.com/p>", False),
        ("List-Post: <mailto:dev@meadow-farm.com>", True),
    ],
)
def test_a_newsletter_is_no_mailing_list(list_post: str, by_list: bool) -> None:
    """From is aligned itself: its List-Id explains nothing, unless members write there."""
    headers = ("List-Id: <news.meadow-farm.com>", *([list_post] if list_post else []))
    prepared = prepare(mail("Dev <dev@meadow-farm.com>", headers=headers), own_address=OWN, authserv_id=SERVER)
    assert prepared.by_list is by_list


FORGE = ("List-Id: lake/boats <boats.lake.tide-forge.com>", "List-Post: <https://tide-forge.com/lake/boats>")


@pytest.mark.parametrize(
    ("sender", "headers"),
    [
        ("Jonas Weber <noreply@tide-forge.com>", (*FORGE, "In-Reply-To: <lake/boats/7@tide-forge.com>")),
        ("Jonas Weber <noreply@tide-forge.com>", (*FORGE, "List-Archive: <https://tide-forge.com/lake/boats>")),
        ("Mum <carol.ott@gmail.com>", ()),
        ("Oma und Opa <hill77@gmail.com>", ()),
    ],
)
def test_names_that_no_address_needs_to_carry(sender: str, headers: tuple[str, ...]) -> None:
    assert not found(mail(sender, html=ELSEWHERE, headers=headers)) & {
        "sender.unrelated_to_all",
        "sender.unrelated_name",
    }


@pytest.mark.parametrize(
    ("sender", "headers"),
    [
        ("Jonas Weber <noreply@tide-forge.com>", ()),
        ("Jonas Weber <noreply@ibex-tools.com>", (*FORGE, "In-Reply-To: <lake/boats/7@tide-forge.com>")),
        ("Mum Bank <kolmar@ibex-tools.com>", ()),
    ],
)
def test_a_list_of_others_explains_no_name(sender: str, headers: tuple[str, ...]) -> None:
    assert found(mail(sender, html=ELSEWHERE, headers=headers)) & {"sender.unrelated_to_all", "sender.unrelated_name"}
