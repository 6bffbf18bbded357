"""Letters that are used against Latin names, by the Latin letter they pass for. Data only.

Our own short table, made by eye; it is no copy of UTS #39's confusables. Letters whose decomposition is a Latin letter
and an accent (ạ, é) need no entry: accents are taken off.
"""

from __future__ import annotations

_PASS_FOR = {
    "a": "аɑαᴀꭺ",
    "b": "вƅβɓƀьß",
    "c": "сϲᴄƈ",
    "d": "ԁđɗɖժꮷ",
    "e": "еёєεɛҽᴇəǝꬲ",
    "f": "ƒꬵϝք",
    "g": "ɡցɢǥɠᶃ",
    "h": "һհħнʜɦ",
    "i": "іїıɩιɪɨ",
    "j": "јϳʝȷյ",
    "k": "кκƙᴋқ",
    "l": "ӏłʟɭⅼɫǀ",
    "m": "мᴍɱʍ",
    "n": "пηոɴŋɲռ",
    "o": "оοσօøᴏɵ",
    "p": "рρƿᴘþ",
    "q": "ԛզɋ",
    "r": "гʀᴦɍɽꭇ",
    "s": "ѕꜱʂƽꮪ",
    "t": "тτᴛŧƭ",
    "u": "цυսʋᴜμʉ",
    "v": "ѵνᴠ",
    "w": "ԝωᴡɯшщ",
    "x": "хχⅹ",
    "y": "уүγʏყƴ",
    "z": "ᴢʐƶ",
    "3": "зӡȝ",
    "6": "б",
}  # fmt: skip

_CAPITALS_PASS_FOR = {
    "a": "АΑᎪ", "b": "ВΒ", "c": "СϹᏟ", "e": "ЕΕᎬ", "h": "НΗ", "i": "ІΙ", "j": "Ј", "k": "КΚ", "m": "МΜ", "n": "Ν",
    "o": "ОΟ", "p": "РΡ", "s": "Ѕ", "t": "ТΤᎢ", "x": "ХΧ", "y": "УΥҮ", "z": "Ζ",
}  # fmt: skip

LOOKS_LIKE: dict[str, str] = {letter: plain for plain, letters in _PASS_FOR.items() for letter in letters}
CAPITALS: dict[str, str] = {letter: plain for plain, letters in _CAPITALS_PASS_FOR.items() for letter in letters}

# Those that nobody tells from the Latin letter: a whole word of them is a disguise ("аррӏе"), while a word in which
# only most letters are like Latin ones is a word of its language ("портос").
TWINS: frozenset[str] = frozenset("асԁеһіїјӏорԛѕѵԝхуүοϲϳνρυօսհցզ")

DIGITS: dict[str, str] = {
    "0": "o", "1": "l", "2": "z", "3": "e", "4": "a", "5": "s", "7": "t", "8": "b", "9": "g", "!": "i", "|": "l",
    "$": "s",
}  # fmt: skip

PAIRS: tuple[tuple[str, str], ...] = (("rn", "m"), ("vv", "w"), ("cl", "d"))
