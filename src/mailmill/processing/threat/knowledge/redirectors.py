"""Hosts that pass a reader on, and how they name where to. Data only; hosts are matched at their end, at a dot."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Mail gateways that rewrite every link of what passes through them, and tell the target in the link.
GATEWAYS: frozenset[str] = _words("""
    safelinks.protection.outlook.com safelinks.protection.office365.us safelinks.o365.cn statics.teams.cdn.office.net
    urldefense.proofpoint.com urldefense.com urldefense.us protect.checkpoint.com url.avanan.click avanan.click
    linkprotect.cudasvc.com trendmicro.com protection.sophos.com fireeye.com trellix.com clicktime.symantec.com
    clicktime.cloud.postoffice.net secure-web.cisco.com fortimail.com fortimailcloud.com mimecast.com
    mimecastprotect.com linkscan.io barracudanetworks.com slack-redir.net eset.com hornetsecurity.com egress.com
    vadesecure.com antispamcloud.com messagelabs.com mailcontrol.com zixmail.net appriver.com iboss.com
    """)

# Those whose links tell nothing.
OPAQUE_GATEWAYS: frozenset[str] = _words("""
    url.emailprotection.link emailprotection.link mimecast.com mimecastprotect.com hornetsecurity.com
    links.mailprotector.com shared.outlook.inky.com inky.com spamtitan.com redirect.mailanyone.net
    """)

# Parameters that name a target, on any host.
TARGET_PARAMETERS: frozenset[str] = _words("""
    url u link target redirect redirect_uri redirect_url redirecturl redirect_to redirectto redir goto dest destination
    to next continue returnurl return_url return returnto return_to r_url out forward jump location href view a adurl
    ret rurl service lp murl
    """)

# host: (beginnings of the path, parameters). Redirectors that lead to any site, on hosts that people trust.
REDIRECTORS: dict[str, tuple[tuple[str, ...], frozenset[str]]] = {
    "google.com": (("/url", "/local_url", "/imgres", "/aclk", "/pagead", "/travel/clk"), _words("q url adurl imgurl")),
    "googleadservices.com": (("/",), _words("adurl")),
    "googleusercontent.com": (("/url",), _words("q url")),
    "doubleclick.net": (("/",), _words("adurl url dc_adk ds_dest_url r")),
    "youtube.com": (("/redirect", "/attribution_link"), _words("q u")),
    "bing.com": (("/ck/", "/aclick", "/newtabredir", "/search/redirect"), _words("u url")),
    "linkedin.com": (("/redir", "/safety/go", "/slink", "/e/"), _words("url code dest")),
    "facebook.com": (("/l.php", "/flx/warn"), _words("u h")),
    "instagram.com": (("/",), _words("u")),
    "messenger.com": (("/l.php",), _words("u")),
    "t.umblr.com": (("/redirect",), _words("z")),
    "vk.com": (("/away.php",), _words("to")),
    "yandex.ru": (("/",), _words("url")),
    "yandex.com": (("/",), _words("url")),
    "baidu.com": (("/link", "/"), _words("url")),
    "duckduckgo.com": (("/l/",), _words("uddg")),
    "yahoo.com": (("/",), _words("ru url u")),
    "steamcommunity.com": (("/linkfilter",), _words("url u")),
    "reddit.com": (("/",), _words("url")),
    "medium.com": (("/r/", "/m/"), _words("url redirecturl")),
    "mailto.live.com": (("/",), _words("url")),
    "adnxs.com": (("/",), _words("clickenc url")),
    "web.archive.org": (("/web/", "/save/"), _words("")),
    "href.li": (("/",), _words("")),
    "getpocket.com": (("/redirect",), _words("url")),
    "flipboard.com": (("/redirect",), _words("url")),
    "quora.com": (("/link",), _words("url")),
    "disq.us": (("/url",), _words("url")),
    "weibo.com": (("/",), _words("url u")),
    "zhihu.com": (("/",), _words("target")),
    "pinterest.com": (("/offsite",), _words("url")),
    "microsoft.com": (("/",), _words("url")),
    "trello.com": (("/safety",), _words("url")),
}

# Click counters of mailing services that tell the target in the path: it stands where it stands for everybody's mail.
MAIL_TRACKERS: frozenset[str] = _words("awstrack.me pstmrk.it mjt.lu")

AMP_HOSTS: frozenset[str] = _words("""
    google.com ampproject.org""")

TRANSLATED: frozenset[str] = _words("translate.goog")
