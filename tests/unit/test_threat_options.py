"""``[threat]`` as the engine gets it: files are read, and what is wrong with one is said with its key."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mailmill.app import wiring
from mailmill.app.threat_options import MAX_LIST_BYTES, threat_options, try_threat_rules
from mailmill.cli.diagnosis import threat_rules
from mailmill.errors import ConfigurationError
from mailmill.model import Address
from mailmill.processing.threat.options import DEFAULT_OPTIONS, OwnWords, YaraSource
from mailmill.settings import Settings, load_settings

RULE = "rule %s { condition: false }"
ACCOUNT = """
[accounts.work]
username = "u"
password_env = "PW"
imap = { host = "imap.example.org" }
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rules" / "more").mkdir(parents=True)
    (tmp_path / "rules" / "b.yar").write_text(RULE % "b")
    (tmp_path / "rules" / "more" / "a.yara").write_text(RULE % "a")
    (tmp_path / "rules" / "README").write_text("not a rule")
    (tmp_path / "block.txt").write_text("# ours\nspam.example   # since May\n\n*.prizes.example\r\n")
    (tmp_path / "scoring.toml").write_text("suspicious_from = 50\n")
    return tmp_path


def settings(folder: Path, text: str) -> Settings:
    file = folder / "config.toml"
    file.write_text(text)
    file.chmod(0o600)
    return load_settings(file, {"HOME": str(folder)})


def refused(folder: Path, text: str) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as raised:
        wiring.processors(settings(folder, text))
    assert raised.value.hint
    return raised.value


def test_nothing_configured(folder: Path) -> None:
    assert threat_options(settings(folder, "")) == DEFAULT_OPTIONS
    assert try_threat_rules(settings(folder, "")) == ""
    assert threat_rules.look(settings(folder, "")) == []


def test_all_of_it(folder: Path) -> None:
    text = """
    [threat]
    scoring_file = "scoring.toml"
    yara_rules = ["rules", "rules/b.yar"]
    allow = ["partner.example"]
    block_files = ["block.txt"]
    people = ["Dana Harbour <dana@harbour.example>"]
    domains = ["harbour.example"]
    inspect_files = false
    """
    options = threat_options(settings(folder, text + ACCOUNT + "[accounts.work.threat]\nblock = ['x.example']\n"))
    rules = folder / "rules"
    assert options.yara == (
        YaraSource(str(rules / "b.yar"), RULE % "b"),
        YaraSource(str(rules / "more" / "a.yara"), RULE % "a"),
        YaraSource(str(rules / "b.yar"), RULE % "b"),
    )
    assert options.everybody == OwnWords(
        people=(Address("Dana Harbour", "dana@harbour.example"),),
        domains=("harbour.example",),
        allow=("partner.example",),
        block=("spam.example", "*.prizes.example"),
    )
    assert options.accounts == (("work", OwnWords(block=("x.example",))),)
    assert (options.scoring, options.inspect_files) == ("suspicious_from = 50\n", False)


def test_doctor_says_what_there_is_and_what_is_wrong(folder: Path) -> None:
    good = settings(
        folder, "[threat]\nyara_rules = ['rules']\nblock_files = ['block.txt']\nscoring_file='scoring.toml'\n"
    )
    (check,) = threat_rules.look(good)
    assert check.level == "ok" and "YARA rules: 2" in check.text and "blocked: 2" in check.text
    (folder / "rules" / "b.yar").write_text("rule b { condition: nope }\nrule c { condition: nor }")
    bad = threat_rules.look(good)
    assert [check.level for check in bad] == ["fail", "fail"]
    assert [f"line {line}" in check.text for line, check in enumerate(bad, 1)] == [True, True]
    assert all(check.remedy and check.code == "configuration" for check in bad)


@pytest.mark.parametrize(
    ("text", "key", "said"),
    [
        ("scoring_file = 'none.toml'", "threat.scoring_file", "none.toml cannot be read: No such file"),
        ("scoring_file = 'rules'", "threat.scoring_file", "rules"),
        ("yara_rules = ['none.yar']", "threat.yara_rules", "none.yar cannot be read: No such file"),
        (f"yara_rules = ['{'x' * 300}']", "threat.yara_rules", "cannot be read: File name too long"),
        ("domains = ['https://harbour.example']", "threat.domains", "'https://harbour.example' is no domain"),
        ("domains = ['gmail.com']", "threat.domains", "'gmail.com' is no domain that could be yours alone"),
        ("domains = ['co.uk']", "threat.domains", "'co.uk' is no domain that could be yours alone"),
        ("yara_rules = ['empty']", "threat.yara_rules", "holds no file that ends in .yar or .yara"),
        ("yara_rules = ['pipe']", "threat.yara_rules", "is no regular file"),
        ("yara_rules = ['latin.yar']", "threat.yara_rules", "latin.yar is not UTF-8 text (line 2)"),
        ("block_files = ['large.txt']", "threat.block_files", f"is larger than {MAX_LIST_BYTES} bytes"),
        ("allow_files = ['block.txt', 'gone.txt']", "threat.allow_files", "gone.txt"),
        ("block = ['not one']", "threat.block", "'not one' is neither an address"),
        ("allow = ['gmail.com']", "threat.allow", "anybody can get an address"),
        ("scoring_file = 'bad.toml'", "threat.scoring_file", "bad.toml: the scoring table: 'weights.links' is a table"),
    ],
)
def test_what_is_wrong_is_said_before_anything_starts(folder: Path, text: str, key: str, said: str) -> None:
    (folder / "empty").mkdir()
    os.mkfifo(folder / "pipe")
    (folder / "latin.yar").write_bytes(b"// one\n// caf\xe9\n")
    (folder / "large.txt").write_bytes(b"#" * (MAX_LIST_BYTES + 1))
    (folder / "bad.toml").write_text("weights.links = 7\n")
    error = refused(folder, f"[threat]\n{text}\n")
    assert error.key == key
    assert said in error.message


def test_the_service_gets_the_engine_as_configured(folder: Path) -> None:
    chosen = wiring.processors(settings(folder, "[threat]\nyara_rules = ['rules']\n"))
    threat = next(processor for processor in chosen if processor.name == "threat")
    assert threat.keep_raw and threat.version == 2
