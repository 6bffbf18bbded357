"""The page, in a real browser (headless Chromium)."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from dashboard.browser import Page, browser
from dashboard.clients import TOKEN
from dashboard.fake_rows import HOSTILE, finding, node
from dashboard.fake_use_cases import FakeUseCases
from mailmill.api.access import Access
from mailmill.api.application import create_app
from mailmill.api.contract import JsonObject
from mailmill.api.server import HttpServer, ListenSettings, listening
from mailmill.app.threat_explanation import explain
from mailmill.message_parser import parse_message
from mailmill.model import Verdict, VerdictName
from mailmill.processing.threat.context import prepare
from mailmill.processing.threat.engine import FAMILIES
from mailmill.processing.threat.scoring import DEFAULT_TABLE

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

SHOWN = "document.getElementById('message-list').getAttribute('aria-busy') === 'false'"
ROWS = "[...document.querySelectorAll('.message .subject')].map((subject) => subject.textContent)"


@pytest.fixture
async def page(tmp_path: Path) -> AsyncIterator[Page]:
    assert CHROMIUM, "these tests need a Chromium: apt-get install chromium"
    async with browser(CHROMIUM, tmp_path / "profile") as tab:
        await tab.look(width=1360, height=900)
        yield tab


class Service:
    """An API that listens, and what stands behind it."""

    def __init__(self, fake: FakeUseCases, port: int = 0) -> None:
        self.fake = fake
        self.access = Access(TOKEN)
        self.port = port

    def listening(self) -> AbstractAsyncContextManager[HttpServer]:
        return listening(create_app(self.fake, self.access), ListenSettings(port=self.port, grace_seconds=1))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def enter(self, page: Page) -> None:
        await page.go(f"{self.url}/login?code={self.access.new_link_code()}")
        await page.wait_until(f"location.pathname === '/' && {SHOWN}")


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    running = Service(FakeUseCases())
    async with running.listening() as server:
        running.port = server.port or 0
        yield running


async def test_the_link_shows_accounts_queue_and_messages(page: Page, service: Service) -> None:
    await service.enter(page)
    assert await page.run(ROWS) == [row["subject"] or "(no subject)" for row in service.fake.message_rows]
    text = await page.run("document.body.innerText")
    for shown in (
        "1 account needs attention",
        "Login refused",
        "Invalid password",
        "3,180 of 5,000",
        "Malicious 91",
        "Suspicious 66",
        "Speaks to assistants",
        "Processing failed",
        "129,266",
        "12,408",
        "Oldest waits 3 s",
    ):
        assert shown in text
    assert page.problems == []
    assert [url for url in page.requested if not url.startswith(service.url)] == [], "nothing comes from outside"


async def test_the_page_tells_of_the_other_nodes(page: Page, service: Service) -> None:
    service.fake.nodes = [node("mill-1", shards=40, accounts=3), node("mill-2", shards=24, state="silent")]
    await service.enter(page)
    await page.wait_until("document.getElementById('node').innerText.includes('1 of 2 nodes alive')")
    nodes = await page.run("[...document.querySelectorAll('.node-card')].map((card) => card.innerText)")
    assert len(nodes) == 2
    assert "Alive" in nodes[0] and "3 accounts in 40 shards" in nodes[0] and "Answers here" in nodes[0]
    assert "Silent" in nodes[1] and "0 accounts in 24 shards" in nodes[1] and "Answers here" not in nodes[1]
    assert page.problems == []


async def test_all_is_well_only_where_it_is(page: Page, service: Service) -> None:
    service.fake.account_rows = [row for row in service.fake.account_rows if row["state"] == "connected"]
    service.fake.figures |= {"pending": 0, "processing": 0, "failed": 0}
    await service.enter(page)
    told = "document.getElementById('service').innerText"
    tone = "document.getElementById('service').dataset.tone"
    await page.wait_until(f"{told} === 'All is well' && {tone} === 'good'")
    service.fake.figures["failed"] = 3
    await page.wait_until(f"{told} === '3 failed jobs' && {tone} === 'warn'")
    service.fake.figures["processing"] = 1
    await page.wait_until(f"{told} === 'Processing · 3 failed jobs' && {tone} === 'busy'")
    service.fake.nodes = [node("mill-1"), node("mill-2", state="silent"), node("mill-3", state="silent")]
    await page.wait_until(f"{told} === '2 nodes silent' && {tone} === 'warn'")
    service.fake.account_rows[0]["state"] = "connectError"
    await page.wait_until(f"{told} === '1 account needs attention · 2 nodes silent'")
    assert page.problems == []


async def test_how_it_goes_with_an_account_only_its_own_node_says(page: Page, service: Service) -> None:
    service.fake.nodes = [node("mill-1", accounts=2), node("mill-2", accounts=1)]
    for row in service.fake.account_rows:
        row["node"] = "mill-1"
    service.fake.account_rows[0]["node"], service.fake.account_rows[1]["node"] = "mill-2", None
    there, nowhere, here = (row["account"] for row in service.fake.account_rows[:3])
    await service.enter(page)
    await page.wait_until("document.querySelectorAll('.account').length > 2")
    cards = dict(
        await page.run("[...document.querySelectorAll('.account')].map((card) => [card.dataset.key, card.innerText])")
    )
    assert "Kept in sync by mill-2" in cards[there] and "Last answer" not in cards[there]
    assert "No node keeps it in sync" in cards[nowhere] and "Last full pass" not in cards[nowhere]
    assert "Last answer" in cards[here] and "Last full pass" in cards[here] and "Kept in sync" not in cards[here]


async def test_a_login_that_is_tried_tells_how_long_it_took(page: Page, service: Service) -> None:
    await service.enter(page)
    await page.wait_until("document.querySelector('.account footer button')")
    card = "[...document.querySelectorAll('.account')].find((card) => !card.querySelector('.reason'))"
    await page.run(f"{card}.querySelector('footer button').click()")
    await page.wait_until(f"{card}.innerText.includes('Login works')")
    told = await page.run(f"{card}.querySelector('[role=status]').textContent")
    assert re.fullmatch(r"Login works \([1-9]\d* ms, .+\)|Login works \(\d+\.\d s, .+\)", told), told


async def test_what_is_paused_is_named(page: Page, service: Service) -> None:
    await service.enter(page)
    assert await page.run("document.getElementById('paused').hidden")
    service.fake.figures["paused"] = ["summary", "invoice"]
    await page.wait_until("document.getElementById('paused').innerText === 'Paused: summary, invoice'")
    assert await page.run("document.getElementById('nodes-section').hidden"), "one process is no fleet"
    assert await page.run("document.getElementById('node').textContent.startsWith('version ')")


async def test_a_new_message_appears_by_itself(page: Page, service: Service) -> None:
    await service.enter(page)
    await service.fake.waiting_for_events.wait()
    service.fake.arrive({**service.fake.message_rows[1], "id": "999", "uid": 4_999, "subject": "Just in " + HOSTILE})
    await page.wait_until(f"{ROWS}[0].startsWith('Just in')")
    await page.wait_until("document.getElementById('live').textContent === '1 new message'")
    assert await page.run(f"{ROWS}[0]") == "Just in " + HOSTILE
    assert await page.run("document.title") == "mailmill"
    assert page.problems == []


async def test_a_page_that_slept_for_longer_than_events_are_kept_goes_on(page: Page, service: Service) -> None:
    fake = service.fake
    fake.raise_event("messageNew", fake.message_rows[0])
    await service.enter(page)
    await fake.waiting_for_events.wait()
    fake.waiting_for_events.clear()
    missed = {**fake.message_rows[1], "id": "998", "uid": 4_998, "subject": "Missed"}
    fake.message_rows.insert(0, missed)
    fake.event_rows += [{**fake.event_rows[-1], "id": "2"}, {**fake.event_rows[-1], "id": "3"}]
    fake.remove_events()
    await fake.waiting_for_events.wait()
    await page.wait_until(f"{ROWS}[0] === 'Missed' && document.getElementById('offline').hidden")
    fake.arrive({**missed, "id": "999", "uid": 4_999, "subject": "Just in"})
    await page.wait_until(f"{ROWS}[0] === 'Just in'")
    assert [problem for problem in page.problems if "410" not in problem] == []


async def test_a_message_opens_with_its_verdict_and_as_text_only(page: Page, service: Service) -> None:
    await service.enter(page)
    await page.run("document.querySelector('.message').click()")
    await page.wait_until("document.querySelectorAll('#panel .findings li').length === 4")
    text = await page.run("document.getElementById('panel').innerText")
    for shown in (
        "Action required: your mailbox will be closed today",
        "Northwind IT Support <it-desk@n0rthwind-accounts.example>",
        "Malicious",
        "This message is very likely an attack.",
        "Do not answer, follow its links, open its files or call its numbers.",
        "Score 91 of 100",
        "A link shows one domain and leads to another.",
        "the link goes to http://185.203.0.113/nw/login.php",
        "Links · high severity · 32\u00a0points",
        "Where it comes from · high severity",
        "quota-report.pdf.html",
        HOSTILE.split(">", maxsplit=1)[0],
    ):
        assert shown in text
    evidence = await page.run("document.querySelector('#panel .findings li:last-child .evidence').textContent")
    assert evidence.startswith(HOSTILE + " \ufffdtxt.exe\ufffd "), "shown as it is, but what turns text around"
    assert "addressed to an AI assistant" not in text
    assert await page.run("document.querySelectorAll('img[src=x], #panel script').length") == 0
    assert await page.run("document.title") == "mailmill"
    assert await page.run("location.hash") == "#finance/914"

    await page.run("document.getElementById('panel-close').click()")
    await page.wait_until("!document.getElementById('panel').open && location.hash === ''")
    assert page.problems == []


async def test_a_message_opened_right_after_another_was_closed_is_shown(page: Page, service: Service) -> None:
    await service.enter(page)
    await page.run("document.querySelector('.message').click()")
    await page.wait_until("document.querySelector('#panel .verdict-box')")
    # The event of the closing comes after the click.
    await page.run("document.getElementById('panel').close(); document.querySelectorAll('.message')[3].click()")
    wanted = json.dumps(service.fake.message_rows[3]["subject"])
    await page.wait_until(f"document.getElementById('panel-subject').textContent === {wanted}")
    assert await page.run("location.hash") != ""


async def _verdict_of(page: Page, service: Service, threat: JsonObject | None) -> str:
    """The text of the verdict box on the message that this is the result for, all of it folded out."""
    row = service.fake.message_rows[0]
    service.fake.threats[row["id"]] = threat
    await service.enter(page)
    await page.run("document.querySelector('.message').click()")
    await page.wait_until("document.querySelector('#panel .verdict-box')")
    await page.run("document.querySelectorAll('#panel .verdict-box details').forEach(each => each.open = true)")
    return str(await page.run("document.querySelector('#panel .verdict-box').innerText"))


async def test_text_addressed_to_an_assistant_is_warned_of(page: Page, service: Service) -> None:
    await service.enter(page)
    await page.run("document.querySelectorAll('.message')[3].click()")
    await page.wait_until("document.querySelector('#panel .for-assistants')")
    text = await page.run("document.querySelector('#panel .verdict-box').innerText")
    for shown in (
        "Be careful: this message shows signs of deceit.",
        "This message holds text addressed to an AI assistant.",
        "It holds an instruction to AI assistants that you cannot see.",
        "1 remark that counts nothing",
    ):
        assert shown in text
    assert "detector failed" not in text, "folded in"
    assert page.problems == []


async def test_a_result_of_the_first_version_is_shown_without_reasons(page: Page, service: Service) -> None:
    findings = [finding("links.text_differs_from_target", "high", 38.0, "x"), finding("sender.old", "info", -5.0, "")]
    text = await _verdict_of(page, service, {"verdict": "suspicious", "score": 44.0, "findings": findings})
    for shown in ("Score 44 of 100", "Text differs from target", "38\u00a0points", "Old", "−5\u00a0points"):
        assert shown in text
    assert page.problems == []


async def test_reasons_that_two_findings_share_stand_on_their_own(page: Page, service: Service) -> None:
    findings = [finding(f"acme.rule_{number}", "high", 90.0 - number, "seen") for number in range(8)]
    threat = {"verdict": "malicious", "score": 100.0, "findings": findings, "reasons": ["One reason for all."]}
    text = await _verdict_of(page, service, threat)
    assert text.count("One reason for all.") == 1
    assert text.index("One reason") < text.index("Rule 0") < text.index("3 more findings") < text.index("Rule 5")


async def test_what_a_clean_verdict_says(page: Page, service: Service) -> None:
    clean = {"verdict": "clean", "score": 0.0, "findings": [], "reasons": [], "promptInjection": False}
    assert "Nothing found." in await _verdict_of(page, service, clean)
    odd = clean | {"score": 18.0, "findings": [finding("sender.false_reply", "low", 18.0, "")], "reasons": ["A reply."]}
    text = await _verdict_of(page, service, odd)
    assert "odd, but too few" in text and "1 small thing found" in text and "A reply." in text
    assert "Not scanned yet" in await _verdict_of(page, service, None)
    assert page.problems == []


@pytest.mark.parametrize("name", list(VerdictName))
async def test_it_says_and_advises_what_the_command_line_does(page: Page, service: Service, name: VerdictName) -> None:
    context = prepare(parse_message(b"From: a@b.example\r\n\r\nHello"))
    told = explain(context, Verdict(name, 0.0), DEFAULT_TABLE, None)
    await service.enter(page)
    said = await page.run(
        "import('/static/words.js').then((words) => [words.verdictSentence, words.verdictAdvice]"
        f".map((say) => say({{verdict: '{name}', score: 0}})))"
    )
    assert said == [told.sentence, told.advice[0] if told.advice else ""]


async def test_every_family_has_plain_words(page: Page, service: Service) -> None:
    await service.enter(page)
    for family in (*FAMILIES, "own_rules", "engine"):
        words = await page.run(f"import('/static/words.js').then((words) => words.familyWords('{family}'))")
        assert words != family.replace("_", " ").capitalize() or family in ("sender", "links"), family


async def test_the_verdict_can_be_read_by_keyboard(page: Page, service: Service) -> None:
    await service.enter(page)
    await page.run("document.querySelectorAll('.message')[3].focus()")
    await page.press("Enter")
    await page.wait_until("document.querySelector('#panel .verdict-box details')")
    await page.press("Tab")
    assert await page.run("document.activeElement.innerText") == "1 remark that counts nothing"
    await page.press("Enter")
    await page.wait_until("document.querySelector('#panel .verdict-box details').open")
    meter = "document.querySelector('#panel [role=meter]')"
    assert await page.run(f"{meter}.getAttribute('aria-valuetext')") == "Score 66 of 100"
    await page.press("Escape")
    await page.wait_until("!document.getElementById('panel').open")
    assert "message" in await page.run("document.activeElement.className")


async def test_a_message_shows_every_version_s_result_and_what_went_wrong(page: Page, service: Service) -> None:
    await service.enter(page)
    await page.run("document.querySelector('.message').click()")
    await page.wait_until("document.querySelectorAll('#panel .errors li').length === 3")
    await page.run("document.querySelectorAll('#panel details').forEach(each => each.open = true)")
    text = await page.run("document.getElementById('panel').innerText")
    for shown in (
        "Invoice, version 1: failed, 5 failed runs",
        "ValueError: no total",
        "version 2 · 2 ms · 3 runs",
        "TimeoutError: took over 30 s",
        "the worker died while running it",
        "version 1 · replaced · 2 ms",
        '"verdict": "suspicious"',
    ):
        assert shown in text, shown
    assert page.problems == []


async def test_failed_work_is_retried_from_the_page(page: Page, service: Service) -> None:
    await service.enter(page)
    await page.run("document.getElementById('retry').click()")
    await page.wait_until("document.getElementById('notice').textContent === '2 jobs in the queue again'")
    assert ("retry", None, None) in service.fake.calls
    await page.wait_until("document.getElementById('retry').hidden")
    await page.run("document.getElementById('sync').click()")
    await page.wait_until("document.getElementById('notice').textContent.startsWith('Synced in')")
    assert page.problems == []


async def test_the_filters_ask_for_their_messages(page: Page, service: Service) -> None:
    await service.enter(page)
    await page.run("document.querySelector('[data-filter=\"verdict=malicious\"]').click()")
    await page.wait_until(
        f"{ROWS}.length === 1 && document.querySelector('.message .verdict').innerText === 'Malicious 91'"
    )
    service.fake.message_rows.clear()
    await page.run("document.querySelector('[data-filter=\"status=failed\"]').click()")
    await page.wait_until("document.getElementById('no-messages').innerText.includes('Nothing has failed')")


async def test_the_page_tells_when_the_service_is_gone_and_recovers(page: Page) -> None:
    service = Service(FakeUseCases())
    async with service.listening() as server:
        service.port = server.port or 0
        await service.enter(page)
    await page.wait_until("!document.getElementById('offline').hidden")
    assert "cannot be reached" in await page.run("document.getElementById('offline').innerText")
    assert await page.run("document.getElementById('service').innerText") == "Cannot be reached"
    assert len(await page.run(ROWS)) == len(service.fake.message_rows), "what was known stays in view"
    async with service.listening():
        await page.wait_until("document.getElementById('offline').hidden")
        await page.wait_until("document.getElementById('service').innerText === '1 account needs attention'")


async def test_a_session_that_has_ended_leads_to_the_form(page: Page, service: Service) -> None:
    await service.enter(page)
    await page.run("document.getElementById('logout').click()")
    await page.wait_until("location.pathname === '/login' && !document.getElementById('enter').disabled")
    await page.run("document.getElementById('token').value = 'wrong'; document.querySelector('form').requestSubmit()")
    await page.wait_until("document.getElementById('problem').textContent.includes('not the API token')")
    await page.run(
        f"document.getElementById('token').value = '{TOKEN}'; document.querySelector('form').requestSubmit()"
    )
    await page.wait_until(f"location.pathname === '/' && {SHOWN}")


async def test_a_used_link_says_what_to_do(page: Page, service: Service) -> None:
    await page.go(f"{service.url}/login?code=used")
    await page.wait_until("document.body.innerText.includes('mailmill status')")


async def test_with_nothing_yet_it_says_what_to_do(page: Page) -> None:
    service = Service(FakeUseCases(empty=True))
    async with service.listening() as server:
        service.port = server.port or 0
        await service.enter(page)
        text = await page.run("document.body.innerText")
        assert page.problems == []
    for shown in (
        "Running, no accounts yet",
        "No accounts yet.",
        "[accounts.work]",
        "mailmill demo",
        "No messages yet.",
    ):
        assert shown in text


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
async def test_a_narrow_screen_needs_no_sideways_scrolling(page: Page, service: Service, dark: bool) -> None:
    await page.look(width=360, height=740, dark=dark)
    await service.enter(page)
    assert await page.run("document.documentElement.scrollWidth") <= 360
    brand, state = await page.run(
        "[...document.querySelectorAll('.brand, #service')].map((part) => part.getBoundingClientRect().toJSON())"
    )
    assert state["top"] >= brand["bottom"], "it has a line of its own"
    assert state["width"] < 280, "as wide as its words"
    await page.run("document.querySelector('.message').click()")
    await page.wait_until("document.querySelector('#panel .findings')")
    assert await page.run("document.getElementById('panel').scrollWidth") <= 360
    grounds = {False: "rgb(245, 244, 240)", True: "rgb(18, 21, 23)"}
    assert await page.run("getComputedStyle(document.body).backgroundColor") == grounds[dark]
