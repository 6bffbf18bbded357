"""``[threat]`` turned into the values the threat engine takes; reads the files that it names. Blocking.

What the files hold is checked by whoever builds the engine of it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from mailmill.errors import ConfigurationError
from mailmill.processing.threat.options import OwnWords, ThreatOptions, YaraSource
from mailmill.settings import OwnWordsSettings, Settings

YARA_SUFFIXES: Final = (".yar", ".yara")
MAX_SCORING_BYTES: Final = 1 << 20
MAX_LIST_BYTES: Final = 8 << 20
MAX_RULES_BYTES: Final = 64 << 20
"""Of all YARA rules together."""


def threat_options(settings: Settings) -> ThreatOptions:
    """The options as configured. Raises ConfigurationError naming the key and the file that cannot be read."""
    threat = settings.threat
    scoring = ""
    if threat.scoring_file is not None:
        scoring = _read(threat.scoring_file, "threat.scoring_file", MAX_SCORING_BYTES)
    return ThreatOptions(
        scoring=scoring,
        scoring_file=str(threat.scoring_file or ""),
        yara=tuple(_yara_sources(threat.yara_rules)),
        everybody=_own_words(threat, "threat"),
        accounts=tuple(
            (name, _own_words(account.threat, f"accounts.{name}.threat"))
            for name, account in settings.accounts.items()
            if account.threat.model_fields_set
        ),
        inspect_files=threat.inspect_files,
        verify_dkim=threat.verify_dkim,
    )


def try_threat_rules(settings: Settings) -> str:
    """Read and compile all of it; what there is, in words ("" for nothing). Raises ConfigurationError as the service
    would at its start."""
    from mailmill.processing.threat.engine import ThreatEngine

    options = threat_options(settings)
    engine = ThreatEngine(options)
    engine.close()
    everybody = options.everybody
    allow, block = len(everybody.allow), len(everybody.block)
    counted = (
        ("scoring table", options.scoring_file),
        (f"YARA rules: {engine.yara_rules}", engine.yara_rules),
        (f"allowed: {allow}", allow),
        (f"blocked: {block}", block),
        (f"detectors of installed packages: {engine.own_detectors}", engine.own_detectors),
    )
    return ", ".join(words for words, there in counted if there)


def _own_words(words: OwnWordsSettings, key: str) -> OwnWords:
    return OwnWords(
        people=words.persons,
        domains=words.domains,
        allow=(*words.allow, *_listed(words.allow_files, f"{key}.allow_files")),
        block=(*words.block, *_listed(words.block_files, f"{key}.block_files")),
    )


def _listed(files: Iterable[Path], key: str) -> Iterator[str]:
    """One entry a line; what follows ``#`` is a remark."""
    for file in files:
        for line in _read(file, key, MAX_LIST_BYTES).splitlines():
            entry = line.partition("#")[0].strip()
            if entry:
                yield entry


def _yara_sources(paths: Iterable[Path]) -> Iterator[YaraSource]:
    key = "threat.yara_rules"
    left_bytes = MAX_RULES_BYTES
    for path in paths:
        for file in _rule_files(path, key):
            text = _read(file, key, left_bytes)
            left_bytes -= len(text)
            yield YaraSource(str(file), text)


def _rule_files(path: Path, key: str) -> list[Path]:
    try:
        if not path.is_dir():
            return [path]
        files = sorted(file for file in path.rglob("*") if file.suffix in YARA_SUFFIXES and file.is_file())
    except OSError as error:
        raise _unusable(key, path, f"cannot be read: {error.strerror or error}") from None
    if not files:
        raise _unusable(key, path, f"holds no file that ends in {' or '.join(YARA_SUFFIXES)}")
    return files


def _read(file: Path, key: str, most_bytes: int) -> str:
    try:
        # Opening a FIFO for reading waits for its writer, unless it is opened like this.
        with os.fdopen(os.open(file, os.O_RDONLY | os.O_NONBLOCK), "rb") as opened:
            if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
                raise _unusable(key, file, "is no regular file")
            content = opened.read(most_bytes + 1)
    except OSError as error:
        raise _unusable(key, file, f"cannot be read: {error.strerror or error}") from None
    if len(content) > most_bytes:
        raise _unusable(key, file, f"is larger than {most_bytes} bytes")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise _unusable(key, file, f"is not UTF-8 text (line {line})") from None


def _unusable(key: str, file: Path, problem: str) -> ConfigurationError:
    return ConfigurationError(
        f"'{key}': {file} {problem}", hint="name files that the user that runs mailmill can read", key=key
    )
