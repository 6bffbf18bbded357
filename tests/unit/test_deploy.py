"""The files of ``deploy/`` against the code: what they name exists, and what they repeat of each other is the same."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from mailmill.cli.errors import exit_code
from mailmill.cli.main import app
from mailmill.errors import (
    AddressInUseError,
    ConfigurationError,
    DatabaseUnavailableError,
    MasterKeyError,
    StorageFullError,
    StorageUnavailableError,
    StoreInUseError,
)
from mailmill.settings import load_settings
from mailmill.settings.environment import SHORT_FORM
from mailmill.settings.keys import all_keys
from mailmill.settings.models import Role, split_listen

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
UNIT = (DEPLOY / "mailmill.service").read_text(encoding="utf-8")
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
ENVIRONMENT = (DEPLOY / "mailmill.env").read_text(encoding="utf-8")
PAGE = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")

VARIABLES = {key.variable for key in all_keys()} | {"MAILMILL_KEY", "MAILMILL_CONFIG"} | set(SHORT_FORM)
COMMANDS = set(getattr(typer.main.get_command(app), "commands", {}))


def loaded(environ: dict[str, str], tmp_path: Path) -> Any:
    """The settings that come of these variables alone; what is wrong with them raises."""
    empty = tmp_path / "empty.toml"
    empty.touch(mode=0o600)
    return load_settings(empty, {"HOME": str(tmp_path)} | {k: v for k, v in environ.items() if k != "MAILMILL_CONFIG"})


# -- systemd ----------------------------------------------------------------------------------------------------------


def directives() -> list[tuple[str, str]]:
    lines = [line for line in UNIT.splitlines() if line and not line.startswith(("#", "["))]
    return [(name, value) for name, _, value in (line.partition("=") for line in lines)]


def of_unit(name: str) -> list[str]:
    return [value for each, value in directives() if each == name]


def test_the_unit_sets_variables_that_there_are(tmp_path: Path) -> None:
    environ = dict(value.split("=", 1) for value in of_unit("Environment"))
    assert {name for name in environ if name.startswith("MAILMILL_")} <= VARIABLES
    service = loaded(environ, tmp_path).service
    assert service.data_dir == Path("/var/lib") / of_unit("StateDirectory")[0]
    assert service.log_file is None


def test_the_unit_runs_what_the_page_installs() -> None:
    [command] = of_unit("ExecStart")
    program, option, config, verb = shlex.split(command)
    assert (option, verb) == ("--config", "run")
    assert verb in COMMANDS
    assert f"python3 -m venv {Path(program).parents[1]}" in PAGE
    assert f" {config}\n" in PAGE
    [file] = of_unit("EnvironmentFile")
    assert f"install -m 0600 deploy/mailmill.env {file.removeprefix('-')}" in PAGE
    assert f"useradd --system --home-dir /var/lib/{of_unit('StateDirectory')[0]}" in PAGE
    assert of_unit("User") == ["mailmill"]


def test_the_unit_takes_from_the_process_what_it_can_do_without() -> None:
    wanted = {
        "NoNewPrivileges": "yes",
        "CapabilityBoundingSet": "",
        "ProtectSystem": "strict",
        "ProtectHome": "yes",
        "PrivateTmp": "yes",
        "PrivateDevices": "yes",
        "RestrictNamespaces": "yes",
        "UMask": "0077",
    }
    assert wanted.items() <= dict(directives()).items()
    # AF_UNIX is the command line's way in, the others are the mail servers'.
    assert set(of_unit("RestrictAddressFamilies")[0].split()) == {"AF_INET", "AF_INET6", "AF_UNIX"}
    # The threat engine compiles rules to machine code.
    assert of_unit("MemoryDenyWriteExecute") == []
    # Children that are over their memory are to be killed without the service.
    assert of_unit("OOMPolicy") == ["continue"]
    # A configuration or a key that is wrong is not mended by starting again; what nobody foresaw may be.
    given_up = {int(number) for number in of_unit("RestartPreventExitStatus")[0].split()}
    assert given_up == {exit_code(MasterKeyError.code), exit_code(ConfigurationError.code)}
    assert not given_up & {exit_code("internal"), exit_code("store"), 1}
    # What mends itself is tried again: a command lets go of the data folder, another program of the port, the database
    # comes back.
    mending = (AddressInUseError, DatabaseUnavailableError, StorageFullError, StorageUnavailableError, StoreInUseError)
    assert not given_up & {exit_code(each.code) for each in mending}


def test_the_unit_is_well_formed(tmp_path: Path) -> None:
    lines = [line for line in UNIT.splitlines() if line and not line.startswith("#")]
    assert [line for line in lines if line.startswith("[")] == ["[Unit]", "[Service]", "[Install]"]
    assert [line for line in lines if not re.fullmatch(r"\[\w+\]|[A-Z]\w+=.*", line)] == []
    names = [name for name, _ in directives()]
    assert {name for name in names if names.count(name) > 1} == {"Environment", "SystemCallFilter"}
    if shutil.which("systemd-analyze"):
        # The program that it runs is the machine's own to have.
        unit = tmp_path / "mailmill.service"
        unit.write_text(re.sub(r"(?m)^ExecStart=\S+", f"ExecStart={sys.executable}", UNIT), encoding="utf-8")
        verified = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
        assert (verified.returncode, verified.stderr) == (0, "")
        # 1.5 of 10 as it stands; what remains is the network, which a mail client cannot do without.
        security = ["systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=16", str(unit)]
        looked = subprocess.run(security, capture_output=True, text=True, check=False)
        assert looked.returncode == 0, looked.stdout


# -- Docker -----------------------------------------------------------------------------------------------------------


def instructions() -> list[tuple[str, str]]:
    """(instruction, the rest of it), comments gone and lines joined."""
    text = re.sub(r"(?m)^\s*#.*\n", "", DOCKERFILE).replace("\\\n", " ")
    lines = (line.split(maxsplit=1) for line in text.splitlines() if line.strip())
    return [(word, re.sub(r"\s+", " ", rest).strip()) for word, rest in lines]


def stages() -> list[list[tuple[str, str]]]:
    found: list[list[tuple[str, str]]] = []
    for word, rest in instructions():
        if word == "FROM":
            found.append([])
        found[-1].append((word, rest))
    return found


def environ_of(stage: list[tuple[str, str]]) -> dict[str, str]:
    return dict(pair.split("=", 1) for word, rest in stage if word == "ENV" for pair in shlex.split(rest))


def only(stage: list[tuple[str, str]], wanted: str) -> str:
    [rest] = [rest for word, rest in stage if word == wanted]
    return rest


def ignored(path: str) -> bool:
    """What ``Dockerfile.dockerignore`` says of a path: the last line that fits decides."""
    answer = False
    for line in (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines():
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        keeps = pattern.startswith("!")
        bare = pattern.removeprefix("!").removeprefix("**/")
        parts = Path(path).parts
        tops = ["/".join(parts[: count + 1]) for count in range(len(parts))]
        fits = any(fnmatch(part, bare) for part in (parts if "**/" in pattern else tops))
        if fits:
            answer = not keeps
    return answer


def copied() -> Iterator[tuple[str, str]]:
    """(source in the repository, target below the build's folder)."""
    for word, rest in stages()[0]:
        if word == "COPY":
            *sources, target = rest.split()
            for source in sources:
                yield source, target if len(sources) == 1 and not target.endswith("/") else f"{target}{source}"


def test_the_image_is_built_in_two_stages_and_runs_as_nobody_special() -> None:
    build, final = stages()
    assert only(build, "FROM").endswith(" AS build")
    images = {only(stage, "FROM").split()[0] for stage in (build, final)}
    assert len(images) == 1, "an environment is moved to the interpreter that it was made with"
    assert all(re.fullmatch(r"\S+:\d[\w.-]+", image) for image in images), "a tag, and not `latest`"
    assert "--from=build" in only(final, "COPY")
    user = only(final, "USER")
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user), "a number: an orchestrator cannot look a name up"
    uid, gid = user.split(":")
    assert f"--uid {uid}" in only(final, "RUN")
    assert f"-o {uid} -g {gid} {only(final, 'VOLUME')}" in only(final, "RUN")
    words = [word for word, _ in final]
    assert words.index("USER") > max(index for index, word in enumerate(words) if word in ("RUN", "COPY"))


def test_what_is_copied_is_there_and_not_ignored() -> None:
    for source, _ in copied():
        assert (ROOT / source).exists(), source
        assert not ignored(source), source
    assert ignored(".git")
    assert ignored("tests/conftest.py")
    assert ignored("src/mailmill/__pycache__/errors.cpython-311.pyc")
    assert ignored("requirements/test.txt")
    assert not ignored("src/mailmill/errors.py")


def test_the_image_serves_where_it_says(tmp_path: Path) -> None:
    final = stages()[1]
    environ = environ_of(final)
    assert {name for name in environ if name.startswith("MAILMILL_")} <= VARIABLES
    service = loaded(environ, tmp_path).service
    assert str(service.data_dir) == only(final, "VOLUME") == only(final, "WORKDIR")
    assert str(service.listen_port) == only(final, "EXPOSE")
    assert f"http://127.0.0.1:{service.listen_port}/ready" in only(final, "HEALTHCHECK")
    assert only(final, "ENTRYPOINT") == '["mailmill"]'
    [command] = yaml.safe_load(only(final, "CMD"))
    assert command in COMMANDS
    program, *_, code = yaml.safe_load(only(final, "HEALTHCHECK").partition("CMD ")[2])
    assert program == "python"
    compile(code, "HEALTHCHECK", "exec")


def test_the_shell_of_the_image_can_read_its_steps() -> None:
    for word, rest in instructions():
        if word == "RUN":
            subprocess.run(["sh", "-n", "-c", rest], check=True)
            assert "sudo" not in rest
            # pip has done it, and it fails over a file of Python 2 that a requirement brings along.
            assert "compileall" not in rest
            assert not re.search(r"(?<!&)&(?!&)|;|\|", rest), "a step that fails must fail the build"
            if "apt-get install" in rest:
                assert "--no-install-recommends" in rest
                assert "rm -rf /var/lib/apt/lists" in rest
            if "pip install" in rest:
                assert "--require-hashes" in rest or "--no-deps ." in rest


def test_what_is_copied_makes_the_whole_package(tmp_path: Path) -> None:
    """The build's last step, in a folder that holds nothing but what the steps before it have put there."""
    folder = tmp_path / "build"
    skip = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for source, target in copied():
        to = folder / target
        to.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, to, ignore=skip)
        else:
            shutil.copy(ROOT / source, to)
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-index"]
    made = subprocess.run(
        [*command, "--no-build-isolation", "--no-deps", "--wheel-dir", str(tmp_path), "."],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        inside = set(opened.namelist())
    package = ROOT / "src" / "mailmill"
    there = {
        f"mailmill/{each.relative_to(package).as_posix()}"
        for each in package.rglob("*")
        if each.is_file() and "__pycache__" not in each.parts
    }
    assert there - inside == set()
    assert (
        "mailmill = mailmill.cli.main:main"
        in zipfile.ZipFile(wheel).read(next(name for name in inside if name.endswith("entry_points.txt"))).decode()
    )


# -- compose ----------------------------------------------------------------------------------------------------------

SERVICES: dict[str, Any] = COMPOSE["services"]
NODES = {name: service for name, service in SERVICES.items() if name.startswith("node")}


def filled_in(value: str) -> str:
    """``${NAME:?why}`` and ``${NAME:-default}`` with a value."""
    return re.sub(r"\$\{(\w+)(?::[?-][^}]*)?\}", r"value-of-\1", value)


def test_the_nodes_are_two_of_the_same_kind() -> None:
    assert list(NODES) == ["node1", "node2"]
    one, two = NODES.values()
    assert one["environment"] == two["environment"]
    assert one["build"] == {"context": "..", "dockerfile": "deploy/Dockerfile"}
    data = [next(each for each in node["volumes"] if each.endswith(":/data")) for node in (one, two)]
    assert len(set(data)) == 2, "a data folder is one node's own"
    assert {each.split(":")[0] for each in data} <= set(COMPOSE["volumes"])
    for node in (one, two):
        [port] = node["ports"]
        assert port.startswith("127.0.0.1:")
        assert port.rpartition(":")[2] == only(stages()[1], "EXPOSE")
        assert node["read_only"] is True
        assert node["cap_drop"] == ["ALL"]


def test_the_nodes_share_what_nodes_must_share(tmp_path: Path) -> None:
    environ = {name: filled_in(value) for name, value in NODES["node1"]["environment"].items()}
    assert {name for name in environ if name.startswith("MAILMILL_")} <= VARIABLES
    settings = loaded(environ_of(stages()[1]) | environ, tmp_path)
    service = settings.service
    assert set(service.roles) == set(Role)
    url = service.database_url.get_secret_value()
    assert url.startswith("postgresql+asyncpg://")
    postgres = SERVICES["postgres"]["environment"]
    assert f"{postgres['POSTGRES_USER']}:{filled_in(postgres['POSTGRES_PASSWORD'])}@postgres/" in url
    assert url.endswith(f"/{postgres['POSTGRES_DB']}")
    assert service.blob_place.bucket in SERVICES["bucket"]["command"][-1]
    assert service.blob_endpoint == "http://minio:9000"
    minio = SERVICES["minio"]["environment"]
    assert service.blob_access_key_id == minio["MINIO_ROOT_USER"]
    assert service.blob_secret_access_key.get_secret_value() == filled_in(minio["MINIO_ROOT_PASSWORD"])
    assert settings.master_key is not None
    assert settings.warnings == ()


def test_what_is_waited_for_is_there_and_tells_of_its_health() -> None:
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            assert other in SERVICES, name
            if how["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[other]
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            assert (DEPLOY / source).is_file() if source.startswith("./") else source in COMPOSE["volumes"], mount
        if "build" not in service:
            assert re.fullmatch(r"\S+:[\w.-]+", service["image"]), "a tag, and not `latest`"
            assert not service["image"].endswith(":latest")


def test_the_database_tools_of_the_image_are_of_the_servers_version() -> None:
    [client] = re.findall(r"postgresql-client-(\d+)", only(stages()[1], "RUN"))
    assert SERVICES["postgres"]["image"].startswith(f"postgres:{client}-")


def test_no_secret_has_a_default() -> None:
    text = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    for name in ("MAILMILL_KEY", "POSTGRES_PASSWORD", "MINIO_PASSWORD"):
        uses = re.findall(rf"\$\{{{name}[^}}]*\}}", text)
        assert uses
        assert all(use.startswith(f"${{{name}:?") for use in uses), name
        assert f"{name}=$(openssl" in text


def test_compose_reads_the_file_and_asks_for_what_is_missing(tmp_path: Path) -> None:
    program = shutil.which("docker-compose")
    if program is None:
        pytest.skip("docker-compose is not installed: what it would say of the file, the tests above say of its parts")
    folder = tmp_path / "deploy"
    shutil.copytree(DEPLOY, folder)
    version = subprocess.run([program, "version", "--short"], capture_output=True, text=True, check=True).stdout
    if version.startswith("1."):
        # The first Compose does not know the project's name yet.
        file = folder / "compose.yaml"
        file.write_text(re.sub(r"(?m)^name: .*\n", "", file.read_text(encoding="utf-8")), encoding="utf-8")
    secrets = {"POSTGRES_PASSWORD": "p", "MINIO_PASSWORD": "m", "MAILMILL_KEY": "k"}
    command = [program, "-f", str(folder / "compose.yaml"), "config"]
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    read = subprocess.run(command, env=environ | secrets, capture_output=True, text=True, check=False)
    assert read.returncode == 0, read.stderr
    assert set(yaml.safe_load(read.stdout)["services"]) == set(SERVICES)
    for name in secrets:
        without = environ | {other: value for other, value in secrets.items() if other != name}
        refused = subprocess.run(command, env=without, capture_output=True, text=True, check=False)
        assert refused.returncode != 0, f"{name} is missing, and nobody was asked for it"
        assert "openssl" in refused.stderr


# -- Prometheus -------------------------------------------------------------------------------------------------------


def test_the_histories_are_of_alerts_that_there_are() -> None:
    rules = yaml.safe_load((DEPLOY / "prometheus-rules.yml").read_text(encoding="utf-8"))
    tried = yaml.safe_load((DEPLOY / "prometheus-rules-test.yml").read_text(encoding="utf-8"))
    alerts = {rule["alert"]: rule for group in rules["groups"] for rule in group["rules"]}
    cases = [case for history in tried["tests"] for case in history["alert_rule_test"]]
    assert {case["alertname"] for case in cases} <= set(alerts)
    for case in cases:
        for expected in case["exp_alerts"]:
            assert expected["exp_labels"]["severity"] == alerts[case["alertname"]]["labels"]["severity"]


def test_promtool_tries_the_rules_on_their_histories() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed: the test above compares rules and histories as far as it can")
    for command in (["check", "rules", "prometheus-rules.yml"], ["test", "rules", "prometheus-rules-test.yml"]):
        ran = subprocess.run([promtool, *command], cwd=DEPLOY, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stdout + ran.stderr


# -- what both take their secrets from --------------------------------------------------------------------------------


def test_the_environment_file_names_variables_that_there_are(tmp_path: Path) -> None:
    examples = dict(re.findall(r"^#([A-Z_]+)=(.*)$", ENVIRONMENT, re.MULTILINE))
    assert len(examples) > 5
    assert set(examples) <= VARIABLES
    assert re.findall(r"^[^#\n].*", ENVIRONMENT, re.MULTILINE) == [], "nothing is set until somebody sets it"
    given = {name: value or "some-value" for name, value in examples.items() if name != "MAILMILL_KEY"}
    assert loaded(given, tmp_path).service.blob_place.bucket == "our-mail"


def test_the_configuration_of_the_nodes_loads(tmp_path: Path) -> None:
    settings = load_settings(DEPLOY / "config.toml", {"HOME": str(tmp_path)})
    assert settings.warnings == ()
    named = {account.password_env for account in settings.accounts.values()}
    assert named <= set(NODES["node1"]["environment"])


def test_the_page_shows_what_is_there() -> None:
    for name in re.findall(r"`deploy/([\w.-]+)`|deploy/([\w.-]+\.(?:service|env|yaml))", PAGE):
        assert (DEPLOY / (name[0] or name[1])).is_file(), name
    host, port = split_listen(environ_of(stages()[1])["MAILMILL_SERVICE__LISTEN"])
    assert host == "0.0.0.0"
    assert f"--publish 127.0.0.1:{port}:{port}" in PAGE
