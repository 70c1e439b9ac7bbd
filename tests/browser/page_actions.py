"""What the browser tests and the README's image share: the strokes of a 7, by mouse on the real page."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SEVEN = (((60, 62), (120, 58), (205, 52)), ((205, 52), (180, 110), (150, 170), (128, 238)))
PAD_SIZE = 280
"""The strokes' coordinates go from 0 to this, whatever the size on the screen."""


@contextmanager
def chromium() -> Iterator["Browser"]:
    """Debian's browser, driven by Playwright, which downloads none."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Its sandbox cannot be had as root in a container; it opens nothing but our own page.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def draw_seven(page: "Page") -> None:
    """As a hand does: press, move, let go, twice; then waits for the answer to the whole digit."""
    pad = page.locator("#pad")
    pad.scroll_into_view_if_needed()
    box = pad.bounding_box()
    assert box is not None
    for stroke in SEVEN:
        for at, (x, y) in enumerate(stroke):
            page.mouse.move(box["x"] + x / PAD_SIZE * box["width"], box["y"] + y / PAD_SIZE * box["height"], steps=6)
            if not at:
                page.mouse.down()
        page.mouse.up()
    wait_until_idle(page)


def wait_until_idle(page: "Page") -> None:
    """Waits until the answer, and what the layers see, belong to the last thing done."""
    page.locator("main[aria-busy='false']").wait_for()
