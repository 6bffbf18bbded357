"""Family ``pictures``: what pictures and PDFs lead to and do: QR codes, links, actions.

What is in them was read by a child process (:mod:`..evidence.inside`). Their targets are links of the context too
(``element`` ``qr`` and ``pdf``), so the families ``links`` and ``domains`` judge hosts and addresses; here it is judged
that they come as a picture at all.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote

from mailmill.model import Finding
from mailmill.processing.threat.context import Link, ThreatContext
from mailmill.processing.threat.evidence.attached_files import AttachedFile
from mailmill.processing.threat.evidence.hosts import ends_in, ip_of
from mailmill.processing.threat.evidence.impersonation import is_brands_own
from mailmill.processing.threat.evidence.painted_codes import is_painted_in, painted_in_text
from mailmill.processing.threat.evidence.stated_password import stated_password
from mailmill.processing.threat.knowledge.pictures import CODE_HOSTS, SCAN_WORDS, SIGN_IN_WORDS
from mailmill.processing.threat.knowledge.reference import (
    EXECUTABLE_EXTENSIONS,
    FREE_MAIL,
    MACRO_EXTENSIONS,
    SCRIPT_EXTENSIONS,
    SHORTCUT_EXTENSIONS,
)
from mailmill.processing.threat.knowledge.web_services import FREE_HOSTING, SHORTENERS
from mailmill.processing.threat.scoring import finding

MAX_READ_CHARS: Final = 20_000

_FEW_LETTERS: Final = 200  # a sentence or two beside a code
_FEW_PDF_LETTERS: Final = 350  # a cover with a button; an invoice of one page has more
_MANY_LINKED: Final = 3

_PROGRAMS: Final = EXECUTABLE_EXTENSIONS | SCRIPT_EXTENSIONS | SHORTCUT_EXTENSIONS | MACRO_EXTENSIONS | {"html", "htm"}


def code_elsewhere(context: ThreatContext) -> Iterator[Finding]:
    """A QR code that leads to a domain which is not the sender's: where nobody proved who wrote, or where the message
    asks to sign in. A phone opens it outside of everything that guards the mailbox."""
    codes = [link for link in context.links if link.element == "qr" and context.is_foreign(link.organisation)]
    codes = [link for link in codes if link.url.host not in CODE_HOSTS]
    if not codes or context.by_list:
        return
    words = _words_of(context)
    evidence = f"a QR code leads to {codes[0].url.host}"
    proven = context.authenticated
    # Who is proven may send a code for anything; one to sign in leads to the sender, or to a company that does that.
    if proven:
        codes = [link for link in codes if not is_brands_own(link.url.host)]
    asks = _any_of(SIGN_IN_WORDS, words)
    if codes and asks and (_any_of(SCAN_WORDS, words) or not proven):
        yield finding("pictures.qr_sign_in", f"a QR code leads to {codes[0].url.host}")
    elif not proven:
        yield finding("pictures.qr_elsewhere", evidence)
    letters = sum(map(str.isalpha, context.text[:MAX_READ_CHARS]))
    if letters < _FEW_LETTERS:
        yield finding("pictures.qr_alone", f"{evidence}; beside it {letters} letters of text")


def code_with_recipient(context: ThreatContext) -> Iterator[Finding]:
    """The account's own address stands in a QR code's URL, plain or in base64: it was made for this one victim."""
    if not context.own:
        return
    plain = base64.b64encode(context.own.encode()).decode().rstrip("=")[:-1]
    for link in context.links:
        if link.element == "qr" and (context.own in unquote(link.raw).lower() or plain in link.raw):
            yield finding("pictures.qr_recipient", f"{link.url.host}… holds {context.own}")
            return


def painted_code(context: ThreatContext) -> Iterator[Finding]:
    """A QR code that is no picture: painted with cells of a table, shadows, or block characters."""
    how = is_painted_in(context.html.tricks) or painted_in_text(context.text, context.message.text_plain)
    if how:
        yield finding("pictures.qr_painted", how)


def pdf_actions(context: ThreatContext) -> Iterator[Finding]:
    """What a PDF does by itself: starts a program, runs a script, brings a program along."""
    for file in _pdfs(context):
        seen = file.inside.seen
        if "launch" in seen:
            yield finding("pictures.pdf_launch", f"{file.shown} ({seen['launch']})")
        if "javascript" in seen:
            finding_id = "pictures.pdf_runs_script" if "by_itself" in seen else "pictures.pdf_script"
            yield finding(finding_id, f"{file.shown} ({seen.get('by_itself') or seen['javascript']})")
        for name in file.inside.members:
            if name.lower().rstrip(". ").rpartition(".")[2] in _PROGRAMS:
                yield finding("pictures.pdf_program", f"{file.shown} holds {name[:150]}")
                break


def pdf_locked(context: ThreatContext) -> Iterator[Finding]:
    """A PDF that opens with a password only; worse where the message gives it: then it is locked against filters."""
    for file in _pdfs(context):
        if "encrypted" not in file.inside.seen:
            continue
        given = stated_password(context.subject, context.text)
        finding_id = "pictures.pdf_password_given" if given else "pictures.pdf_locked"
        yield finding(finding_id, file.shown)


def pdf_is_a_link(context: ThreatContext) -> Iterator[Finding]:
    """A PDF of few words whose links all lead elsewhere than to its sender: a page to be clicked, not to be read. Worse
    where nobody stands behind target or sender: there authentication proves next to nothing."""
    if context.by_list:
        return
    for file in _pdfs(context):
        letters = sum(map(str.isalpha, file.inside.text))
        targets = {target.url for target in file.inside.targets if target.origin == "pdf_link"}
        leads = [link for link in context.links if link.element == "pdf" and link.raw in targets]
        if letters >= _FEW_PDF_LETTERS or not leads:
            continue
        organisations = {link.organisation for link in leads}
        if len(organisations) <= _MANY_LINKED and all(map(context.is_foreign, organisations)):
            anonymous = context.sender.organisation in FREE_MAIL or any(_is_anybodys(link) for link in leads)
            finding_id = "pictures.pdf_to_anywhere" if anonymous else "pictures.pdf_only_link"
            yield finding(finding_id, f"{file.shown}: {letters} letters, a link to {leads[0].url.host}")


def _pdfs(context: ThreatContext) -> Iterator[AttachedFile]:
    """Files that the reader of PDFs has read, whatever they are called."""
    return (file for file in context.files if file.kind == "pdf" or "single_page" in file.inside.seen)


def _is_anybodys(link: Link) -> bool:
    host = link.url.host
    return bool(ends_in(host, SHORTENERS) or ends_in(host, FREE_HOSTING) or ip_of(host))


def _words_of(context: ThreatContext) -> str:
    pieces = [context.subject, context.text[:MAX_READ_CHARS]]
    pieces.extend(file.inside.text[:MAX_READ_CHARS] for file in context.files[:10])
    return "\n".join(pieces).lower()


def _any_of(words: tuple[str, ...], text: str) -> bool:
    return any(word in text for word in words)


DETECTORS = (code_elsewhere, code_with_recipient, painted_code, pdf_actions, pdf_locked, pdf_is_a_link)
