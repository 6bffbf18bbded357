"""The master key: where it comes from, proof that it is the right one, and what is done with it.

Laws: a key is never made where something sealed with another may exist (the canary row says so); it is on disk, synced,
before the canary is committed; no key, nor anything unsealed, appears in an error or a repr.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import os
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from mailmill.errors import MasterKeyError
from mailmill.store import dialect
from mailmill.store.data_folder import disk_error
from mailmill.store.database import Database
from mailmill.store.tables import setting

KEY_FILE_NAME = "master.key"
CANARY_NAME = "key_canary"

_CANARY_TEXT = b"mailmill master key"
_KEY_BYTES = 32
_MAX_FILE_BYTES = 4096
_MAKE_ONE = "a key is 32 random bytes in base64, such as `openssl rand -base64 32` prints"


class KeyRing:
    """Keys derived from one master key: one seals secrets, one marks texts."""

    __slots__ = ("_fernet", "_mark_key")

    def __init__(self, master: bytes) -> None:
        if len(master) != _KEY_BYTES:
            raise MasterKeyError("the master key does not have 32 bytes", hint=_MAKE_ONE)
        self._fernet = Fernet(base64.urlsafe_b64encode(_derive(master, b"mailmill seal 1")))
        self._mark_key = _derive(master, b"mailmill mark 1")

    @staticmethod
    def generate() -> str:
        """A new master key as it is written to a file or to ``MAILMILL_KEY``."""
        return base64.urlsafe_b64encode(os.urandom(_KEY_BYTES)).decode("ascii")

    @classmethod
    def parse(cls, text: str, *, source: str) -> KeyRing:
        """From base64, standard or URL-safe. ``source`` says in the error where the text came from."""
        try:
            compact = "".join(text.split()).translate(str.maketrans("-_", "+/")).rstrip("=")
            master = base64.b64decode(compact + "=" * (-len(compact) % 4), validate=True)
        except (ValueError, binascii.Error):
            master = b""
        if len(master) != _KEY_BYTES:
            # From None: the cause would carry the text.
            raise MasterKeyError(f"the master key in {source} is malformed", hint=_MAKE_ONE) from None
        return cls(master)

    def seal(self, secret: bytes) -> str:
        """``secret`` encrypted and authenticated (Fernet), as ASCII text. Every call gives another text."""
        return self._fernet.encrypt(secret).decode("ascii")

    def unseal(self, sealed: str) -> bytes:
        """What was sealed. Raises MasterKeyError where it was sealed with another key or has been altered."""
        try:
            return self._fernet.decrypt(sealed.encode("ascii", "replace"))
        except InvalidToken:
            raise MasterKeyError(
                "a stored secret was sealed with another master key, or is damaged",
                hint="use the key it was sealed with",
            ) from None

    def mark(self, text: str) -> str:
        """64 hex digits that change when ``text`` does and do not tell what it is (HMAC-SHA-256)."""
        return hmac.new(self._mark_key, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


async def open_key_ring(
    database: Database, *, data_dir: Path, explicit: str | None = None, key_file: Path | None = None
) -> KeyRing:
    """The store's key ring, proven against the canary.

    The key is ``explicit`` (``MAILMILL_KEY``) if given, else the content of ``key_file`` if given, else that of
    ``data_dir/master.key``. Only where none of them is there, and nothing was ever sealed, is one made (0600).
    Raises MasterKeyError when the key is missing, malformed or not the one this store was written with.
    """
    async with database.read() as connection:
        canary = await _canary(connection)
    ring, source = await asyncio.to_thread(_find, data_dir, explicit, key_file, make=canary is None)
    if canary is None:
        async with database.write() as connection:
            # Nodes that start at once each have a key: the first one's counts, and the others are told.
            new = dialect.insert(connection, setting).values(name=CANARY_NAME, value=ring.seal(_CANARY_TEXT))
            await connection.execute(new.on_conflict_do_nothing())
            canary = await _canary(connection)
        assert canary is not None
    _prove(ring, source, canary, data_dir)
    return ring


def check_key(canary: str, *, data_dir: Path, explicit: str | None = None, key_file: Path | None = None) -> None:
    """Whether the key that `open_key_ring` would take is the one that sealed ``canary``, the setting `CANARY_NAME` of a
    store. Blocking; makes nothing. Raises MasterKeyError.
    """
    ring, source = _find(data_dir, explicit, key_file, make=False)
    _prove(ring, source, canary, data_dir)


def _prove(ring: KeyRing, source: str, canary: str, data_dir: Path) -> None:
    try:
        matches = ring.unseal(canary) == _CANARY_TEXT
    except MasterKeyError:
        matches = False
    if not matches:
        raise MasterKeyError(
            f"the master key in {source} is not the one this store was written with",
            hint=f"give back the first key (MAILMILL_KEY, key_file or {data_dir / KEY_FILE_NAME})",
        )


async def _canary(connection: AsyncConnection) -> str | None:
    value: str | None = await connection.scalar(select(setting.c.value).where(setting.c.name == CANARY_NAME))
    return value


def _find(data_dir: Path, explicit: str | None, key_file: Path | None, *, make: bool) -> tuple[KeyRing, str]:
    if explicit is not None:
        return KeyRing.parse(explicit, source="MAILMILL_KEY"), "MAILMILL_KEY"
    if key_file is not None:
        text = _read(key_file)
        if text is None:
            raise MasterKeyError(f"the key file {key_file} does not exist", hint="restore it, or correct key_file")
        return KeyRing.parse(text, source=str(key_file)), str(key_file)
    own_file = data_dir / KEY_FILE_NAME
    text = _read(own_file)
    if text is None:
        if not make:
            raise MasterKeyError(
                f"the master key is missing, and this store holds what was sealed with it ({own_file} is not there)",
                hint=f"put {own_file} back (it is in no backup), or set MAILMILL_KEY or key_file to the same key",
            )
        text = KeyRing.generate()
        _write_new(own_file, text)
    return KeyRing.parse(text, source=str(own_file)), str(own_file)


def _read(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_FILE_BYTES).decode("ascii", "replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise MasterKeyError(
            f"the key file {path} cannot be read: {error.strerror}", hint="let the user mailmill runs as read it"
        ) from error


def _write_new(path: Path, text: str) -> None:
    """Whole or not at all: written beside it, synced, then moved into place."""
    draft = path.with_suffix(".new")
    try:
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise disk_error(f"cannot write the master key to {path}", error) from error


def _derive(master: bytes, purpose: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=_KEY_BYTES, salt=None, info=purpose).derive(master)
