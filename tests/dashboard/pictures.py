"""Makes the pictures of the README anew, from the demo: ``PYTHONPATH=tests .venv/bin/python -m dashboard.pictures``.

Needs Chromium. They show the moment at which the demo has had one message of each kind of verdict.
"""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image

from dashboard.browser import Page, browser

FOLDER = Path(__file__).parents[2] / "docs" / "images"
WIDTH, HEIGHT, SCALE = 1280, 980, 1.5  # pixels of the page, and how many of the picture stand for one
COLOURS = 256
NEWEST = "Quick favour - are you at your desk?"

LISTED = f"document.querySelector('.message .subject')?.textContent === {json.dumps(NEWEST)}"
JUDGED = "[...document.querySelectorAll('.message .verdict')].every((each) => /\\d$/.test(each.textContent))"
COUNTED = (
    "document.querySelector('#verdict-legend [data-tone=bad]').textContent"
    " === `${document.querySelectorAll('.message[data-tone=bad]').length} malicious`"
)
AT_REST = "document.getElementById('service').textContent === 'All is well'"


async def take(page: Page, link: str) -> list[bytes]:
    """In light and in dark, of one moment: the demo goes on, the page is stopped."""
    await page.look(width=WIDTH, height=HEIGHT, scale=SCALE)
    await page.go(link)
    await page.wait_until(f"{LISTED} && {JUDGED} && {COUNTED} && {AT_REST}")
    await page.run("document.querySelector('noscript').remove()")
    await page.call("Emulation.setScriptExecutionDisabled", value=True)
    await page.run("document.getAnimations().forEach((each) => each.finish())")
    taken = []
    for dark in (False, True):
        await page.look(width=WIDTH, height=HEIGHT, scale=SCALE, dark=dark)
        taken.append(await page.screenshot())
    return taken


def small(png: bytes) -> bytes:
    """The same picture with a palette: a third of the bytes, and no eye sees it on a page of few colours."""
    held = io.BytesIO()
    with Image.open(io.BytesIO(png)) as picture:
        picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(held, "PNG", optimize=True)
    return held.getvalue()


async def main() -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("the pictures need a Chromium: apt-get install chromium")
    demo = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mailmill", "demo", "--json"), stdout=asyncio.subprocess.PIPE, limit=1 << 20
    )
    assert demo.stdout is not None
    try:
        link = json.loads(await demo.stdout.readline())["page"]
        draining = asyncio.create_task(demo.stdout.read())
        with tempfile.TemporaryDirectory() as profile:
            async with browser(chromium, Path(profile)) as page:
                light, dark = await take(page, link)
    finally:
        demo.terminate()
        await demo.wait()
    await draining
    (FOLDER / "dashboard.png").write_bytes(small(light))
    (FOLDER / "dashboard-dark.png").write_bytes(small(dark))


if __name__ == "__main__":
    asyncio.run(main())
