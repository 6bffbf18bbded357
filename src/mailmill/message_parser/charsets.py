"""Charset labels → codecs, and the text of bytes whose label is missing or a lie.

The labels are those of the WHATWG Encoding Standard where it has them: a label names what senders mean, not what the
registry says (``gb2312`` is gb18030, ``iso-8859-1`` is windows-1252, ``ks_c_5601-1987`` is cp949). A label that is not
in the table is unknown: Python's own look-up is never asked, for it knows codecs that are quadratic (``idna``,
``punycode``), and remembers for ever every name it did not find.
"""

from __future__ import annotations

import re
from typing import Final

_LABELS: Final[dict[str, str]] = {
    # codec: labels, each lower case and without '-', '_', ' ' and ':'
    "utf-8": "utf8 unicode11utf8 unicode20utf8 xunicode20utf8 cp65001 utf8mb4 utf",
    "cp1252": "latin1 latin l1 iso88591 iso885911987 iso88591windows31latin1 isoir100 csisolatin1 windows1252 cp1252 "
    "xcp1252 win1252 ansi1252 iso8859 8859 88591 ibm819 cp819",
    "cp1250": "windows1250 cp1250 xcp1250 win1250",
    "cp1251": "windows1251 cp1251 xcp1251 win1251 ansi1251 1251",
    "cp1253": "windows1253 cp1253 xcp1253 win1253",
    "cp1254": "windows1254 cp1254 xcp1254 win1254 iso88599 latin5 l5 isoir148 csisolatin5 88599",
    "cp1255": "windows1255 cp1255 xcp1255 win1255",
    "cp1256": "windows1256 cp1256 xcp1256 win1256",
    "cp1257": "windows1257 cp1257 xcp1257 win1257",
    "cp1258": "windows1258 cp1258 xcp1258 win1258",
    "iso8859-2": "iso88592 latin2 l2 isoir101 csisolatin2 88592",
    "iso8859-3": "iso88593 latin3 l3 isoir109 csisolatin3",
    "iso8859-4": "iso88594 latin4 l4 isoir110 csisolatin4",
    "iso8859-5": "iso88595 cyrillic isoir144 csisolatincyrillic",
    "iso8859-6": "iso88596 iso88596e iso88596i arabic asmo708 ecma114 isoir127",
    "iso8859-7": "iso88597 greek greek8 ecma118 elot928 isoir126 suneugreek",
    "iso8859-8": "iso88598 iso88598e iso88598i logical visual hebrew isoir138",
    "iso8859-10": "iso885910 latin6 l6 isoir157",
    "cp874": "windows874 cp874 dos874 tis620 iso885911 tis6202533 thai",
    "iso8859-13": "iso885913 latin7",
    "iso8859-14": "iso885914 latin8",
    "iso8859-15": "iso885915 latin9 l9 csisolatin9",
    "iso8859-16": "iso885916 latin10",
    "koi8-r": "koi8r koi8 koi cskoi8r",
    "koi8-u": "koi8u koi8ru",
    "mac-roman": "macintosh mac xmacroman macroman csmacintosh",
    "mac-cyrillic": "xmaccyrillic xmacukrainian maccyrillic",
    "gb18030": "gb18030 gbk gb2312 gb231280 chinese xgbk cp936 ms936 windows936 936 csgb2312 "
    "isoir58 euccn csiso58gb231280",
    "hz": "hzgb2312 hz",
    "big5hkscs": "big5 big5hkscs cnbig5 csbig5 xxbig5 cp950 950 big5eten",
    "cp949": "ksc5601 ksc56011987 ksc56011989 ks5601 euckr cseuckr korean cp949 949 windows949 ms949 uhc isoir149",
    "iso2022_kr": "iso2022kr csiso2022kr",
    "johab": "johab cp1361",
    "cp932": "shiftjis sjis shiftjisx0213 xsjis mskanji windows31j csshiftjis ms932 cp932 932",
    "euc_jp": "eucjp xeucjp ujis cseucpkdfmtjapanese",
    "iso2022_jp_ext": "iso2022jp iso2022jp1 iso2022jp2 iso2022jp3 iso2022jpms csiso2022jp cp50220 cp50221 jis",
    "utf-16": "utf16 utf16le unicode ucs2 iso10646ucs2 csunicode unicodefeff",
    "utf-16-be": "utf16be unicodefffe",
    "utf-32": "utf32 ucs4 utf32le",
    "utf-32-be": "utf32be",
    "utf-7": "utf7 unicode11utf7 xunicode20utf7 csunicode11utf7",
    "cp437": "cp437 ibm437 437",
    "cp850": "cp850 ibm850 850",
    "cp852": "cp852 ibm852 852",
    "cp858": "cp858 ibm858 ibm00858 cp00858",
    "cp862": "cp862 ibm862 dos862",
    "cp866": "cp866 ibm866 866 csibm866",
    "hp-roman8": "hproman8 roman8 r8",
}
_CODECS: Final[dict[str, str]] = {label: codec for codec, labels in _LABELS.items() for label in labels.split()}
_SIBLINGS: Final = {"iso2022_jp_ext": ("euc_jp", "cp932"), "cp932": ("euc_jp",), "euc_jp": ("cp932",)}
"""Charsets that are declared for one another."""

_GUESSES: Final = [
    *("cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp874", "koi8_r"),
    *("gb18030", "big5", "cp949", "cp932", "euc_jp"),
]
"""What undeclared 8-bit mail may be: charset-normalizer, left alone, finds UTF-16 and Johab in mangled UTF-8."""

_ASCII: Final = bytes(range(128))
_SQUEEZE: Final = str.maketrans("", "", "-_ :\t'\"")
_UNCLEAN: Final = re.compile("[\x00\ud800-\udfff]")

DETECTION_BYTES: Final = 8 << 10
"""How much of a body charset-normalizer is shown: it weighs every codec it knows over it."""


def codec_of(label: str) -> str | None:
    """The codec a charset label means, or None where it is unknown, or means no more than "some 8-bit"."""
    if len(label) > 60:
        return None
    return _CODECS.get(label.lower().translate(_SQUEEZE))


def clean(text: str) -> str:
    """``text`` without NUL and with U+FFFD for each lone surrogate."""
    if text.isascii():
        return text.replace("\0", "") if "\0" in text else text
    if _UNCLEAN.search(text) is None:
        return text
    return _UNCLEAN.sub(lambda found: "" if found[0] == "\0" else "\ufffd", text)


def decode_header(data: bytes, label: str) -> str:
    """The text of bytes from a header: as declared, else UTF-8, else windows-1252. May hold what ``clean`` removes."""
    codec = codec_of(label)
    if codec is not None:
        try:
            return data.decode(codec)
        except UnicodeError:
            pass
    try:
        return data.decode("utf-8")
    except UnicodeError:
        return data.decode(codec or "cp1252", "replace")


def decode_body(data: bytes, label: str, *, detect: bool = True) -> tuple[str, str | None]:
    """The clean text of a body, and what was odd about its charset in words, or None.

    As declared; else UTF-8; else as declared with a few bytes replaced (a mangled character is not a wrong charset);
    else, with ``detect``, what charset-normalizer finds (it takes milliseconds); else windows-1252.
    """
    codec = codec_of(label)
    if codec is not None:
        try:
            return clean(data.decode(codec).removeprefix("\ufeff")), None
        except UnicodeError:
            pass
    try:
        text = data.decode("utf-8-sig" if data.startswith(b"\xef\xbb\xbf") else "utf-8")
    except UnicodeError:
        pass
    else:
        odd = f"text is UTF-8, not {_shown(label)} as declared" if codec is not None else None
        return clean(text), odd
    if codec is not None:
        text = data.decode(codec, "replace")
        if text.count("\ufffd") * 50 <= len(text):
            return clean(text), f"some bytes are not {_shown(label)}"
    found = next((sibling for sibling in _SIBLINGS.get(codec or "", ()) if _fits(data, sibling)), None)
    if found is None and detect:
        found = _detect(data)
    found = found or "cp1252"
    return clean(data.decode(found, "replace")), f"charset {_shown(label) or 'not declared'}: read as {found}"


def _fits(data: bytes, codec: str) -> bool:
    try:
        data.decode(codec)
    except UnicodeError:
        return False
    return True


def _detect(data: bytes) -> str | None:
    """What charset-normalizer makes of the 8-bit lines of ``data``; None where it has no opinion."""
    sample = data[: DETECTION_BYTES * 8]
    # A few quotes and accents in mostly ASCII text are windows-1252; the detector would as soon say windows-1250.
    if len(sample.translate(None, _ASCII)) * 25 < len(sample):
        return "cp1252"
    # Loaded when the first mail needs it: its tables take three megabytes, and most mail says what it is.
    from charset_normalizer import from_bytes

    lines = [line for line in sample.split(b"\n") if not line.isascii()]
    try:
        best = from_bytes(b"\n".join(lines)[:DETECTION_BYTES], steps=3, chunk_size=256, cp_isolation=_GUESSES).best()
    except (UnicodeError, LookupError, ValueError):
        return None
    return codec_of(best.encoding) if best is not None else None


def _shown(label: str) -> str:
    return "".join(char for char in label[:40] if char.isalnum() or char in "-_.:")
