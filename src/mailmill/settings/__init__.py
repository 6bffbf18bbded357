"""What the user configured, read once at start and passed down as values.

Read only by ``mailmill.app`` and above: the engines get plain values, never a ``Settings``.

Laws: every problem is found before anything is started, all problems are reported together, each names its key and
what is wanted, and no message, warning or repr ever holds a secret. The environment beats the file, the file beats the
short form (``IMAP_SERVER`` …), the short form beats the defaults.

Files: ``models`` (what keys there are), ``authserv_ids`` and ``blob_urls`` (forms of single values, pure), ``keys``
(the models as a table of dotted keys), ``environment`` (variables to a table like TOML's, pure), ``problems``
(validation errors to lines for people, pure), ``loading`` (file, environment and models together), ``passwords`` (where
passwords and signing secrets come from).
"""

from mailmill.settings.authserv_ids import AUTHSERV_ID_FORMS, check_authserv_id
from mailmill.settings.loading import check_processor_names, load_settings
from mailmill.settings.models import (
    AccountSettings,
    DestinationSettings,
    ImapSettings,
    OwnWordsSettings,
    PoolSettings,
    ProcessorOverride,
    ProcessorsSettings,
    Role,
    ServiceSettings,
    Settings,
    ThreatSettings,
)
from mailmill.settings.passwords import password_of, secret_of

__all__ = [
    "AUTHSERV_ID_FORMS",
    "AccountSettings",
    "DestinationSettings",
    "ImapSettings",
    "OwnWordsSettings",
    "PoolSettings",
    "ProcessorOverride",
    "ProcessorsSettings",
    "Role",
    "ServiceSettings",
    "Settings",
    "ThreatSettings",
    "check_authserv_id",
    "check_processor_names",
    "load_settings",
    "password_of",
    "secret_of",
]
