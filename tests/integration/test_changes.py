"""Changes as people and programs ask for them: the command line and the API, with a service and without one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from harness import stores
from harness.other_client import OtherClient
from harness.service import RunningService, mailmill, service
from servers.dovecot import Dovecot

pytestmark = pytest.mark.children_only


def raw(number: int) -> bytes:
    return f"Subject: number {number}\r\nMessage-ID: <{number}@example.org>\r\n\r\n{number}\r\n".encode()


@pytest.fixture
def config(dovecot: Dovecot, mail_user: str, tmp_path: Path, data_dir: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(
        f"""
[service]
data_dir = "data"
database_url = "{stores.database_url(data_dir)}"
listen = "127.0.0.1:0"
[processors]
enabled = []
[accounts.work]
username = "{mail_user}"
password = "x"
imap = {{ host = "{dovecot.host}", port = {dovecot.port}, tls = "none" }}
"""
    )
    path.chmod(0o600)
    return path


@pytest.fixture
async def other(dovecot: Dovecot, mail_user: str) -> AsyncIterator[OtherClient]:
    async with OtherClient(dovecot.host, dovecot.port, mail_user, dovecot.password) as client:
        await client.append("INBOX", raw(1), raw(2), raw(3))
        await client.create("Trash")
        yield client


async def ids_of(config: Path) -> dict[str, str]:
    """Subject → message id."""
    listed = await mailmill(config, "envelope", "list", "--json")
    return {each["subject"]: each["id"] for each in listed.json()["messages"]}


@pytest.mark.both_databases
async def test_the_command_line_without_a_service_and_with_one(
    config: Path, other: OtherClient, tmp_path: Path
) -> None:
    assert (await mailmill(config, "sync")).code == 0
    ids = await ids_of(config)
    first, second, third = (ids[f"number {number}"] for number in (1, 2, 3))

    flagged = await mailmill(config, "flag", "add", first, second, "seen", "todo")
    assert (flagged.code, flagged.out) == (0, f"{first}  +seen +todo in INBOX\n{second}  +seen +todo in INBOX\n")
    moved = await mailmill(config, "message", "move", first, "Archive")
    assert (moved.code, moved.out) == (0, f"{first}  INBOX → Archive\n")
    deleted = await mailmill(config, "message", "delete", third)
    assert (deleted.code, deleted.out) == (0, f"{third}  INBOX → Trash\n")
    # Synced when the commands ended; a moved message has its id still.
    assert await ids_of(config) == ids

    async with service(config, tmp_path / "data" / "mailmill.sock") as running:
        places = (await running.get(f"/v1/account/work/message/{first}"))["places"]
        assert [place["path"] for place in places] == ["Archive"]
        unflagged, gone = await asyncio.gather(
            mailmill(config, "flag", "remove", second, "todo", "--account", "work", "--json"),
            mailmill(config, "message", "delete", third),
        )
        assert (unflagged.code, unflagged.json()["requests"][0]["remove"]) == (0, ["todo"])
        assert (gone.code, gone.out) == (0, f"{third}  deleted from Trash\n")
        copied = await mailmill(config, "message", "copy", second, "Archive")
        assert (copied.code, copied.out) == (0, f"{second}  INBOX copied to Archive\n")
        ambiguous, flagged = await asyncio.gather(
            mailmill(config, "flag", "add", second, "flagged"),
            mailmill(config, "flag", "add", second, "flagged", "--path", "Archive"),
        )
        assert ambiguous.code == 1
        assert "is in several places: 'INBOX' (UID 2), 'Archive' (UID 2)" in ambiguous.err
        assert flagged.code == 0

    held = await other.truth()
    assert {content: flags for flags, content in held["Archive"].values()} == {
        raw(1): {r"\Seen", "todo"},
        raw(2): {r"\Seen", r"\Flagged"},
    }
    assert list(held["INBOX"].values()) == [({r"\Seen"}, raw(2))]
    assert held["Trash"] == {}


WRONG: list[tuple[tuple[str, ...], int, str]] = [
    (("flag", "add", "seen"), 2, "no message is named"),
    (("flag", "add", "1"), 2, "no flag is named"),
    (("flag", "add", "1", "recent"), 2, "Recent is the server's own"),
    (("flag", "add", "1", "two words"), 2, "not a flag: 'two words'"),
    (("flag", "add", "999", "seen"), 3, "no account has a message '999'"),
    (("message", "move", "Archive"), 2, "a message and a mailbox are needed"),
    (("message", "move", "one", "Archive"), 2, "not a message id: 'one'"),
    (("message", "move", "1", "No such mailbox"), 3, "the server has no mailbox 'No such mailbox'"),
    (("message", "delete", "1", "--path", "Archive"), 3, "message 1 is not in 'Archive'"),
    (("message", "delete", "1", "--account", "nobody"), 3, "no account 'nobody' is configured"),
]


async def test_what_cannot_be_is_said(config: Path, other: OtherClient, tmp_path: Path) -> None:
    assert (await mailmill(config, "sync")).code == 0
    async with service(config, tmp_path / "data" / "mailmill.sock"):
        # Side by side: it is the start of a process that takes its time.
        ended = await asyncio.gather(*(mailmill(config, *arguments) for arguments, _, _ in WRONG))
    for (_, code, said), finished in zip(WRONG, ended, strict=True):
        assert (finished.code, finished.out) == (code, ""), finished
        assert said in finished.err
        assert "hint: " in finished.err


async def test_without_a_service_and_without_the_server_the_request_is_kept(
    start_dovecot: Callable[..., Any], tmp_path: Path
) -> None:
    own = await start_dovecot()
    user = own.new_user()
    await own.add_message(user, "INBOX", raw(1))
    config = tmp_path / "config.toml"
    config.write_text(
        f'[service]\ndata_dir = "data"\n[processors]\nenabled = []\n[accounts.work]\nusername = "{user}"\n'
        f'password = "x"\nimap = {{ host = "{own.host}", port = {own.port}, tls = "none" }}\n'
    )
    config.chmod(0o600)
    assert (await mailmill(config, "sync")).code == 0
    await asyncio.to_thread(own.stop)
    failed = await mailmill(config, "flag", "add", "1", "seen")
    assert failed.code == 5, failed
    await asyncio.to_thread(own.start)
    assert (await mailmill(config, "sync")).code == 0
    assert (await own.flags(user, "INBOX"))[1] == {r"\Seen"}


async def change(running: RunningService, method: str, path: str, **options: Any) -> tuple[int, Any]:
    answer = await running.http.request(method, f"/v1/account/work{path}", **options)
    return answer.status_code, answer.json()


@pytest.mark.both_databases
async def test_the_api_of_a_running_service(config: Path, other: OtherClient, tmp_path: Path) -> None:
    async with service(config, tmp_path / "data" / "mailmill.sock") as running:
        await running.post("/v1/sync")
        listed = await running.get("/v1/messages")
        ids = {each["subject"]: each["id"] for each in listed["messages"]}
        cursor = int((await running.get("/v1/status"))["cursor"])

        status, flagged = await change(
            running, "POST", f"/message/{ids['number 1']}/flags", json={"add": ["seen", "todo"], "remove": ["flagged"]}
        )
        assert (status, flagged["state"], flagged["add"], flagged["path"]) == (200, "done", [r"\Seen", "todo"], "INBOX")
        event = await running.until_event("messageUpdated", cursor)
        assert event["data"]["id"] == ids["number 1"]
        assert sorted(event["data"]["flags"]) == [r"\Seen", "todo"]

        status, moved = await change(
            running, "POST", f"/message/{ids['number 1']}/move", json={"path": "Archive", "from": "inbox"}
        )
        assert (status, moved["outcome"]["path"], moved["outcome"]["uid"]) == (200, "Archive", 1)
        place = (await running.get(f"/v1/account/work/message/{ids['number 1']}"))["places"][0]
        assert (place["path"], place["uid"]) == ("Archive", 1)

        key = {"Idempotency-Key": "once", "Content-Type": "message/rfc822"}
        uploaded = [
            await change(
                running,
                "POST",
                "/messages?path=Archive&flag=draft&date=2026-01-02T03:04:05Z",
                content=content,
                headers=key,
            )
            for content in (raw(50), raw(50).replace(b"\r\n", b"\n"))
        ]
        assert [(status, each["id"]) for status, each in uploaded] == [(200, uploaded[0][1]["id"])] * 2
        assert uploaded[0][1]["messageId"] is not None
        status, refused = await change(running, "POST", "/messages?path=Archive", content=raw(51), headers=key)
        assert (status, refused["error"]["code"]) == (409, "conflict")

        for date in ("0001-01-01T00:00:00", "9999-12-31T23:59:59-12:00"):
            status, refused = await change(running, "POST", f"/messages?path=Archive&date={date}", content=raw(52))
            assert (status, refused["error"]["code"]) == (400, "invalidRequest")

        status, deleted = await change(running, "DELETE", f"/message/{ids['number 2']}")
        assert (status, deleted["targetPath"]) == (200, "Trash")
        status, gone = await change(running, "DELETE", f"/message/{ids['number 3']}?permanent=true")
        assert (status, gone["permanent"]) == (200, True)

        held = await other.truth()
        assert held["INBOX"] == {}
        assert {content: flags for flags, content in held["Archive"].values()} == {
            raw(1): {r"\Seen", "todo"},
            raw(50): {r"\Draft"},
        }
        assert [content for _, content in held["Trash"].values()] == [raw(2)]

        status, failed = await change(
            running, "POST", f"/message/{ids['number 1']}/copy", json={"path": "No such mailbox"}
        )
        assert (status, failed["error"]["code"]) == (404, "notFound")
        requests = (await running.get("/v1/account/work/requests"))["requests"]
        assert [each["state"] for each in requests] == ["failed", *["done"] * 5]
        assert [each["kind"] for each in requests] == ["copy", "delete", "delete", "append", "move", "flags"]
        assert await running.get(f"/v1/account/work/request/{flagged['id']}") == requests[-1]
        for path, body in (
            (f"/message/{ids['number 1']}/flags", {}),
            (f"/message/{ids['number 1']}/flags", {"add": ["seen"], "remove": ["\\Seen"]}),
            (f"/message/{ids['number 1']}/flags", {"add": ["x" * 200]}),
            ("/message/x/flags", {"add": ["seen"]}),
            (f"/message/{ids['number 1']}/move", {}),
        ):
            status, wrong = await change(running, "POST", path, json=body)
            assert (status, wrong["error"]["code"]) == (400, "invalidRequest"), path
        # The command line speaks to the same service.
        finished = await mailmill(config, "flag", "remove", ids["number 1"], "todo")
        assert (finished.code, finished.out) == (0, f"{ids['number 1']}  -todo in Archive\n")
        assert (await running.stop()) == 0


@pytest.mark.both_databases
async def test_an_upload_of_bytes_whose_copy_is_lost(config: Path, other: OtherClient, tmp_path: Path) -> None:
    """The mail server is sent what was asked for, and the message that had the same bytes can be read again."""
    async with service(config, tmp_path / "data" / "mailmill.sock") as running:
        await running.post("/v1/sync")
        for segment in (tmp_path / "data" / "blobs" / "segments").glob("*/*.seg"):
            segment.unlink()
        status, uploaded = await change(running, "POST", "/messages?path=Trash", content=raw(1))
        assert (status, uploaded["state"]) == (200, "done")
        assert [content for _, content in (await other.truth())["Trash"].values()] == [raw(1)]
        ids = {each["subject"]: each["id"] for each in (await running.get("/v1/messages"))["messages"]}
        answer = await running.http.get(f"/v1/account/work/message/{ids['number 1']}/source")
        assert (answer.status_code, answer.content) == (200, raw(1))


async def test_what_waits_for_the_server_is_answered_so(start_dovecot: Callable[..., Any], tmp_path: Path) -> None:
    own = await start_dovecot()
    user = own.new_user()
    await own.add_message(user, "INBOX", raw(1))
    config = tmp_path / "config.toml"
    config.write_text(
        f'[service]\ndata_dir = "data"\nlisten = "127.0.0.1:0"\n[processors]\nenabled = []\n[accounts.work]\n'
        f'username = "{user}"\npassword = "x"\nimap = {{ host = "{own.host}", port = {own.port}, tls = "none" }}\n'
    )
    config.chmod(0o600)
    async with service(config, tmp_path / "data" / "mailmill.sock") as running:
        await running.post("/v1/sync")
        await asyncio.to_thread(own.stop)
        await running.until_event("connectError")
        status, waiting = await change(running, "POST", "/message/1/flags", json={"add": ["seen"]})
        assert (status, waiting["state"], waiting["accountState"]) == (202, "pending", "connectError")
        finished = await mailmill(config, "flag", "add", "1", "flagged")
        assert finished.code == 5
        assert "not done yet: account 'work' is connectError; the request is kept" in finished.err
        await asyncio.to_thread(own.start)
        await running.until_event("messageUpdated")
        await running.post("/v1/sync")
        assert (await own.flags(user, "INBOX"))[1] == {r"\Seen", r"\Flagged"}
        assert (await running.get("/v1/account/work/request/1"))["state"] == "done"
