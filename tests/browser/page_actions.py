"""Actions shared by the browser tests and the README's screenshots: drawing a 7 with the mouse on the page."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SEVEN = (((60, 62), (120, 58), (205, 52)), ((205, 52), (180, 110), (150, 170), (128, 238)))
PAD_SIZE = 280
"""Range of the strokes' coordinates, independent of the drawing area's size on the screen."""


@contextmanager
def chromium() -> Iterator["Browser"]:
    """Runs Debian's Chromium with Playwright, without downloading a browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # The sandbox does not work as root in a container. The browser opens only Convoy's page.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def draw_seven(page: "Page") -> None:
    """Draws two strokes with the mouse, and waits for the prediction of the complete digit."""
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
    """Waits until the prediction and the layers belong to the last action."""
    page.locator("main[aria-busy='false']").wait_for()
