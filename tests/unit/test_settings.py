"""Settings: where values come from, and what is said where they are wrong."""

from __future__ import annotations

import asyncio
import errno
import os
import sys
from pathlib import Path

import pytest
from settings_text import ACCOUNT, HOOK, PASSWORD, SECRET, load, refused

from harness.patience import eventually
from mailmill.app.ownership import OwnershipSettings
from mailmill.errors import ConfigurationError
from mailmill.model import Address, Backlog, Endpoint, EventName, Tls
from mailmill.settings import (
    AccountSettings,
    Role,
    check_processor_names,
    load_settings,
    password_of,
    secret_of,
)
from mailmill.settings.keys import all_keys
from mailmill.settings.models import MAX_LEASE_SECONDS

REFERENCE = Path(__file__).parents[2] / "docs" / "configuration.md"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


# -- values -----------------------------------------------------------------------------------------------------------


def test_defaults_need_no_file(tmp_path: Path) -> None:
    settings = load_settings(None, {"HOME": str(tmp_path)})
    service = settings.service
    assert settings.config_file is None and settings.warnings == () and settings.accounts == {}
    assert service.data_dir == tmp_path / ".local/share/mailmill"
    assert service.database_url.get_secret_value() == f"sqlite+aiosqlite:///{service.data_dir}/mailmill.db"
    assert service.log_file == service.data_dir / "mailmill.log"
    assert service.socket_path == service.data_dir / "mailmill.sock"
    assert (service.listen_host, service.listen_port, service.roles) == ("127.0.0.1", 8025, tuple(Role))
    assert (service.poll_interval_seconds, service.sync_concurrency) == (300, 16)


def test_file_is_found_in_this_order(tmp_path: Path) -> None:
    files = {}
    for name in ("asked", "variable", "home"):
        file = tmp_path / name / ".config/mailmill/config.toml"
        file.parent.mkdir(parents=True)
        file.write_text(f'[service]\nlisten = "{name}:1"\n')
        files[name] = file
    environ = {"HOME": str(tmp_path / "home")}
    assert load_settings(None, environ).service.listen_host == "home"
    environ["MAILMILL_CONFIG"] = str(files["variable"])
    assert load_settings(None, environ).service.listen_host == "variable"
    assert load_settings(files["asked"], environ).service.listen_host == "asked"


def test_account_and_destination(config: Path) -> None:
    settings = load(
        config, ACCOUNT + HOOK + 'events = ["threatFound", "messageNew", "threatFound"]\naccounts = ["work"]\n'
    )
    account, hook = settings.accounts["work"], settings.destinations["hook"]
    assert account.imap.endpoint == Endpoint("imap.example.org", 993, Tls.IMPLICIT)
    assert account.backlog is Backlog.PROCESS and account.mailboxes == ("*",) and account.pool.size == 3
    assert hook.events == (EventName.THREAT_FOUND, EventName.MESSAGE_NEW)
    assert (hook.timeout_seconds, hook.allow_private, hook.shown_url) == (5, False, "https://example.org")
    assert secret_of("hook", hook, {}) == SECRET


@pytest.mark.parametrize(
    ("imap", "port", "tls"),
    [
        ("", 993, Tls.IMPLICIT),
        (', tls = "starttls"', 143, Tls.STARTTLS),
        (", port = 143", 143, Tls.STARTTLS),
        (', port = 143, tls = "implicit"', 143, Tls.IMPLICIT),
        (', tls = "none", allow_insecure = true', 143, Tls.NONE),
    ],
)
def test_port_and_tls_fill_each_other_in(config: Path, imap: str, port: int, tls: Tls) -> None:
    text = ACCOUNT.replace('host = "imap.example.org"', f'host = "imap.example.org"{imap}')
    endpoint = load(config, text).accounts["work"].imap.endpoint
    assert (endpoint.port, endpoint.tls) == (port, tls)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "[::1]"])
def test_loopback_goes_without_tls(config: Path, host: str) -> None:
    text = ACCOUNT.replace('host = "imap.example.org"', f'host = "{host}", tls = "none"')
    assert load(config, text).accounts["work"].imap.endpoint.tls is Tls.NONE


def test_paths_of_the_file_count_from_its_folder(config: Path) -> None:
    service = load(
        config,
        '[service]\ndata_dir = "data"\nlog_file = "../x.log"\nkey_file = "~/key"\n'
        'database_url = "sqlite+aiosqlite:///data/own.db?a=b"\n',
    ).service
    folder = config.parent
    assert service.data_dir == folder / "data"
    assert service.log_file == folder.parent / "x.log"
    assert service.key_file == folder / "key"
    assert service.database_url.get_secret_value() == f"sqlite+aiosqlite:///{folder}/data/own.db?a=b"


def test_paths_of_the_environment_count_from_the_working_folder(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = config.parent / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert load(config, "", MAILMILL_SERVICE__DATA_DIR="data").service.data_dir == elsewhere / "data"


def test_log_file_can_be_switched_off(config: Path) -> None:
    assert load(config, '[service]\nlog_file = ""\n').service.log_file is None


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("postgres://u:p@h/d", "postgresql+asyncpg://u:p@h/d"),
        ("postgresql://u:p@h/d", "postgresql+asyncpg://u:p@h/d"),
        ("sqlite:////var/m.db", "sqlite+aiosqlite:////var/m.db"),
    ],
)
def test_database_url_gets_its_driver(config: Path, given: str, used: str) -> None:
    assert load(config, "", DATABASE_URL=given).service.database_url.get_secret_value() == used


def test_processors_table(config: Path) -> None:
    settings = load(
        config,
        '[processors]\nenabled = ["threat"]\nimport = ["shop.mail:invoice"]\n[processors.invoice]\nconcurrency = 2\n',
    )
    assert settings.processors.enabled == ("threat",) and settings.processors.import_ == ("shop.mail:invoice",)
    assert settings.processors.overrides["invoice"].concurrency == 2
    assert settings.processors.overrides["invoice"].timeout_seconds is None
    check_processor_names(settings, {"threat", "invoice"})
    with pytest.raises(ConfigurationError, match=r"'processors.invoice' names no processor; did you mean 'invoices'"):
        check_processor_names(settings, {"threat", "invoices"})


# -- the environment --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nested", [".".join("a" * 5_000) + " = 1\n", "a = " + "[" * 200 + "]" * 200 + "\n"])
def test_a_file_nested_too_deeply_is_named(config: Path, nested: str) -> None:
    assert refused(config, nested).message == f"{config}: nested too deeply"


def test_a_variable_nested_too_deeply_is_refused(config: Path) -> None:
    assert "nested too deeply" in refused(config, "", **{"MAILMILL_" + "__".join("A" * 5_000): "1"}).message


def test_what_is_no_regular_file_is_refused_at_once(config: Path) -> None:
    os.mkfifo(config)
    for path in (config, Path("/dev/zero"), config.parent):
        with pytest.raises(ConfigurationError, match="cannot read the configuration") as raised:
            load_settings(path, {"HOME": str(config.parent)})
        assert str(path) in raised.value.message


def test_the_null_device_is_an_empty_file(config: Path) -> None:
    settings = load_settings(Path(os.devnull), {"HOME": str(config.parent)})
    assert (settings.accounts, settings.warnings) == ({}, ())


def test_a_file_far_too_large_is_not_read_to_its_end(config: Path) -> None:
    with config.open("wb") as file:
        file.truncate(1 << 40)  # a hole: takes no space
    with pytest.raises(ConfigurationError, match="larger than 1048576 bytes"):
        load_settings(config, {"HOME": str(config.parent)})
    config.unlink()
    assert load(config, "#" * (1 << 20)).accounts == {}


def test_environment_beats_file(config: Path) -> None:
    settings = load(
        config,
        ACCOUNT + '[service]\nlisten = "127.0.0.1:1"\n',
        MAILMILL_SERVICE__LISTEN="127.0.0.1:2",
        MAILMILL_SERVICE__ROLES="sync, api",
        MAILMILL_SERVICE__SYNC_CONCURRENCY="4",
        MAILMILL_ACCOUNTS__WORK__IMAP__PORT="1993",
        MAILMILL_ACCOUNTS__WORK__MAILBOXES='["INBOX", "a,b"]',
        MAILMILL_ACCOUNTS__WORK__POOL='{"size": 5}',
        MAILMILL_PROCESSORS__IMPORT="a.b:c,d.e:f",
        MAILMILL_KEY="k" * 44,
    )
    account = settings.accounts["work"]
    assert (settings.service.listen_port, settings.service.roles) == (2, (Role.SYNC, Role.API))
    assert settings.service.sync_concurrency == 4
    assert (account.imap.port, account.imap.host, account.pool.size) == (1993, "imap.example.org", 5)
    assert account.mailboxes == ("INBOX", "a,b")
    assert settings.processors.import_ == ("a.b:c", "d.e:f")
    assert settings.master_key is not None and settings.master_key.get_secret_value() == "k" * 44


def test_a_password_from_the_environment_replaces_the_files_source(config: Path) -> None:
    text = ACCOUNT.replace(f'password = "{PASSWORD}"', 'password_command = "pass work"')
    account = load(config, text, MAILMILL_ACCOUNTS__WORK__PASSWORD="other").accounts["work"]
    assert account.password is not None and account.password_command is None


def test_a_variable_reaches_a_name_it_cannot_spell(config: Path) -> None:
    text = ACCOUNT.replace("accounts.work", 'accounts."my-work.old"')
    settings = load(config, text, MAILMILL_ACCOUNTS__MY_WORK_OLD__BACKLOG="store")
    assert list(settings.accounts) == ["my-work.old"]
    assert settings.accounts["my-work.old"].backlog is Backlog.STORE


def test_an_account_from_the_environment_alone(config: Path) -> None:
    settings = load(
        config,
        MAILMILL_ACCOUNTS__HOME__IMAP__HOST="imap.example.org",
        MAILMILL_ACCOUNTS__HOME__USERNAME="me",
        MAILMILL_ACCOUNTS__HOME__PASSWORD_ENV="PW",
    )
    assert settings.accounts["home"].password_env == "PW"


SHORT = {"IMAP_SERVER": "imap.example.org", "IMAP_USERNAME": "me@example.org", "IMAP_PASSWORD": PASSWORD}


def test_short_form(config: Path) -> None:
    settings = load(
        config, "", **SHORT, IMAP_PORT="143", OPENAI_API_KEY="sk-1", OPENAI_BASE_URL="http://x", IMAP_TLS=""
    )
    account = settings.accounts["default"]
    assert account.imap.endpoint == Endpoint("imap.example.org", 143, Tls.STARTTLS)
    assert account.address == "me@example.org"
    assert settings.ai.openai_api_key is not None and settings.ai.openai_base_url == "http://x"


def test_file_beats_short_form(config: Path) -> None:
    text = ACCOUNT.replace("accounts.work", "accounts.default").replace("imap.example.org", "file.example.org")
    text = text.replace(f'password = "{PASSWORD}"', 'password_command = "pass work"')
    account = load(config, text, **SHORT).accounts["default"]
    assert account.imap.host == "file.example.org" and account.password is None


def test_short_form_without_a_server_is_not_silent(config: Path) -> None:
    settings = load(config, "", IMAP_USERNAME="me", IMAP_PASSWORD=PASSWORD)
    assert settings.accounts == {}
    assert settings.warnings == ("IMAP_USERNAME, IMAP_PASSWORD in the environment has no effect without IMAP_SERVER",)


def test_one_underscore_too_few_is_noticed_and_kubernetes_is_not(config: Path) -> None:
    kubernetes = dict.fromkeys(("MAILMILL_SERVICE_HOST", "MAILMILL_SERVICE_PORT", "MAILMILL_PORT_8025_TCP_ADDR"), "x")
    assert load(config, "", **kubernetes).warnings == ()
    (warning,) = load(config, "", MAILMILL_SERVICE_DATA_DIR="x").warnings
    assert "did you mean MAILMILL_SERVICE__DATA_DIR?" in warning


# -- what is wrong ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[service\n", "line 1, column 9: "),
        ('[service]\nlisten = "a\n', "line 2, column 12: "),
        ("[service]\nlisten = ", "line 2, column 10: "),
        ("a = 1\na = 2\n", "line 2, column 6: "),
    ],
)
def test_broken_toml_names_file_line_and_column(config: Path, text: str, place: str) -> None:
    assert str(refused(config, text)).startswith(f"{config}: {place}")


def test_a_file_that_is_not_text(config: Path) -> None:
    config.write_bytes(b"# a\n\xff\xfe\n")
    with pytest.raises(ConfigurationError, match="line 2: not UTF-8"):
        load_settings(config, {})


@pytest.mark.parametrize("variable", [False, True])
def test_a_missing_file_that_was_asked_for(tmp_path: Path, variable: bool) -> None:
    missing = tmp_path / "none.toml"
    with pytest.raises(ConfigurationError, match=f"{missing}: cannot read the configuration: No such file"):
        load_settings(None if variable else missing, {"MAILMILL_CONFIG": str(missing)} if variable else {})


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('[service]\nlisen = "x"', "unknown key 'service.lisen'; did you mean 'service.listen'?"),
        ("[servce]\nx = 1", "unknown key 'servce'; did you mean 'service'?"),
        ('listen = "x"', "unknown key 'listen'"),
        (
            "[accounts.work]\npasword = 'hunter2'",
            "unknown key 'accounts.work.pasword'; did you mean 'accounts.work.password'?",
        ),
        ("[processors]\nenabld = ['hunter2']", "unknown key 'processors.enabld'; did you mean 'processors.enabled'?"),
        ("[service]\npoll_interval_seconds = 'soon'", "'service.poll_interval_seconds' wants a number (found 'soon')"),
        ("[service]\nsync_concurrency = 0", "'service.sync_concurrency' wants at least 1 (found 0)"),
        ("[service]\nsync_concurrency = true", "'service.sync_concurrency' wants a whole number (found true)"),
        ("[service]\nlease_seconds = 0.5", "'service.lease_seconds' wants at least 1 (found 0.5)"),
        ("[service]\nlease_seconds = 32.5", "'service.lease_seconds' wants at most 32, found 32.5: with a longer one"),
        ("[service]\nlease_seconds = inf", "'service.lease_seconds' wants a finite number"),
        ("[service]\nroles = 'sync'", "'service.roles' wants a list such as [\"a\", \"b\"] (found 'sync')"),
        ("[service]\nroles = []", "'service.roles' wants at least one entry"),
        ("[service]\nroles = ['snyc']", "wants one of sync, process, alert, api; did you mean 'sync'? (found 'snyc')"),
        ("[service]\nlisten = 8025", "'service.listen' wants text in quotes (found 8025)"),
        ("[service]\nlisten = '::1:8025'", "'service.listen' wants an IPv6 address in brackets"),
        ("[service]\nlisten = 'localhost:99999'", "'service.listen' wants HOST:PORT"),
        ("[service]\ndatabase_url = 'mysql://u:hunter2@h/d'", "'service.database_url' wants sqlite+aiosqlite:///"),
        ("[service]\ndatabase_url = 'sqlite://'", "a database in memory would lose the mail"),
        ("service = 3", "'service' wants a table (found 3)"),
        ("[accounts]\nwork = 'hunter2'", "'accounts.work' wants a table"),
        ("[accounts.Work]\n", "'accounts.Work' is not a usable name: wants 1 to 64 characters"),
        ("[accounts.work]\npassword = 12345", "'accounts.work.password' wants text in quotes"),
        ("[accounts.work]\nusername = 'x'", "'accounts.work.imap' is missing"),
        (ACCOUNT.replace('password = "hunter2"', ""), "'accounts.work.password' is missing: give one of"),
        (ACCOUNT.replace("password =", "password_env = 'X'\npassword ="), "are given: keep one of them"),
        (
            ACCOUNT.replace("password =", "oauth2 = { token = 'hunter2' }\npassword ="),
            "'accounts.work.oauth2' is not supported yet",
        ),
        (ACCOUNT.replace("imap.example.org", "imap.example.org:993"), "without a port (that is 'port')"),
        (ACCOUNT.replace("imap.example.org", "imaps://imap.example.org"), "wants a host name alone"),
        (ACCOUNT.replace('.org" }', '.org", tls = "none" }'), "in the clear; use 'implicit' or 'starttls'"),
        (ACCOUNT.replace('.org" }', '.org", tls = "ssl" }'), "wants one of implicit, starttls, none"),
        (ACCOUNT.replace('.org" }', '.org", ca_file = "no.pem" }'), "no.pem, which is no file"),
        (
            HOOK.replace('"webhook"', '"slack"'),
            "'destinations.hook.kind' is 'slack', which is coming and not supported yet",
        ),
        (HOOK.replace('"webhook"', '"pigeon"'), "'destinations.hook.kind' wants one of webhook"),
        (HOOK.replace(SECRET, PASSWORD), "'destinations.hook.secret' wants 'whsec_' followed by base64"),
        (HOOK.replace("https://", "ftp://"), "'destinations.hook.url' wants a full address"),
        (HOOK.replace("https://", "https://u:hunter2@"), "'destinations.hook.url' carries a user name or password"),
        (HOOK + 'events = ["messageNw"]', "did you mean 'messageNew'? (found 'messageNw')"),
        (HOOK + 'events = ["messageBounce"]', "which this version does not raise yet"),
        (ACCOUNT + HOOK + 'accounts = ["wrok"]', "names 'wrok', which is no account; did you mean 'work'?"),
    ],
)
def test_a_problem_is_one_line_that_names_key_and_remedy(config: Path, text: str, line: str) -> None:
    error = refused(config, text)
    matching = [problem for problem in error.problems if line in problem]
    assert matching, error.problems
    assert matching[0].startswith(f"{config}: ") and "\n" not in matching[0]


def test_the_longest_lease_keeps_the_promise_of_a_takeover() -> None:
    """45 s after a crash at most: the lease, a round of the other nodes, four seconds for the accounts to begin."""

    def takeover(lease_seconds: float) -> float:
        return lease_seconds + OwnershipSettings(lease_seconds=lease_seconds).renew_seconds + 4

    assert takeover(MAX_LEASE_SECONDS) <= 45 < takeover(MAX_LEASE_SECONDS + 1)


def test_all_problems_are_told_at_once(config: Path) -> None:
    error = refused(config, "[service]\nlisen = 1\nlog_level = 'loud'\n[accounts.x]\nusername = 3\n")
    assert [problem.split("'")[1] for problem in error.problems] == [
        "service.log_level",
        "service.lisen",
        "accounts.x.imap",
        "accounts.x.username",
    ]
    assert error.key == "service.log_level" and str(error) == "\n".join(error.problems)


def test_a_problem_from_the_environment_names_the_variable(config: Path) -> None:
    error = refused(config, ACCOUNT, MAILMILL_SERVICE__LISTEN="nowhere", MAILMILL_SERVICE__LISEN="x")
    assert error.problems[0].startswith("MAILMILL_SERVICE__LISTEN in the environment: 'service.listen' wants")
    assert error.problems[1].startswith("MAILMILL_SERVICE__LISEN in the environment: unknown key 'service.lisen'")
    assert refused(config, "", **SHORT, IMAP_PORT="x").problems[0].startswith("IMAP_PORT in the environment: ")


# -- secrets ----------------------------------------------------------------------------------------------------------


def test_no_repr_shows_a_secret(config: Path) -> None:
    settings = load(
        config,
        ACCOUNT + HOOK + '[ai]\nopenai_api_key = "hunter2"\n[service]\ndatabase_url = "postgresql://u:hunter2@h/d"\n',
        MAILMILL_KEY=PASSWORD,
        MAILMILL_ACCOUNTS__OTHER__PASSWORD_COMMAND=f"echo {PASSWORD}",
        MAILMILL_ACCOUNTS__OTHER__USERNAME="o",
        MAILMILL_ACCOUNTS__OTHER__IMAP__HOST="h",
    )
    for shown in (repr(settings), str(settings), repr(settings.accounts), repr(settings.destinations)):
        assert PASSWORD not in shown and SECRET not in shown


def test_a_file_with_a_password_that_others_can_read(config: Path) -> None:
    config.write_text(ACCOUNT)
    config.chmod(0o644)
    (warning,) = load_settings(config, {}).warnings
    assert "'accounts.work.password'" in warning and f"chmod 600 {config}" in warning
    config.write_text(ACCOUNT.replace(f'password = "{PASSWORD}"', 'password_env = "PW"'))
    assert load_settings(config, {}).warnings == ()


def from_command(command: str) -> AccountSettings:
    return AccountSettings.model_validate({"username": "u", "imap": {"host": "h"}, "password_command": command})


@pytest.mark.parametrize(
    ("printed", "password"),
    [("a b\\n", "a b"), ("a\\n\\n", "a\n"), ("p\\r\\n", "p"), ("\\u00e9", "é"), (" $HOME ", " $HOME ")],
)
async def test_password_command_loses_one_newline_and_sees_no_shell(printed: str, password: str) -> None:
    command = (
        f"""{sys.executable} -X utf8 -c 'import sys; sys.stdout.reconfigure(newline=""); print("{printed}", end="")'"""
    )
    assert await password_of("work", from_command(command), {}) == password


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("no-such-program-here x", "cannot run 'no-such-program-here': No such file"),
        (f"{sys.executable} -c 'raise SystemExit(\"locked\\x1b[31m\")'", "ended with 1: locked?[31m"),
        (f"{sys.executable} -c 'print()'", "printed no usable password"),
        ("'unbalanced", "cannot be read as a command"),
    ],
)
async def test_password_command_that_fails(command: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        await password_of("work", from_command(command), {"PATH": "/usr/bin:/bin"})
    assert said in str(caught.value) and caught.value.key == "accounts.work.password_command"


async def test_password_command_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    held = tmp_path / "held"
    os.mkfifo(held)
    code = "import os, sys, time; os.fork(); os.open(sys.argv[1], os.O_RDWR); time.sleep(600)"
    command = f"{sys.executable} -c '{code}' {held}"
    with pytest.raises(ConfigurationError, match=r"did not finish within 0.5 s"):
        await asyncio.wait_for(password_of("work", from_command(command), {}, timeout_seconds=0.5), 20)
    # A killed process lets go of its files a little later.
    await eventually(lambda: asyncio.to_thread(is_held, held), lambda still: not still)


def is_held(fifo: Path) -> bool:
    """Whether any process has ``fifo`` open."""
    try:
        os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
    except OSError as error:
        assert error.errno == errno.ENXIO
        return False
    return True


async def test_password_from_a_variable() -> None:
    account = AccountSettings.model_validate({"username": "u", "imap": {"host": "h"}, "password_env": "PW"})
    assert await password_of("work", account, {"PW": PASSWORD}) == PASSWORD
    with pytest.raises(ConfigurationError, match=r"'accounts.work.password_env' names the environment variable 'PW'"):
        await password_of("work", account, {})


def test_secret_from_a_variable(config: Path) -> None:
    hook = load(config, HOOK.replace(f'secret = "{SECRET}"', 'secret_env = "HOOK"')).destinations["hook"]
    assert secret_of("hook", hook, {"HOOK": SECRET}) == SECRET
    with pytest.raises(ConfigurationError, match="wants 'whsec_'") as caught:
        secret_of("hook", hook, {"HOOK": PASSWORD})
    assert PASSWORD not in str(caught.value)


# -- the threat engine ------------------------------------------------------------------------------------------------

THREAT = """
[threat]
scoring_file = "own/scoring.toml"
yara_rules = ["rules", "/etc/yara/mail.yar"]
allow = ["partner.example"]
block_files = ["~/blocked.txt"]
people = ["Dana Harbour <dana@harbour.example, D.Harbour@mail.example>", "José Ortega"]
domains = ["harbour.example"]
verify_dkim = true
"""


def test_the_threat_engines_section(config: Path) -> None:
    threat = load(config, THREAT).threat
    assert threat.scoring_file == config.parent / "own/scoring.toml"
    assert threat.yara_rules == (config.parent / "rules", Path("/etc/yara/mail.yar"))
    assert threat.block_files == (config.parent / "blocked.txt",)
    assert threat.persons == (
        Address("Dana Harbour", "dana@harbour.example"),
        Address("Dana Harbour", "d.harbour@mail.example"),
        Address("José Ortega", ""),
    )
    assert (threat.inspect_files, threat.verify_dkim, threat.domains) == (True, True, ("harbour.example",))
    assert load(config).threat.allow == () and load(config).threat.inspect_files


def test_an_account_has_lists_of_its_own(config: Path) -> None:
    account = load(config, ACCOUNT + "[accounts.work.threat]\nallow_files = ['a.txt']\npeople = ['Dana Harbour']\n")
    assert account.accounts["work"].threat.allow_files == (config.parent / "a.txt",)
    refused(config, ACCOUNT + "[accounts.work.threat]\nscoring_file = 'a.toml'\n")


def test_paths_of_rules_in_the_environment(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(config.parent)
    threat = load(config, MAILMILL_THREAT__YARA_RULES="a.yar, /b.yar", MAILMILL_THREAT__INSPECT_FILES="false").threat
    assert threat.yara_rules == (config.parent / "a.yar", Path("/b.yar")) and not threat.inspect_files


@pytest.mark.parametrize(
    "entry", ["", "x", "dana@harbour.example", "<dana@harbour.example>", "Dana <dana>", "Dana Harbour <a@b> x"]
)
def test_a_person_without_a_name_is_refused(config: Path, entry: str) -> None:
    assert "threat.people" in str(refused(config, f"[threat]\npeople = [{entry!r}]\n"))


@pytest.mark.parametrize("value", ["['']", "'a.yar'", "[1]"])
def test_rules_are_a_list_of_paths(config: Path, value: str) -> None:
    assert "threat.yara_rules" in str(refused(config, f"[threat]\nyara_rules = {value}\n"))


# -- the reference page -----------------------------------------------------------------------------------------------


def test_every_key_is_documented() -> None:
    page = REFERENCE.read_text()
    missing = [
        key.dotted for key in all_keys() if key.wants not in ("table", "named") and f"`{key.dotted}`" not in page
    ]
    assert missing == []


def test_the_pages_example_loads(config: Path) -> None:
    page = REFERENCE.read_text()
    example = page.partition("```toml\n")[2].partition("```")[0]
    settings = load(config, example)
    assert settings.accounts and settings.destinations and settings.processors.import_
