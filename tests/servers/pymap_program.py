"""The program of ``servers.pymap``: pymap as it comes, but that every user exists, with the demo user's password."""

from __future__ import annotations

import dataclasses
from argparse import Namespace
from typing import Any

from pymap.backend import backends
from pymap.backend.dict import Config, DictBackend
from pymap.main import main
from pymap.user import UserMetadata
from pysasl.hashing import Cleartext


class _Everybody(dict[str, UserMetadata]):
    def __init__(self, pattern: UserMetadata) -> None:
        super().__init__({pattern.name: pattern})
        self._pattern = pattern

    def get(self, name: str, default: Any = None) -> UserMetadata:
        return super().get(name) or dataclasses.replace(self._pattern, name=name)


class _Backend(DictBackend):
    @classmethod
    async def init(cls, args: Namespace, **overrides: Any) -> tuple[DictBackend, Config]:
        # Its own hash takes 170 ms a login, and every change by another client is a login.
        made, config = await super().init(args, hash_context=Cleartext(), **overrides)
        made.login.users_dict = _Everybody(made.login.users_dict[config.demo_user])
        return made, config


if __name__ == "__main__":
    backends.add("dict", _Backend)
    main()
