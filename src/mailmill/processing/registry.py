"""What a processor is, and how the service finds those of the user.

A processor is a plain function of a message and its context that returns something JSON can say::

    from mailmill import processor

    @processor("invoice", version=1, timeout_seconds=30)
    async def invoice(message, context): ...

``async def`` runs on the loop, ``def`` in a thread, ``process=True`` in a child process. It may run again over the same
message (a crash, a retry): what it does to the outside should bear that. To say that trying again is of no use it
raises ``ProcessorError("…", permanent=True)`` (:mod:`mailmill.errors`).
"""

from __future__ import annotations

import importlib
import inspect
import pickle
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata
from types import ModuleType
from typing import Any, Final, Literal, TypeAlias, TypeVar

from mailmill.errors import ConfigurationError
from mailmill.model import NO_HISTORY, SenderHistory

JsonValue: TypeAlias = "bool | int | float | str | Sequence[JsonValue] | dict[str, JsonValue] | None"
Kind = Literal["async", "thread", "process"]
Announce = Callable[[Any], tuple[str, ...]]
Function = TypeVar("Function", bound=Callable[..., Any])

MIN_MEMORY_BYTES: Final = 16 << 20

ENTRY_POINTS: Final = "mailmill.processors"
ATTRIBUTE: Final = "mailmill_processor"

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,79}")


@dataclass(frozen=True, slots=True)
class Processor:
    """A function and how to run it.

    ``concurrency`` bounds how many messages one node gives it at a time, ``account_concurrency`` how many of one
    account all nodes together, ``rate_per_minute`` how many runs begin on one node; None: no such bound.
    ``max_attempts`` counts the first run. ``memory_bytes``: what a run in a child process may allocate (kind "process"
    alone). ``announce`` names the events to raise for a value (``threatFound``); it runs on the loop and must be quick.
    ``keep_raw``: it looks at ``ParsedMessage.raw``, which is empty otherwise. ``wants_history``: its context says what
    the account knew of the sender, which takes some questions to the store.
    """

    name: str
    version: int
    function: Callable[..., Any]
    kind: Kind
    timeout_seconds: float = 60
    concurrency: int = 8
    max_attempts: int = 5
    announce: Announce | None = None
    account_concurrency: int | None = None
    rate_per_minute: float | None = None
    memory_bytes: int | None = None
    keep_raw: bool = False
    wants_history: bool = False


@dataclass(frozen=True, slots=True)
class Context:
    """What a processor may want to know beside the message.

    ``paths`` are the mailboxes it is in now; ``authserv_id`` names the host whose Authentication-Results are trusted
    (None: not known); ``attempt`` is 1 on the first run; ``historical``: it was there before the account was added.
    ``history`` is what the account knew of the sender, for processors with ``wants_history``.
    """

    account: str
    account_email: str
    message_id: int
    paths: tuple[str, ...]
    authserv_id: str | None
    attempt: int
    historical: bool
    history: SenderHistory = NO_HISTORY


def processor(
    name: str,
    *,
    version: int = 1,
    timeout_seconds: float = 60,
    concurrency: int = 8,
    max_attempts: int = 5,
    account_concurrency: int | None = None,
    rate_per_minute: float | None = None,
    process: bool = False,
    memory_bytes: int | None = None,
    keep_raw: bool = False,
    wants_history: bool = False,
    announce: Announce | None = None,
) -> Callable[[Function], Function]:
    """Declare the function below a processor. It stays a plain function, to be called and tested as such.

    Results are kept per message, ``name`` and ``version``: raise the version when old results should be made again.
    For the limits see :class:`Processor`; the configuration can set others (``[processors.NAME]``).
    Raises ConfigurationError where a value makes no sense.
    """

    def declare(function: Function) -> Function:
        kind: Kind = "process" if process else "async" if inspect.iscoroutinefunction(function) else "thread"
        declared = Processor(
            name=name,
            version=version,
            function=function,
            kind=kind,
            timeout_seconds=timeout_seconds,
            concurrency=concurrency,
            max_attempts=max_attempts,
            announce=announce,
            account_concurrency=account_concurrency,
            rate_per_minute=rate_per_minute,
            memory_bytes=memory_bytes,
            keep_raw=keep_raw,
            wants_history=wants_history,
        )
        check(declared)
        function.__dict__[ATTRIBUTE] = declared
        return function

    return declare


def load(specs: Sequence[str], *, entry_points: bool = True) -> list[Processor]:
    """The processors that ``specs`` name, in order, then those that installed packages offer.

    A spec is ``package.module:function``, or ``package.module`` for all that the module declares. The same function
    named twice counts once; two functions of one name are refused. Raises ConfigurationError naming spec and reason.
    """
    found: dict[str, tuple[Processor, str]] = {}
    for spec in specs:
        _add(found, _from_spec(spec), f"{spec!r}")
    if entry_points:
        for point in sorted(metadata.entry_points(group=ENTRY_POINTS), key=lambda point: (point.name, point.value)):
            _add(found, _from_spec(point.value), f"the entry point {point.name!r} ({point.value})")
    return [declared for declared, _ in found.values()]


def _add(found: dict[str, tuple[Processor, str]], declared: Iterable[Processor], origin: str) -> None:
    for one in declared:
        known, known_origin = found.setdefault(one.name, (one, origin))
        if known.function is not one.function:
            raise ConfigurationError(
                f"two processors are called {one.name!r}: {_where(known)} (from {known_origin}) "
                f"and {_where(one)} (from {origin})",
                hint="give one of them another name",
                key="processors",
            )


def _from_spec(spec: str) -> list[Processor]:
    module_name, colon, attribute = spec.partition(":")
    if not module_name or (colon and not attribute) or spec != spec.strip():
        raise ConfigurationError(
            f"{spec!r} does not name a processor", hint="write package.module:function", key="processors"
        )
    module = _import(module_name, spec)
    declared = _named(module, attribute, spec) if colon else _all_of(module, spec)
    for one in declared:
        if one.kind == "process" and not can_be_imported(one.function):
            raise ConfigurationError(
                f"the processor {one.name!r} of {spec!r} cannot run in a child process, which imports it by name: "
                f"{_where(one)} leads elsewhere",
                hint="define it at the top level of a module that can be imported",
                key="processors",
            )
    return declared


def _import(module_name: str, spec: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except ConfigurationError as error:
        raise ConfigurationError(f"the processor {spec!r}: {error}", hint=error.hint, key="processors") from error
    except Exception as error:
        raise ConfigurationError(
            f"the processor {spec!r} cannot be imported: {type(error).__name__}: {error}",
            hint="the module must be installed, or lie in a folder on PYTHONPATH",
            key="processors",
        ) from error


def _named(module: ModuleType, attribute: str, spec: str) -> list[Processor]:
    target: Any = module
    for part in attribute.split("."):
        target = getattr(target, part, None)
    declared = getattr(target, ATTRIBUTE, None)
    if isinstance(declared, Processor):
        return [declared]
    if target is None:
        raise ConfigurationError(
            f"the processor {spec!r} is not there: {module.__name__} has no {attribute!r}", key="processors"
        )
    raise ConfigurationError(
        f"{spec!r} is not a processor", hint='put @processor("name") above the function', key="processors"
    )


def _all_of(module: ModuleType, spec: str) -> list[Processor]:
    declared = [getattr(value, ATTRIBUTE, None) for value in vars(module).values() if callable(value)]
    # What a module imports from another is declared there, not here.
    found = [one for one in declared if isinstance(one, Processor) and one.function.__module__ == module.__name__]
    if not found:
        raise ConfigurationError(
            f"{spec!r} declares no processor", hint='put @processor("name") above a function', key="processors"
        )
    return list(dict.fromkeys(found))


def can_be_imported(function: Callable[..., Any]) -> bool:
    """Whether another process can have the same: a function by its module and name, an object that can be called by its
    class and its values."""
    if not hasattr(function, "__qualname__"):
        return can_be_imported(type(function)) and _can_be_sent(function)
    if function.__module__ == "__main__":
        return False
    try:
        target: Any = importlib.import_module(function.__module__)
    except ImportError:
        return False
    for part in function.__qualname__.split("."):
        target = getattr(target, part, None)
    return target is function


def _can_be_sent(value: object) -> bool:
    try:
        pickle.dumps(value)
    except Exception:  # noqa: BLE001 - whatever its class raises says no
        return False
    return True


def _where(declared: Processor) -> str:
    return f"{declared.function.__module__}:{declared.function.__qualname__}"


def check(declared: Processor) -> None:
    """Raises ConfigurationError where a value makes no sense."""
    problem = ""
    if not _NAME.fullmatch(declared.name):
        problem = "a name is up to 80 letters, digits, '_', '.' and '-', and begins with a letter"
    elif declared.version < 1:
        problem = "version counts from 1"
    elif not 0 < declared.timeout_seconds <= 86_400:
        problem = "timeout_seconds lies between 0 and 86400"
    elif not 1 <= declared.concurrency <= 1000:
        problem = "concurrency lies between 1 and 1000"
    elif declared.max_attempts < 1:
        problem = "max_attempts is at least 1"
    elif declared.account_concurrency is not None and declared.account_concurrency < 1:
        problem = "account_concurrency is at least 1"
    elif declared.rate_per_minute is not None and not 0 < declared.rate_per_minute <= 1_000_000:
        problem = "rate_per_minute lies between 0 and 1000000"
    elif declared.memory_bytes is not None and declared.kind != "process":
        problem = "memory_bytes holds for child processes alone: it wants process=True"
    elif declared.memory_bytes is not None and declared.memory_bytes < MIN_MEMORY_BYTES:
        problem = f"memory_bytes is at least {MIN_MEMORY_BYTES}"
    if problem:
        raise ConfigurationError(f"the processor {declared.name!r}: {problem}", key="processors")
