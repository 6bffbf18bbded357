"""Short lists that detectors look things up in: mail services, suffixes, file types. Data only."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Mailboxes anybody gets for nothing, by organisational domain.
FREE_MAIL: frozenset[str] = _words("""
    gmail.com googlemail.com outlook.com hotmail.com live.com msn.com yahoo.com ymail.com rocketmail.com aol.com aim.com
    icloud.com me.com mac.com gmx.com gmx.de gmx.net gmx.at gmx.ch web.de mail.com email.com usa.com proton.me
    protonmail.com pm.me tutanota.com tuta.io tutamail.com zoho.com zohomail.com yandex.com yandex.ru ya.ru mail.ru
    bk.ru inbox.ru list.ru rambler.ru qq.com 163.com 126.com yeah.net sina.com sina.cn foxmail.com aliyun.com naver.com
    daum.net hanmail.net libero.it virgilio.it tiscali.it alice.it hotmail.fr hotmail.it hotmail.es hotmail.co.uk
    hotmail.de outlook.fr outlook.de outlook.es outlook.it outlook.pt outlook.jp outlook.com.br live.co.uk live.fr
    live.nl yahoo.co.uk yahoo.fr yahoo.de yahoo.it yahoo.es yahoo.co.jp yahoo.co.in yahoo.com.br yahoo.in yahoo.ca
    orange.fr wanadoo.fr laposte.net free.fr sfr.fr t-online.de freenet.de uol.com.br bol.com.br terra.com.br ig.com.br
    rediffmail.com seznam.cz centrum.cz wp.pl o2.pl onet.pl interia.pl op.pl fastmail.com hushmail.com inbox.lv mail.ee
    consultant.com accountant.com europe.com post.com engineer.com lawyer.com representative.com financier.com asia.com
    myself.com dr.com """)

# Suffixes where abuse far outweighs use. A weak hint, never more.
RISKY_SUFFIXES: frozenset[str] = _words("""
    top xyz icu click buzz cyou cfd sbs rest bond beauty monster quest hair skin makeup lol mom boats autos homes yachts
    motorcycles bid win loan date men stream download racing review party trade webcam science faith accountant cricket
    gdn work tk ml ga cf gq su surf fit best uno zip mov country kim live life online
    site website space fun host cam
    """)

# Extensions that run when opened, by what they are.
EXECUTABLE_EXTENSIONS: frozenset[str] = _words(
    "exe scr com pif msi msix msp cpl bat cmd ps1 psm1 vbs vbe js jse wsf wsh wsc hta jar apk dll sys reg gadget inf"
    " scf ade adp application appref-ms chm hlp msc sct xll wll ppam xlam lnk url desktop library-ms search-ms"
    " settingcontent-ms diagcab dmg pkg app command elf run deb rpm appimage iqy slk"
)
SHORTCUT_EXTENSIONS: frozenset[str] = _words("lnk url desktop scf library-ms search-ms settingcontent-ms")
# Harmless in mail between developers as text, and still named by what they are: these run only by intent.
SCRIPT_EXTENSIONS: frozenset[str] = _words("bat cmd ps1 psm1 vbs vbe js jse wsf wsh wsc hta sct reg inf run")
MACRO_EXTENSIONS: frozenset[str] = _words("docm dotm xlsm xltm xlsb xlam pptm potm ppsm ppam sldm")
DISK_IMAGE_EXTENSIONS: frozenset[str] = _words("iso img vhd vhdx udf daa")
ARCHIVE_EXTENSIONS: frozenset[str] = _words("zip rar 7z tar gz tgz bz2 xz cab ace arj lzh z zipx jar")
HTML_EXTENSIONS: frozenset[str] = _words("html htm shtml xhtml xht mht mhtml shtm")
NOTE_EXTENSIONS: frozenset[str] = _words("one onepkg")
DOCUMENT_EXTENSIONS: frozenset[str] = _words(
    "pdf doc docx xls xlsx ppt pptx rtf odt ods odp txt csv jpg jpeg png gif bmp tif tiff mp3 mp4 wav avi htm html eml"
)
