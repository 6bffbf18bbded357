"""Family links: what a link shows, and where it leads."""

from __future__ import annotations

import base64

import pytest
from threat_mail import NOTHING, OWN, PROVEN, found, mail

from mailmill.message_parser import ParsedMessage
from mailmill.processing.threat import context as context_module
from mailmill.processing.threat.evidence import targets as targets_module
from mailmill.processing.threat.evidence.hosts import MAX_URL_CHARS, Url, parse_url
from mailmill.processing.threat.families.links import shown_host

PERCENT = "".join(f"%{byte:02x}" for byte in OWN.encode())
OWN_BASE64 = base64.b64encode(OWN.encode()).decode()


@pytest.mark.parametrize(
    ("finding_id", "html"),
    [
        ("text_differs_from_target", '<a href="https://tide-tables.net/x">https://www.bigbank.com/login</a>'),
        ("text_differs_from_target", '<a href="https://tide-tables.net/x"><b>bigbank.com</b></a>'),
        # an attacker who authenticates a domain of his own gets no leave to show a brand's
        ("text_differs_from_target", '<a href="https://meadow-farm.com/x">www.paypal.com</a>'),
        ("ip_host", '<a href="http://203.0.113.9/x">open</a>'),
        ("ip_host", '<a href="http://3405803785/x">open</a>'),
        ("ip_host", '<a href="http://172.64.0.9/x">open</a>'),
        ("userinfo", '<a href="https://www.bigbank.com@tide-tables.net/">open</a>'),
        ("userinfo", '<a href="https://bigbank.com%2flogin:x@tide-tables.net/">open</a>'),
        ("userinfo", '<a href="http://www.bigbank.com:443@203.0.113.9/x">open</a>'),
        ("script_or_data", '<a href="data:text/html;base64,PHNjcmlwdD4=">open</a>'),
        ("script_or_data", '<a href="vbscript:MsgBox(1)">open</a>'),
        ("script_or_data", "<a href=\"java\nscript:document.write(atob('PHA+'))\">open</a>"),
        ("free_hosting", '<a href="https://login-page.web.app/x">open</a>'),
        ("free_hosting", '<form action="https://x.weebly.com/y"><input type=password></form>'),
        ("free_hosting", '<a href="https://sites.google.com/view/portal-9">open</a>'),
        ("shared_page", '<form action="https://x.formstack.com/forms/y"><input type=password></form>'),
        ("shared_page", '<a href="https://forms.gle/abc123">open</a>'),
        ("shared_page", '<a href="https://docs.google.com/forms/d/e/x/viewform">open</a>'),
        ("tunnel", '<a href="https://ab12.ngrok-free.app/login">open</a>'),
        ("tunnel", '<a href="https://red-sea-wave.trycloudflare.com/">open</a>'),
        ("tunnel", '<a href="https://x.loca.lt/a">open</a>'),
        ("dynamic_address", '<a href="http://mybank.duckdns.org/">open</a>'),
        ("dynamic_address", '<a href="http://x.ddns.net/a">open</a>'),
        ("dynamic_address", '<a href="http://x.hopto.org/a">open</a>'),
        ("ipfs", '<a href="https://ipfs.io/ipfs/QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG">open</a>'),
        ("ipfs", f'<a href="https://gate.tide-tables.net/ipfs/bafybei{"a" * 52}/x.html">open</a>'),
        ("ipfs", f'<a href="https://bafybei{"a" * 52}.ipfs.tide-tables.net/">open</a>'),
        ("open_redirect", '<a href="https://www.google.com/url?q=https://tide-tables.net/x&amp;sa=D">open</a>'),
        ("open_redirect", '<a href="https://www.google.de/amp/s/tide-tables.net/x">open</a>'),
        ("open_redirect", '<a href="https://tide--tables-net.translate.goog/x?_x_tr_sl=auto">open</a>'),
        ("open_redirect", '<a href="https://www.paypal.com/go?redirect=https%3A%2F%2Ftide-tables.net%2F">open</a>'),
        ("port", '<a href="http://tide-tables.net:8443/x">open</a>'),
        ("port", '<a href="https://203.0.113.9:4444/x">open</a>'),
        ("port", '<a href="http://bank.example.co.uk:81/">open</a>'),
        ("invisible_characters", '<a href="https://tide\u200btables.net/">open</a>'),
        ("invisible_characters", '<a href="https://tide%E2%80%8Btables.net/">open</a>'),
        ("invisible_characters", '<a href="https://tide-tables.net/%E2%80%AEfdp.exe">open</a>'),
        ("invisible_characters", '<a href="https://tide-tables.net/">\u202emoc.knab\u202c</a>'),
        ("disguised_address", '<a href="https://%74ide-tables.net/">open</a>'),
        ("disguised_address", '<a href="https:\\\\tide-tables.net/">open</a>'),
        ("disguised_address", '<a href="https:tide-tables.net/x">open</a>'),
        ("disguised_address", '<a href="https://ｔide-tables.net/x">open</a>'),
        ("disguised_address", '<a href="https://tide-tabⅼes.net/x">open</a>'),
        ("machine_name", '<a href="http://203-0-113-9.static.host.net/x">open</a>'),
        ("machine_name", '<a href="http://203.0.113.9.host.net/x">open</a>'),
        ("machine_name", '<a href="http://ip-203-0-113-9.eu.host.net/x">open</a>'),
        ("program", '<a href="https://tide-tables.net/update.exe">open</a>'),
        ("program", '<a href="https://tide-tables.net/invoice.iso?dl=1">open</a>'),
        ("program", '<a href="https://tide-tables.net/app.apk">open</a>'),
        ("broken_site", '<a href="https://tide-tables.net/wp-includes/fonts/y/index.php">open</a>'),
        ("broken_site", '<a href="https://tide-tables.net/blog/wp-content/plugins/x/login.html">open</a>'),
        ("broken_site", '<a href="https://tide-tables.net/.well-known/y/">open</a>'),
        ("shortener", '<a href="https://bit.ly/3abc">open</a>'),
        ("shortener", '<a href="https://t.co/3abc">open</a>'),
        ("shortener", '<area href="https://www.tinyurl.com/3abc">'),
        ("recipient_in_fragment", f'<a href="https://tide-tables.net/#{OWN}">open</a>'),
        ("recipient_in_fragment", f'<a href="https://tide-tables.net/x#u={OWN_BASE64}">open</a>'),
        ("recipient_in_fragment", f'<a href="https://tide-tables.net/#/{OWN_BASE64}">open</a>'),
        ("recipient_in_fragment", f'<a href="https://tide-tables.net/#{OWN.encode().hex()}">open</a>'),
        ("recipient_in_fragment", f'<a href="https://tide-tables.net/#{PERCENT}">open</a>'),
        ("recipient_in_fragment", '<a href="https://tide-tables.net/#u=dana&amp;d=harbour.example.org">open</a>'),
        # the gateway's wrapping is taken off first
        (
            "ip_host",
            '<a href="https://eur01.safelinks.protection.outlook.com/?url=http%3A%2F%2F203.0.113.9%2Fx">open</a>',
        ),
        ("ip_host", '<a href="https://www.google.com/url?q=http://203.0.113.9/x">open</a>'),
        ("text_differs_from_target", '<a href="https://www.google.com/url?q=https://tide-tables.net">google.com</a>'),
        (
            "text_differs_from_target",
            '<a href="https://eur01.safelinks.protection.outlook.com/?url=https%3A%2F%2Ftide-tables.net">bigbank.com</a>',
        ),
    ],
)
def test_found(finding_id: str, html: str) -> None:
    assert f"links.{finding_id}" in found(mail(html=html), "links")


@pytest.mark.parametrize(
    ("twin_of", "html"),
    [
        ("text_differs_from_target", '<a href="https://login.bigbank.com/x">www.bigbank.com</a>'),
        (
            "text_differs_from_target",
            '<a href="https://click.meadow-farm.com/t/1">www.bigshop.com/meadow</a>',
        ),  # the sender's own click tracking
        (
            "text_differs_from_target",
            '<a href="https://eur01.safelinks.protection.outlook.com/?url=https%3A%2F%2Fbigbank.com%2F">bigbank.com</a>',
        ),
        (
            "text_differs_from_target",
            '<a href="https://gate.filter.net/?u=https%3A%2F%2Fwww.bigbank.com%2Fa">www.bigbank.com</a>',
        ),
        ("text_differs_from_target", '<a href="https://urldefense.proofpoint.com/v2/url?u=x">github.com</a>'),
        ("text_differs_from_target", '<a href="https://tide-tables.net/x">report.pdf</a>'),
        ("text_differs_from_target", '<a href="https://tide-tables.net/x">Read more at Bigbank</a>'),
        ("text_differs_from_target", '<a href="https://tide-tables.net/x">3.5.1</a>'),
        ("ip_host", '<a href="http://192.168.1.1/">the router</a>'),
        ("ip_host port", '<a href="http://127.0.0.1:8025/">the page</a>'),
        ("userinfo", '<a href="https://lena@meadow-farm.com/">open</a>'),
        ("userinfo text_differs_from_target", '<a href="mailto:lena@meadow-farm.com">lena@meadow-farm.com</a>'),
        ("script_or_data", '<a href="tel:+4912345">call</a>'),
        ("script_or_data", '<a href="javascript:void(0)">menu</a>'),
        ("script_or_data", '<img src="data:image/png;base64,AAAA"><a href="data:image/png;base64,AAAA">picture</a>'),
        ("shortener", '<a href="https://bit.ly/">the shortener\'s own page</a>'),
        ("recipient_in_fragment", '<a href="https://tide-tables.net/#contact">open</a>'),
        (
            "recipient_in_link recipient_in_fragment",
            f'<a href="https://tide-tables.net/unsubscribe?mail={OWN}">unsubscribe</a>',
        ),
        ("open_redirect", '<a href="https://www.google.com/maps?q=harbour">the way</a>'),
        (
            "open_redirect",
            '<a href="https://www.facebook.com/sharer/sharer.php?u=https%3A%2F%2Ftide-tables.net">share</a>',
        ),
        ("open_redirect", '<a href="https://twitter.com/intent/tweet?url=https%3A%2F%2Ftide-tables.net">share</a>'),
        ("open_redirect", '<a href="https://www.google.com/url?q=https://meadow-farm.com/x">our page</a>'),
        ("port", '<a href="https://click.meadow-farm.com:8443/x">our page</a>'),
        ("port", '<a href="https://tide-tables.net:443/x">open</a>'),
        ("port ip_host", '<a href="http://10.0.0.7:9000/">the machine</a>'),
        ("disguised_address invisible_characters", '<a href="https://tide-tables.net/%E2%9C%93?a=%20b">open</a>'),
        ("invisible_characters", '<a href="https://tide-tables.net/">read\u200c more\u200b</a>'),
        ("recipient_in_fragment", '<a href="https://tide-tables.net/#1-the-tides">open</a>'),
        ("recipient_in_fragment", '<a href="https://tide-tables.net/#/example.org/about">open</a>'),
        ("program", '<a href="https://github.com/meadow/tool/releases/download/v1/tool.exe">the tool</a>'),
        ("program", '<a href="https://meadow-farm.com/setup.exe">our program</a>'),
        ("program", '<a href="https://tide-tables.net/blog.app">open</a>'),
        ("broken_site", '<a href="https://tide-tables.net/wp-content/uploads/2024/05/plan.pdf">the plan</a>'),
        ("broken_site", '<a href="https://tide-tables.net/wp-content/themes/x/logo.png">logo</a>'),
        ("broken_site", '<a href="https://tide-tables.net/.well-known/acme-challenge/x">open</a>'),
        ("dynamic_address", '<a href="https://noip-fans.net/">open</a>'),
        ("shared_page", '<a href="https://forms.gle/">forms</a>'),
        ("disguised_address", '<a href="https://münchen-tide.net/x">open</a>'),
        ("machine_name", '<a href="https://v1-2-3.tide-tables.net/">open</a>'),
        ("machine_name", '<a href="https://2024-11-22-news.tide-tables.net/">open</a>'),
        ("machine_name", '<a href="https://203-0-113-9.meadow-farm.com/">open</a>'),
        ("ipfs", '<a href="https://docs.ipfs.tech/ipfs/why">how it works</a>'),
        ("userinfo", '<a href="https://dana:x@tide-tables.net/">the archive</a>'),
        ("ip_host port", '<a href="http://172.20.0.4:9000/">the machine</a>'),
        ("text_differs_from_target", '<a hidden href="https://tide-tables.net/">www.bigbank.com</a>'),
        ("text_differs_from_target", '<form action="https://tide-tables.net/"><button>www.bigbank.com</button></form>'),
        ("userinfo", '<a href="https://tide-tables.net/@lena.ott/2">her post</a>'),
        ("free_hosting", '<a href="https://notweb.app/x">open</a>'),
        ("free_hosting", '<a href="https://weebly-fans.net/x">open</a>'),
        ("free_hosting", '<a href="https://tide-tables.net/web.app">open</a>'),
        ("shortener", '<a href="https://tide.ly/3abc">open</a>'),
        ("shortener", '<a href="https://tide-tables.net/s/3abc">open</a>'),
        ("shared_page", '<a href="https://docs.google.com/">all documents</a>'),
        ("shared_page", '<a href="https://tide-tables.net/forms/d/e/x/viewform">open</a>'),
        ("tunnel", '<a href="https://ngrok.com/docs">how tunnels work</a>'),
        ("tunnel", '<a href="https://www.cloudflare.com/products/tunnel/">open</a>'),
        ("tunnel", '<a href="https://tunnel.tide-tables.net/trycloudflare.com">open</a>'),
        ("dynamic_address", '<a href="https://www.noip.com/support">open</a>'),
        ("dynamic_address", '<a href="https://duckdns-guide.net/ddns.net">open</a>'),
        ("ipfs", '<a href="https://tide-tables.net/ipfs/readme">open</a>'),
        ("ipfs", '<a href="https://ipfs-meetup.net/bafybei">open</a>'),
        ("disguised_address", '<a href="https://tide-tables.net//a//b%2f">open</a>'),
        ("invisible_characters", '<a href="https://tide-tables.net/caf%C3%A9">\u2067שלום\u2069</a>'),
        ("machine_name", '<a href="https://tide-tables.net/203-0-113-9.html">open</a>'),
        ("program", '<a href="https://tide-tables.net/setup.exe.html">about it</a>'),
    ],
)
def test_benign_twin(twin_of: str, html: str) -> None:
    assert found(mail(html=html, results=PROVEN), "links") == set(), twin_of


def test_a_service_may_link_to_its_own_pages() -> None:
    page = '<a href="https://shop.myshopify-pages.web.app/x">open</a>'
    assert "links.free_hosting" not in found(
        mail("S <s@shop.myshopify-pages.web.app>", html=page, results="dkim=pass header.d={d}")
    )


@pytest.mark.parametrize(
    ("finding_id", "text"),
    [
        ("ip_host", "Confirm your account: http://203.0.113.9/login"),
        ("ip_host", "Confirm your account: http://3405803785/login now."),
        ("ip_host", "http://www.google.com/url?q=http://203.0.113.9/x"),
        ("port", "Your parcel waits: http://203.0.113.9:81/x"),
        ("machine_name", "Your parcel waits: http://203-0-113-9.static.host.net/x"),
    ],
)
def test_a_strangers_letter_in_plain_text_is_followed_too(finding_id: str, text: str) -> None:
    for results in (NOTHING, None):
        assert f"links.{finding_id}" in found(mail(text=text, results=results), "links")


WRITTEN = "Get http://203.0.113.9:81/x and http://203-0-113-9.static.host.net/x"


@pytest.mark.parametrize(
    "message",
    [
        mail(text=WRITTEN, results=PROVEN),
        mail(text=WRITTEN, results=NOTHING, headers=("In-Reply-To: <0@meadow-farm.com>",)),
        mail(text=WRITTEN, results=NOTHING, headers=("List-Id: <tides.lists.example.net>",)),
        mail(text=WRITTEN + "".join(f" http://tide-tables.net/{number}" for number in range(9)), results=NOTHING),
        mail(text=WRITTEN, results=NOTHING, html="<p>See you on Monday at ten.</p>"),
        mail(text="The router is http://192.168.1.1:8080/, outside it is 203.0.113.9.", results=NOTHING),
    ],
    ids=["a colleague", "an answer", "a list", "a heap of addresses", "shown as HTML", "a router"],
)
def test_addresses_that_are_mentioned_are_not_followed(message: ParsedMessage) -> None:
    assert not found(message, "links") & {"links.ip_host", "links.port", "links.machine_name"}


def test_plain_text_shows_its_targets_itself() -> None:
    """What programs make a link of in a letter is one, to a service that hides its target; answers mention much."""
    text = "Fetch it from http://203.0.113.9/build and https://bit.ly/3abc please"
    answer = mail(text=text, headers=("In-Reply-To: <1@harbour.example.org>",))
    assert found(answer, "links") == set()
    assert "links.shortener" in found(mail(text=text), "links")


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("https://www.bigbank.com/login", "www.bigbank.com"),
        ("www.bigbank.com", "www.bigbank.com"),
        ("→ bigbank.com", "bigbank.com"),
        ("bigbank.com/login?x=1", "bigbank.com"),
        ("Bigbank", ""),
        ("see bigbank.com for more", ""),
        ("setup.py", ""),
        ("notes.md", ""),
        ("v1.2.3", ""),
        ("lena@bigbank.com", ""),
    ],
)
def test_what_a_text_shows(text: str, host: str) -> None:
    assert shown_host(text) == host


@pytest.mark.parametrize(
    ("finding_id", "html"),
    [
        ("recipient_in_link", f'<a href="https://tide-tables.net/x?e={OWN}">open</a>'),
        ("recipient_in_link", f'<a href="https://tide-tables.net/{OWN_BASE64}">open</a>'),
        ("recipient_in_link", '<a href="https://tide-tables.net/harbour.example.org/?u=dana">open</a>'),
        ("archive", '<a href="https://tide-tables.net/scan.zip">open</a>'),
        ("archive", '<a href="https://tide-tables.net/a/invoice.rar?x">open</a>'),
        ("archive", '<a href="https://tide-tables.net/a/INVOICE.7z">open</a>'),
        ("credential_words", '<a href="https://tide-tables.net/mail/login.php">open</a>'),
        ("credential_words", '<a href="https://secure.tide-tables.net/">open</a>'),
        ("credential_words", '<form action="https://tide-tables.net/verify/"><input name=a></form>'),
        ("unrelated_to_sender", '<a href="https://tide-tables.net/a">a</a> <a href="https://x.tide-tables.net/">b</a>'),
        ("unrelated_to_sender", '<a href="https://tide-tables.net/">open</a>'),
        ("unrelated_to_sender", '<form action="https://tide-tables.net/"></form>'),
        ("hidden_target", '<a href="https://a.net/">a</a><a style="display:none" href="https://b.net/x">b</a>'),
        ("hidden_target", '<div hidden><a href="https://tide-tables.net/">b</a></div>'),
        ("hidden_target", '<a href="https://a.net/">a</a><p style="font-size:0;opacity:0"><a href="//c.net">b</a></p>'),
    ],
)
def test_what_only_an_unproven_sender_is_asked(finding_id: str, html: str) -> None:
    """The honest twin is the same message from a sender that is proven, or from the sender's own host."""
    assert f"links.{finding_id}" in found(mail(html=html, results=NOTHING), "links")
    assert f"links.{finding_id}" not in found(mail(html=html, results=PROVEN), "links")
    own = html.replace("tide-tables.net", "meadow-farm.com").replace("b.net", "a.net").replace("c.net", "a.net")
    assert f"links.{finding_id}" not in found(mail(html=own, results=NOTHING), "links")


@pytest.mark.parametrize(
    ("twin_of", "html"),
    [
        ("recipient_in_link", f'<a href="https://tide-tables.net/unsubscribe?e={OWN}">open</a>'),
        ("recipient_in_link", f'<a href="https://tide-tables.net/x?e={OWN}">Unsubscribe</a>'),
        ("recipient_in_link", '<a href="https://tide-tables.net/dana/harbour">open</a>'),
        ("recipient_in_link", f'<a href="mailto:{OWN}">answer</a>'),
        ("archive", '<a href="https://github.com/meadow/tool/archive/v1.zip">the sources</a>'),
        ("archive", '<a href="https://tide-tables.net/zip">open</a>'),
        ("archive", '<a href="https://tide-tables.net/a.zip.html">about it</a>'),
        ("credential_words", '<a href="https://www.facebook.com/login/">open</a>'),
        ("credential_words", '<a href="https://tide-tables.net/unsubscribe/account">open</a>'),
        ("credential_words", '<a href="https://tide-tables.net/blogging/accountants">open</a>'),
        ("unrelated_to_sender", '<a href="https://tide-tables.net/a">a</a> <a href="https://a.net/">b</a>'),
        ("unrelated_to_sender", '<a href="https://tide-tables.net/a">a</a> <a href="https://meadow-farm.com/">b</a>'),
        ("unrelated_to_sender", '<a href="https://www.facebook.com/meadow">a</a>'),
        ("hidden_target", '<a href="https://a.net/">a</a><a style="display:none" href="https://a.net/x">b</a>'),
        ("hidden_target", '<a href="https://a.net/">a</a><a hidden href="https://meadow-farm.com/x">b</a>'),
        ("hidden_target", '<a href="https://a.net/">a</a><a hidden href="mailto:lena@b.net">b</a>'),
    ],
)
def test_what_an_unproven_sender_may_do(twin_of: str, html: str) -> None:
    assert f"links.{twin_of}" not in found(mail(html=html, results=NOTHING), "links")


@pytest.mark.parametrize(
    "header",
    ["In-Reply-To: <1@harbour.example.org>", "References: <1@harbour.example.org>", "List-Id: <a.meadow-farm.com>"],
)
def test_answers_and_newsletters_may_lead_elsewhere(header: str) -> None:
    page = '<a href="https://tide-tables.net/">open</a>'
    assert "links.unrelated_to_sender" not in found(mail(html=page, results=NOTHING, headers=(header,)), "links")


@pytest.mark.parametrize("finding_id", ["recipient_on_free_page"])
@pytest.mark.parametrize(
    "target",
    [
        f"https://mail-desk.web.app/?e={OWN}",
        f"https://x.weebly.com/login#{OWN_BASE64}",
        f"https://ab12.ngrok-free.app/{PERCENT}",
    ],
)
def test_a_page_that_nobody_stands_behind_knows_its_victim(finding_id: str, target: str) -> None:
    page = f'<a href="{target}">open</a>'
    assert f"links.{finding_id}" in found(mail(html=page, results=PROVEN), "links")


@pytest.mark.parametrize("twin_of", ["recipient_on_free_page"])
@pytest.mark.parametrize(
    "html",
    [
        f'<a href="https://tide-tables.net/?e={OWN}">open</a>',
        '<a href="https://mail-desk.web.app/?e=pia@elsewhere.example">open</a>',
        f'<a href="https://mail-desk.web.app/unsubscribe?e={OWN}">open</a>',
        f'<a href="https://mail-desk.web.app/?e={OWN}">Unsubscribe</a>',
    ],
)
def test_a_page_may_know_whom_it_is_sent_to(twin_of: str, html: str) -> None:
    assert f"links.{twin_of}" not in found(mail(html=html, results=PROVEN), "links")


PACKED = '<a href="https://tide-tables.net/scan.zip">open</a>'


@pytest.mark.parametrize("finding_id", ["locked_archive"])
@pytest.mark.parametrize(
    "words",
    ["The file is below. Password: 1234", "Download the archive. Password: 7788", "Anbei die Rechnung. Passwort: 777"],
)
@pytest.mark.parametrize("results", [PROVEN, NOTHING])
def test_an_archive_behind_a_link_with_its_password(finding_id: str, words: str, results: str) -> None:
    assert f"links.{finding_id}" in found(mail(html=f"<p>{words}</p>{PACKED}", results=results), "links")


@pytest.mark.parametrize("twin_of", ["locked_archive"])
@pytest.mark.parametrize(
    "html",
    [
        f"<p>The plan of the pier.</p>{PACKED}",
        f"<p>The plan of the pier is in it, the notes too.</p>{PACKED}",
        '<p>Download the archive. Password: 7788</p><a href="https://meadow-farm.com/scan.zip">open</a>',
        '<p>Download the archive. Password: 7788</p><a href="https://tide-tables.net/plan.pdf">open</a>',
    ],
)
def test_an_archive_without_its_password(twin_of: str, html: str) -> None:
    assert f"links.{twin_of}" not in found(mail(html=html, results=PROVEN), "links")


def all_to(url: str, *texts: str) -> str:
    return " ".join(f'<p><a href="{url}">{text}</a></p>' for text in texts)


@pytest.mark.parametrize("finding_id", ["one_link_for_all"])
@pytest.mark.parametrize(
    "html",
    [
        all_to("https://tide-tables.net/go/1", "Claim now", "Your prize", "Unsubscribe"),
        all_to("https://tide-tables.net/go?1", "Jetzt ansehen", "Paket", "Hier abmelden"),
        all_to("https://tide-tables.net/go/1", "A", "B", "C", "opt-out") + all_to("https://a.net/", "logo"),
    ],
)
def test_one_link_under_every_text(finding_id: str, html: str) -> None:
    assert f"links.{finding_id}" in found(mail(html=html), "links")


@pytest.mark.parametrize("twin_of", ["one_link_for_all"])
@pytest.mark.parametrize(
    "html",
    [
        all_to("https://tide-tables.net/go/1", "Claim now", "Your prize")
        + all_to("https://tide-tables.net/u", "Unsubscribe"),
        all_to("https://meadow-farm.com/go/1", "Claim now", "Your prize", "Unsubscribe"),
        all_to("https://tide-tables.net/", "Tide tables", "Our page", "Unsubscribe"),
        all_to("https://tide-tables.net/go/1", "Read on", "Read on", "Picture"),
        all_to("https://tide-tables.net/go/1", "Claim now", "Your prize", "Picture"),
        all_to("https://tide-tables.net/go/1", "A", "B", "Unsubscribe")
        + all_to("https://a.net/", "a")
        + all_to("https://b.net/", "b"),
    ],
)
def test_one_link_under_every_text_benign_twin(twin_of: str, html: str) -> None:
    assert f"links.{twin_of}" not in found(mail(html=html), "links"), twin_of


def test_a_host_that_every_link_goes_through_counts_them() -> None:
    links = [f'<a href="https://go.count-mail.net/{n}">{text}</a>' for n, text in enumerate(("a", "b", "c", "d"))]
    shown = '<a href="https://go.count-mail.net/9">www.{}</a>'
    by_tracker = mail(html=" ".join(links) + shown.format("bigshop.com"), results=None)
    assert "links.text_differs_from_target" not in found(by_tracker)
    assert "links.text_differs_from_target" in found(
        mail(html=" ".join(links) + shown.format("paypal.com"), results=None)
    )
    same = [link.replace("/1", "/0").replace("/2", "/0").replace("/3", "/0") for link in links]
    assert "links.text_differs_from_target" in found(
        mail(html=" ".join(same) + shown.format("bigshop.com"), results=None)
    )


LOGO = '<img src="https://www.netflix.com/assets/logo.png" alt=""><a href="{target}">Go on</a>'


@pytest.mark.parametrize("finding_id", ["brand_pictures"])
@pytest.mark.parametrize(
    ("html", "subject"),
    [
        (LOGO.format(target="https://tide-tables.net/"), "Your Netflix membership"),
        ('<img src="https://www.fedex.com/img/logo-2.png"><a href="https://bit.ly/1x">Track</a>', "FedEx: parcel held"),
        ('<img src="//www.chase.com/brand.svg"><a href="https://tide-tables.net/">Open</a>', "Chase alert"),
    ],
)
def test_pictures_of_a_brand_above_links_elsewhere(finding_id: str, html: str, subject: str) -> None:
    assert f"links.{finding_id}" in found(mail(html=html, subject=subject), "links")


@pytest.mark.parametrize("twin_of", ["brand_pictures"])
@pytest.mark.parametrize(
    ("html", "subject", "sender"),
    [
        (LOGO.format(target="https://www.netflix.com/x"), "Your Netflix membership", "N <a@tide-tables.net>"),
        (LOGO.format(target="https://tide-tables.net/x"), "Your Netflix membership", "N <a@mail.netflix.com>"),
        (LOGO.format(target="https://tide-tables.net/x"), "What to watch this week", "News <a@tide-tables.net>"),
        (
            '<img src="https://play.google.com/badges/logo.png"><a href="https://tide-tables.net/">Open</a>',
            "Our app is on Google Play",
            "Tides <a@meadow-farm.com>",
        ),
        (
            LOGO.format(target="https://tide-tables.net/x").replace("logo", "poster"),
            "Your Netflix membership",
            "N <a@tide-tables.net>",
        ),
        (
            LOGO.format(target="https://tide-tables.net/x").replace("logo", "logo-button"),
            "Your Netflix evening",
            "N <a@tide-tables.net>",
        ),
        (LOGO.format(target="mailto:pia@tide-tables.net"), "Your Netflix evening", "N <a@tide-tables.net>"),
        (
            LOGO.format(target="https://tide-tables.net/x").replace("<a ", "<a hidden "),
            "Your Netflix evening",
            "N <a@tide-tables.net>",
        ),
    ],
)
def test_pictures_of_a_brand_benign_twin(twin_of: str, html: str, subject: str, sender: str) -> None:
    assert f"links.{twin_of}" not in found(mail(sender, html=html, subject=subject), "links"), twin_of


def test_a_list_that_sends_on_what_nobody_signed_is_no_stranger() -> None:
    message = mail(
        "Lena Ott <lena@meadow-farm.com>",
        html='<a href="https://tide-tables.net/login.zip">patch</a> <a href="https://tide-tables.net/setup.exe">it</a>',
        results="spf=pass smtp.mailfrom=lists.example.net; dkim=none; dmarc=none header.from={d}",
        headers=("List-Id: Tides <tides.lists.example.net>",),
    )
    assert found(message, "links") == set()


@pytest.mark.parametrize(
    "trap",
    [
        "https://" + "a." * 50_000,
        "https://" + "a@" * 50_000 + "b.net",
        "https://b.net/" + "wp-includes" * 10_000,
        "https://b.net/" + "a/" * 50_000 + "x.htm",
        "https://urldefense.com/v3/__" + "_" * 100_000,
        "https://urldefense.com/v3/__https://b.net/" + "*" * 50_000 + "__;" + "A" * 50_000,
        "https://www.google.com/url?" + "q=" * 50_000,
        "https://www.google.com/url?q=" + "https://www.google.com/url?q=" * 4_000,
        "https://b.net/#" + "QUFB" * 25_000,
        "https://b.net/#" + "%25" * 33_000,
        "https://" + "-".join(["paypal"] * 15_000) + ".net",
        "https://" + "xn--" * 25_000 + ".net",
        "javascript:" + "location " * 12_000,
    ],
)
def test_traps_are_read_no_further_than_the_bounds(trap: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What any pattern is given is bounded: a URL is cut before anything looks at it."""
    longest = 0

    def counted(raw: str) -> Url | None:
        nonlocal longest
        url = parse_url(raw)
        if url is not None:
            longest = max(longest, len(url.host) + len(url.path) + len(url.query) + len(url.fragment))
        return url

    monkeypatch.setattr(context_module, "parse_url", counted)
    monkeypatch.setattr(targets_module, "parse_url", counted)
    found(mail(html=f'<a href="{trap}">{trap[:3_000]}</a>', text=trap, results=NOTHING), "links")
    assert longest <= MAX_URL_CHARS
