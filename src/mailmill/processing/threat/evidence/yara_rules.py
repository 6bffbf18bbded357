"""The user's YARA rules: compiled once, run over the pieces of a message within limits of time and size.

yara_x is imported when there are rules, and not before: it takes some 15 MB. It gives up the interpreter's lock while
it scans. Its compilers and scanners belong to one thread each (to use or to free one in another is an error), so every
scan has its own; rules are shared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from mailmill.errors import ConfigurationError
from mailmill.model import Severity
from mailmill.processing.threat.options import YaraSource
from mailmill.processing.threat.scoring import Weight

if TYPE_CHECKING:
    import yara_x

PIECE_SECONDS: Final = 1
MESSAGE_SECONDS: Final = 1.0
MAX_BYTES: Final = 256 << 20
MAX_PIECES: Final = 200
MAX_MATCHES_PER_PATTERN: Final = 1_000
MAX_MATCHING_RULES: Final = 50
MAX_WORDS_CHARS: Final = 300

_DEFAULT_POINTS: Final = 40.0
_SHOWN_ERRORS: Final = 10


@dataclass(frozen=True, slots=True)
class Piece:
    """What a scan looks at. ``part`` is ``message``, ``text`` or ``attachment``; ``filename`` an attachment's."""

    part: str
    filename: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Match:
    """A rule, the piece it matched first, and the first pattern that did ("" where the rule has none)."""

    rule: str
    piece: Piece
    pattern: str


@dataclass(frozen=True, slots=True)
class Scanned:
    """``unfinished`` says why some of it was not scanned; "" if all was."""

    matches: tuple[Match, ...]
    unfinished: str = ""


class YaraRules:
    """Compiled rules. ``weights`` has what each says of itself in its metadata, by rule name.

    Raises ConfigurationError naming file and line of each rule that does not compile.
    """

    def __init__(self, sources: Sequence[YaraSource]) -> None:
        self._rules, errors = _compiled(sources)
        if errors:
            raise _refused(errors)
        self.weights = {rule.identifier: _weight(rule.identifier, rule.metadata) for rule in self._rules}

    def scan(self, pieces: Iterable[Piece]) -> Scanned:
        """The rules that match any of the pieces, each once. Never raises for what is in them."""
        import yara_x

        found: dict[str, Match] = {}
        unfinished = ""
        left_bytes = MAX_BYTES
        began = monotonic()
        scanner: Any = None
        for number, piece in enumerate(pieces):
            if number >= MAX_PIECES or left_bytes <= 0 or monotonic() - began > MESSAGE_SECONDS:
                return Scanned(tuple(found.values()), unfinished or f"stopped before part {number + 1}")
            content = piece.content[:left_bytes]
            left_bytes -= len(content)
            if len(content) < len(piece.content):
                unfinished = unfinished or f"{_named(piece)} is larger than what is scanned"
            if scanner is None:
                scanner = self._scanner()
            try:
                scanner.set_global("part", piece.part)
                scanner.set_global("filename", piece.filename)
                matching = scanner.scan(content).matching_rules
            except yara_x.TimeoutError:
                unfinished = unfinished or f"{_named(piece)} took too long"
                continue
            except BaseException as error:
                # A panic in Rust is no Exception; what else is none (Ctrl-C) is not ours.
                if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                    raise
                unfinished = unfinished or f"{_named(piece)} could not be scanned ({type(error).__name__})"
                scanner = None
                continue
            for rule in matching:
                if rule.identifier not in found and len(found) < MAX_MATCHING_RULES:
                    found[rule.identifier] = Match(rule.identifier, piece, _first_pattern(rule))
        return Scanned(tuple(found.values()), unfinished)

    def _scanner(self) -> yara_x.Scanner:
        import yara_x

        scanner = yara_x.Scanner(self._rules)
        scanner.set_timeout(PIECE_SECONDS)
        scanner.max_matches_per_pattern(MAX_MATCHES_PER_PATTERN)
        return scanner


def _compiled(sources: Sequence[YaraSource]) -> tuple[yara_x.Rules, Sequence[Any]]:
    """(what compiles, the errors of what does not). Raises nothing: the traceback would keep the compiler, and that
    must not be freed by another thread than the one that made it."""
    import yara_x

    compiler = yara_x.Compiler(includes_enabled=False)
    compiler.define_global("part", "")
    compiler.define_global("filename", "")
    for source in sources:
        # One namespace for each file: two of them may use the same name.
        compiler.new_namespace(source.name)
        with suppress(yara_x.CompileError):  # it is among the errors
            compiler.add_source(source.text, origin=source.name)
    errors = compiler.errors()
    return (compiler.build(), errors)


def _first_pattern(rule: yara_x.Rule) -> str:
    return next((pattern.identifier for pattern in rule.patterns if pattern.matches), "")


def _named(piece: Piece) -> str:
    return f"the attachment {piece.filename!r}" if piece.part == "attachment" else f"the {piece.part}"


def _weight(name: str, metadata: Iterable[tuple[str, Any]]) -> Weight:
    """Rules of others use these names for other scales too, so what makes no sense counts as not said."""
    said = dict(metadata)
    points = _DEFAULT_POINTS
    match said.get("score"):
        case int() | float() as score if not isinstance(score, bool) and 0 <= score <= 100:
            points = float(score)
    severity = str(said.get("severity", "")).lower()
    words = " ".join(str(said.get("description", "")).split())[:MAX_WORDS_CHARS]
    return Weight(
        points=points,
        severity=Severity(severity) if severity in Severity.__members__.values() else _severity_of(points),
        words=words or f"Your own rule {name} speaks against it.",
        conclusive=said.get("conclusive") is True,
    )


def _severity_of(points: float) -> Severity:
    if points <= 0:
        return Severity.INFO
    if points < 20:
        return Severity.LOW
    return Severity.MEDIUM if points < 40 else Severity.HIGH


def _refused(errors: Sequence[Any]) -> ConfigurationError:
    problems = tuple(_problems(errors))
    shown = list(problems[:_SHOWN_ERRORS])
    if len(problems) > _SHOWN_ERRORS:
        shown.append(f"and {len(problems) - _SHOWN_ERRORS} more")
    return ConfigurationError(
        "\n".join(shown),
        hint="correct the rule, or take its file out of threat.yara_rules; 'include' is not supported",
        key="threat.yara_rules",
        problems=tuple(shown),
    )


def _problems(errors: Sequence[Any]) -> Iterator[str]:
    for error in errors:
        labels = error.get("labels") or [{}]
        origin = labels[0].get("code_origin") or "a YARA rule"
        detail = labels[0].get("text", "")
        line = error.get("line") or labels[0].get("line") or "?"
        yield f"{origin}: line {line}: {error.get('title', 'does not compile')}" + (f" ({detail})" if detail else "")
