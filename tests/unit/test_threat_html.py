"""Family html: what the HTML of a message hides, asks for or runs."""

from __future__ import annotations

import pytest
from threat_mail import NOTHING, PROVEN, found, mail, verdict

LETTER = (
    "<p>The plan for the harbour is ready and the boats are painted. Please come on Monday at ten o'clock to the pier "
    "by the old mill, and bring the tide tables.</p>"
)
_STEMS = [one + two for one in ("bar", "ced", "lom") for two in ("in", "ota", "ex")]
WORDS = " ".join(
    stem + end for stem in _STEMS for end in ("alum", "erum", "ixum", "onum", "utum", "andum", "istum", "ockum")
)
"""72 words that stand nowhere else."""

BLOCK = f"<div>{WORDS}</div>"


@pytest.mark.parametrize(
    ("finding_id", "html"),
    [
        ("hidden_text", f'{LETTER}<div style="display:none">{WORDS}</div>'),
        ("hidden_text", f'{LETTER}<span style="font-size:0">{WORDS}</span>'),
        ("hidden_text", f'{LETTER}<div style="position:absolute;left:-9999px">{WORDS}</div>'),
        ("hidden_text", f'{LETTER}<div style="clip:rect(0 0 0 0)">{WORDS}</div>'.replace("0 0 0 0", "0,0,0,0")),
        ("hidden_text", f'{LETTER}<p style="color:#fff">{WORDS}</p>'),
        ("hidden_text", f'{LETTER}<table><td bgcolor="#eeeeee"><font color="#EFEFEF">{WORDS}</font></td></table>'),
        ("hidden_text", f'<style>.h{{display:none}}</style>{LETTER}<div class="x h">{WORDS}</div>'),
        ("zero_font", "Ver<i style='font-size:0'>x</i>ify acc<i style='font-size:0'>q</i>ount pass<b hidden>z</b>word"),
        ("zero_font", "".join(f"{one}<span style='display:none'>7</span>" for one in "signinplease")),
        ("zero_font", "".join(f"<b>{one}</b><span style='font-size:0px'>ab cd</span>" for one in "Invoice")),
        ("split_words", "Ver\u200bify your pass\u200bword, acc\u200bount, log\u200bin"),
        ("split_words", " ".join("\u2060".join(word) for word in ("verify", "your", "bank", "account"))),
        ("split_words", " ".join("\u00ad".join(word) for word in ("verify", "your", "bank", "account"))),
        ("disguised_words", "<p>Yоur аccount was lоcked</p>"),  # Cyrillic о and а
        ("disguised_words", "<p>Clісk hеre</p>"),
        ("disguised_words", "<p>Ρassw\u03bfrd for your acc\u03bfunt</p>"),  # Greek
        ("turned_letters", '<p style="unicode-bidi:bidi-override;direction:rtl">tnuocca ruoy yfirev</p>'),
        ("turned_letters", '<bdo dir="rtl">tnuocca ruoy yfirev</bdo>'),
        ("turned_letters", "<p>\u202etnuocca ruoy yfirev\u202c</p>"),
        ("encoded_text", "<p>" + "".join(f"&#{ord(one)};" for one in "Verify your account now " * 5) + "</p>"),
        ("encoded_text", "<p>" + "".join(f"&#x{ord(one):X};" for one in "Verify your account now " * 5) + "</p>"),
        ("encoded_text", "<p>Hello</p>" + "".join(f"&#0{ord(one)};" for one in "Verifyyouraccountnow" * 4)),
        ("image_only", '<a href="https://tide-tables.net/"><img src="https://tide-tables.net/x.png"></a>'),
        ("image_only", '<a href="https://tide-tables.net/"><img src="cid:1" alt="Invoice"></a><p>Thank you</p>'),
        ("image_only", '<map><area href="#x"></map><center><a href="http://b.example"><img src="x"></a></center>'),
        ("picture_to_anywhere", '<a href="https://bit.ly/3abc"><img src="x"></a>'),
        ("picture_to_anywhere", '<a href="https://login-page.web.app/x"><img src="x"></a>'),
        ("picture_to_anywhere", '<img usemap="#m"><map name=m><area href="http://203.0.113.9/"></map>'),
        ("password_field", '<form action="https://b.example"><input type="password"></form>'),
        ("password_field", '<input type="text" name="user"><input type="text" placeholder="Enter your password">'),
        ("password_field", '<input name="passwd">'),
        ("card_field", '<input name="cardnumber"><input name="x">'),
        ("card_field", '<input placeholder="CVV">'),
        ("card_field", '<input autocomplete="cc-number">'),
        ("form_elsewhere", '<form action="https://b.example/x"><input name="email"></form>'),
        ("form_elsewhere", '<base href="https://b.example/"><form action="x"><textarea></textarea></form>'),
        ("form_elsewhere", '<form action="http://203.0.113.9/"><input type="email" name="a"></form>'),
        ("smuggling", "<script>document.write(unescape('%3Cform%3E'))</script>"),
        ("smuggling", "<script>var b=new Blob([atob(x)]);URL.createObjectURL(b)</script>"),
        ("smuggling", "<body onload=\"eval(atob('YWxlcnQoMSk='))\">x"),
        ("script", "<script>count()</script>"),
        ("script", '<p onclick="go()">x</p>'),
        ("script", '<img src=x onerror="go()">'),
        ("svg_program", "<svg><script>go()</script></svg>"),
        ("svg_program", '<svg onload="go()"><rect/></svg>'),
        ("svg_program", "<svg><foreignObject><p>Sign in</p></foreignObject></svg>"),
        ("refresh", '<meta http-equiv="refresh" content="0;url=https://b.example/">'),
        ("refresh", "<META HTTP-EQUIV='Refresh' CONTENT=\"3; URL='https://b.example/'\">"),
        ("refresh", '<head><meta http-equiv=refresh content="0 ; Url = data:text/html,x"></head>'),
        ("page_in_frame", '<iframe src="data:text/html;base64,PGZvcm0+"></iframe>'),
        ("page_in_frame", '<object data="java\nscript:x"></object>'),
        ("page_in_frame", '<iframe srcdoc="<form>"></iframe>'),
        ("frame_elsewhere", '<iframe src="https://b.example/"></iframe>'),
        ("frame_elsewhere", '<embed src="//b.example/x.swf">'),
        ("frame_elsewhere", '<object data="https://b.example/x.pdf"></object>'),
        ("base_elsewhere", '<base href="https://b.example/"><a href="login">sign in</a>'),
        ("base_elsewhere", '<head><base href="http://203.0.113.9/x/"></head><a href="y">sign in</a>'),
        ("base_elsewhere", '<base href="//b.example"><a href="/login">sign in</a>'),
        ("outlook_differs", '<!--[if mso]><a href="https://b.example/">x</a><![endif]--><a href="https://c.example">x</a>'),
        ("outlook_differs", '<!--[if gte mso 9]><v:rect href="https://b.example/"/><![endif]-->'),
        ("outlook_differs", "<!--[if (mso)|(IE)]><a href='http://203.0.113.9/'>x</a><![endif]-->"),
    ],
)  # fmt: skip
def test_found(finding_id: str, html: str) -> None:
    assert f"html.{finding_id}" in found(mail(html=html, results=NOTHING), "html")


@pytest.mark.parametrize(
    ("twin_of", "html"),
    [
        ("hidden_text", LETTER),
        (
            "hidden_text",
            f'<div style="display:none;max-height:0">Our plan for Monday, and for the boats &zwnj;&nbsp;</div>{LETTER}',
        ),
        (
            "hidden_text split_words",
            f'<div style="color:#fff;font-size:1px">Our plan for Monday{"&#847;&zwnj;&nbsp;" * 150}</div>{LETTER}',
        ),
        ("hidden_text", f'{BLOCK}<div class="m" style="display:none">{WORDS}</div>'),  # the same for phones
        ("hidden_text", f'<table><td bgcolor="#003366"><p style="color:#ffffff">{WORDS}</p></td></table>'),
        ("hidden_text", f'<table style="background:url(x.png)"><td style="color:#fff">{WORDS}</td></table>'),
        (
            "hidden_text",
            f'<style>.dark{{background:#111}}</style><div class="dark"><p style="color:white">{WORDS}</p></div>',
        ),
        (
            "hidden_text",
            f"<style>td{{background-color:black}}</style><table><td><font color=white>{WORDS}</font></td></table>",
        ),
        ("hidden_text", f'<div style="background:linear-gradient(#000,#333);color:#fff">{WORDS}</div>'),
        ("hidden_text zero_font", f'<table><td style="font-size:0"><p style="font-size:13px">{WORDS}</p></td></table>'),
        ("zero_font", "Mill<span style='display:none'>®</span> and Farm<span style='display:none'>(tm)</span> and Co"),
        ("zero_font", "<p>one<b hidden>x</b> two<b hidden>x</b> three<b hidden>x</b> four<b hidden>x</b></p>"),
        ("split_words", "<p>Schiff\u00adfahrts\u00adgesell\u00adschaft, Donau\u00addampf\u00adschiff</p>" * 9),
        (
            "split_words",
            "<p>mill\u200c.example and farm\u200c.example write to lena\u200c@mill.example</p>",
        ),  # kept from becoming links
        ("split_words", "<p>می\u200cخواهم نمی\u200cشود کتاب\u200cها خانه\u200cها</p>"),  # Persian needs them
        ("split_words", "<p>👩\u200d🌾 👨\u200d👩\u200d👧 👩\u200d💻 🏳\ufe0f\u200d🌈 👩\u200d🚀</p>"),
        ("disguised_words", "<p>Ваш счёт за USB-кабель и SIM-карту от Meadow Farm</p>"),
        ("disguised_words", "<p>The α-helix, 5 µm, 10 kΩ, Δx and the Ελλάδα office</p>"),
        ("disguised_words", "<p>𝗕𝗶𝗴 𝗻𝗲𝘄𝘀 from the farm</p>"),  # whole words in bold signs, as in posts
        ("turned_letters", '<p dir="rtl" style="direction:rtl">שלום עולם, the plan for Monday</p>'),
        ("turned_letters", "<p><bdo dir=rtl>שלום עולם שלום עולם</bdo></p>"),
        ("encoded_text", "<p>" + "".join(f"&#{ord(one)};" for one in "Прочитайте наш план " * 9) + "</p>"),
        (
            "encoded_text",
            "<a href='mailto:x'>" + "".join(f"&#{ord(one)};" for one in "lena@meadow-farm.com") + "</a>" + LETTER,
        ),
        (
            "image_only picture_to_anywhere",
            f'{LETTER}<a href="https://tide-tables.net/"><img src="https://tide-tables.net/x.png"></a>',
        ),
        (
            "image_only picture_to_anywhere",
            '<a href="https://meadow-farm.com/"><img src="https://meadow-farm.com/x.png"></a>',
        ),  # the sender's own page
        ("image_only", "<img src='cid:photo'>"),
        (
            "form_elsewhere password_field",
            '<form action="https://meadow-farm.com/search"><input name="q"><input type=submit></form>',
        ),
        (
            "form_elsewhere password_field card_field",
            '<input type="checkbox" class="menu"><input type="radio" name="carousel-1">',
        ),
        ("password_field", '<input type="hidden" name="password" value="x">'),
        ("password_field card_field", '<input name="passenger"><input name="compass"><input name="discard">'),
        ("script smuggling", '<script type="application/ld+json">{"@type":"Order"}</script>' + LETTER),
        ("svg_program", '<svg viewBox="0 0 9 9"><path d="M0 0"/><rect width=4 height=4 fill="#000"/></svg>' + LETTER),
        (
            "refresh",
            '<meta http-equiv="Content-Type" content="text/html"><meta http-equiv="refresh" content="60">',
        ),
        ("frame_elsewhere page_in_frame", '<iframe src="https://meadow-farm.com/x"></iframe><object></object>'),
        ("base_elsewhere", '<base target="_blank"><a href="https://tide-tables.net/">tides</a>'),
        ("base_elsewhere", '<base href="https://meadow-farm.com/"><a href="x">more</a>'),
        (
            "outlook_differs",
            '<!--[if mso]><v:rect href="https://b.example/x"/><![endif]-->'
            '<!--[if !mso]><!--><a href="https://b.example/x">x</a><!--<![endif]-->',
        ),
        (
            "outlook_differs",
            '<!--[if mso]><table xmlns="http://schemas.microsoft.com/x"><![endif]--><a href="https://b.example/x">x</a>',
        ),
        ("outlook_differs", '<!--[if mso]><link href="https://fonts.googleapis.com/css"><![endif]-->'),
        ("outlook_differs", "<!--[if mso]>" * 9 + LETTER),
        (
            "zero_font",
            "<p>Invoice<span style='display:none'> (copy)</span> and<b hidden> the</b> receipt<b hidden>s</b></p>",
        ),
        ("turned_letters", "<p>The ticket \u202eA17-B\u202c is yours.</p>"),
        ("encoded_text", "".join(one if one.isascii() else f"&#{ord(one)};" for one in "Grüße, „Übergröße“ … " * 30)),
        (
            "encoded_text",
            "".join(f"&#{ord(one)};" for one in "Lena Ott, lena@meadow-farm.com, Meadow Farm at the old mill, pier 7")
            + LETTER * 3,
        ),
        ("picture_to_anywhere", f'{LETTER}<a href="https://bit.ly/3abc"><img src="x"></a>'),
        ("picture_to_anywhere image_only", '<a href="https://bit.ly/3abc">the photos</a><img src="cid:1">'),
        ("card_field", '<input name="discard_changes"><input name="cardigan_size"><input name="pinboard">'),
        ("password_field card_field", "<p>We never ask for a password, a card number or a CVV.</p>"),
        (
            "form_elsewhere",
            '<form action="https://tide-tables.net/vote"><input type="radio" name="a"><input type="submit"></form>',
        ),
        (
            "smuggling script",
            f"{LETTER}<p>The script was: document.write(unescape(x)), with eval(atob(y)) at its end.</p>",
        ),
        ("smuggling script", f"{LETTER}<pre>&lt;script&gt;URL.createObjectURL(new Blob([x]))&lt;/script&gt;</pre>"),
        ("svg_program", "<svg><title>On load</title><g class='onload'><circle r=4 /></g></svg>" + LETTER),
        ("svg_program", '<svg role="img"><use href="#mark"/><text>script</text></svg>' + LETTER),
        ("refresh", '<meta http-equiv="X-UA-Compatible" content="IE=edge; url=none">' + LETTER),
        ("refresh", '<meta name="refresh" content="0;url=https://b.example/">' + LETTER),
        ("page_in_frame", '<iframe src="about:blank"></iframe>' + LETTER),
        ("page_in_frame", '<img src="data:image/png;base64,iVBORw0KGgo="><object data="cid:plan"></object>' + LETTER),
        ("frame_elsewhere", '<iframe src="https://mail.meadow-farm.com/x"></iframe><embed src="/x.swf">'),
        ("frame_elsewhere", '<iframe src="https://www.example.org/calendar"></iframe>' + LETTER),
        ("base_elsewhere", '<base href="https://b.example/"><p>See the plan for Monday.</p>'),
        ("base_elsewhere", '<base href="https://b.example/"><a href="https://c.example/plan">the plan</a>'),
        ("form_elsewhere", '<input name="q"><a href="https://b.example/">look</a>' + LETTER),
        ("outlook_differs", '<!--[if mso]><a href="https://support.microsoft.com/x">x</a><![endif]-->' + LETTER),
        ("encoded_text", "".join(f"&#{ord(one)};" for one in "Lena Ott, lena@meadow-farm.com, " * 4) + LETTER * 5),
    ],
)
def test_benign_twin(twin_of: str, html: str) -> None:
    assert found(mail(html=html, results=NOTHING), "html") == set(), twin_of


def test_a_proven_sender_may_show_a_picture_of_its_own() -> None:
    page = '<a href="https://meadow-farm.com/x"><img src="https://meadow-farm.com/x.png"></a>'
    assert found(mail(html=page, results=PROVEN), "html") == set()


@pytest.mark.parametrize(
    "html",
    [
        f'{LETTER}<a href="https://shop.example/"><img src="https://shop.example/x.png"></a>'
        '<form action="https://b.example"><input name=q></form>',
        '<a href="https://shop.example/"><img src="https://shop.example/x.png"></a>',
        f"{LETTER}<script>count()</script><iframe src='https://b.example'></iframe>",
        f'<div style="display:none">{WORDS}</div>{LETTER}',
    ],
)  # fmt: skip
def test_what_proven_newsletters_do_stays_clean(html: str) -> None:
    assert verdict(mail(html=html, results=PROVEN)) == "clean"


@pytest.mark.parametrize(
    "html",
    [
        '<form action="https://b.example"><input type="password"></form>',
        '<form action="https://b.example"><input name="cardnumber"></form>',
        '<iframe src="data:text/html;base64,PGZvcm0+"></iframe>',
    ],
)
def test_what_nobody_may_do_counts_for_proven_senders_too(html: str) -> None:
    assert verdict(mail(html=LETTER + html, results=PROVEN)) != "clean"


def test_a_picture_from_a_free_mailbox() -> None:
    page = '<a href="https://tide-tables.net/"><img src="x"></a>'
    free = mail("Lena <lena.ott@gmail.com>", html=page, results=PROVEN)
    assert found(free, "html") == {"html.picture_to_anywhere"}
    assert found(mail(html=page, results=PROVEN), "html") == {"html.image_only"}
    assert found(mail("Lena <lena.ott@gmail.com>", html=LETTER + page, results=PROVEN), "html") == set()


def test_a_list_may_send_a_picture() -> None:
    page = '<a href="https://tide-tables.net/"><img src="x"></a>'
    results = "spf=pass smtp.mailfrom=lists.example.net; dkim=none"
    assert found(mail(html=page, results=results, headers=("List-Id: <tides.lists.example.net>",)), "html") == set()
