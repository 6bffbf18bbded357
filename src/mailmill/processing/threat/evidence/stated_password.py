"""The password that a message says of a file it carries: a lock that keeps out only those who would check it. Pure."""

from __future__ import annotations

import re
from typing import Final

MAX_TEXT_CHARS: Final = 20_000

# "password: x7Kp", "das Passwort lautet x7Kp": the word, and what may be one behind a colon or a verb.
_STATED_PASSWORD = re.compile(
    r"\b(?:pass(?:word|code|phrase|wort)|kennwort|zugangscode|mot de passe|contrase[nñ]a|clave|senha|parola(?: chiave)?"
    r"|wachtwoord|has[lł]o|l[oö]senord|adgangskode|пароль|pwd|p/w|パスワード|密码)"
    r"(?:\s{1,5}(?:for|to|f[uü]r|zum|zur|de|del|do|per|pour|il|voor)(?:\s{1,3}[\w'.-]{1,30}){1,4}?)?"
    r"\s{0,5}(?:[:=：]|\b(?:is|lautet|ist|est|es|è|é|jest)\b\s{0,3}:?)\s{0,10}[\"'“”‘’«`<\[(]{0,2}([^\s\"'“”’»`<>]{3,40})",
    re.IGNORECASE,
)
_OTHER_WORDS = """
    your the sent sending same not now needed required provided protected available below attached a an in by on to ihre
    ihr das der die wird separat votre la le les su tu el sua seu il given communicated shared valid http https case
    changed reset expired being still also unchanged known telefonisch mündlich bekannt communiqué transmis envoyé
    enviada enviado comunicada comunicata inviata
    """
_NO_PASSWORD = frozenset(_OTHER_WORDS.split())


def stated_password(subject: str, text: str) -> str:
    """The password that a message says, or ""; "your date of birth" is none. Of the text the first
    ``MAX_TEXT_CHARS`` are read."""
    for match in _STATED_PASSWORD.finditer(f"{subject}\n{text[:MAX_TEXT_CHARS]}"):
        word = match.group(1).strip(".,;:!?)]}*_")
        if len(word) >= 3 and word.lower() not in _NO_PASSWORD and not word.lower().startswith(("http", "www.")):
            return word
    return ""
