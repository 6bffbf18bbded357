"""Display names as readers take them: who is a person, and which two names are the same one. Pure."""

from __future__ import annotations

import re
from functools import lru_cache

from mailmill.processing.threat.evidence.lookalike import skeleton

_WORD = re.compile(r"[^\W\d_]{2,40}")
_ADDRESS = re.compile(r"<?\S{1,64}@\S{1,255}")
_TITLE_WORDS = """
    dr prof mr mrs ms herr frau mme phd mba ceo cfo cto coo gmbh ltd inc llc
    """
_TITLES = frozenset(_TITLE_WORDS.split())
_ROLE_WORDS = """
    accounting administrator admin billing bank customer delivery department desk finance helpdesk human invoice
    invoices kundenservice kundendienst lottery manager notification notifications office payroll postmaster promo
    refund resources security service services support team treasury verification webmail winner order orders
    confirmation subscription fatura rechnung factura facture pedido shipping parcel
    """
ROLES = frozenset(_ROLE_WORDS.split())
_KIN_WORDS = """
    mum mom mummy mommy mother dad daddy father grandma granny nana grandpa grandad auntie uncle mama mutti papa vati
    oma opa tante onkel maman mamie papi papy abuela abuelo mamma nonna nonno mae pai avo mam pap mamo tato and und et
    """
_KIN = frozenset(_KIN_WORDS.split())


@lru_cache(maxsize=4_096)
def person_of(name: str) -> frozenset[str]:
    """The words of a person's name, order, titles and disguises aside; empty where it names no person.

    ``"Ott, Dr. Anna"`` and ``"ANNA OTT"`` are the same. One word is no name: many people share it.
    """
    words = _WORD.findall(skeleton(_ADDRESS.sub(" ", name[:200])))
    kept = frozenset(word for word in words if word not in _TITLES)
    return kept if 2 <= len(kept) <= 5 and not kept & ROLES else frozenset()


def is_kin(name: str) -> bool:
    """Whether a name says only what its bearer is to the reader ("Mum", "Oma und Opa"): no address need carry that."""
    words = _WORD.findall(skeleton(name[:200]))
    return bool(words) and all(word in _KIN for word in words)


def role_in(name: str) -> str:
    """The word by which a name is that of a department or service; ""."""
    words = re.split(r"[\W_]+", skeleton(name[:200]))
    return next((word for word in words if word in ROLES), "")
