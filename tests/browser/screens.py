"""Takes the README's screenshots of the playground: `python -m tests.browser.screens`."""

import io
from pathlib import Path

from PIL import Image

from tests.browser.page_actions import chromium, draw_seven
from tests.documentation import ROOT
from tests.support.service_process import RunningService

FOLDER = Path(__file__).parent
SCREENS = {"playground.png": (1280, 1010), "playground-phone.png": (390, 844)}
LIMIT_BYTES = 200_000


def take_screenshots() -> None:
    """Draws a 7 at each width, requests an explanation, and saves the visible part of the page."""
    with RunningService(ROOT / "models") as service, chromium() as browser:
        for name, (width, height) in SCREENS.items():
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme="light")
            page.goto(service.url)
            page.locator(".confusion img").wait_for()
            draw_seven(page)
            page.click("text=Show which pixels mattered")
            page.locator(".heat img").wait_for()
            page.mouse.move(0, 0)
            page.evaluate("scrollTo(0, 0); document.activeElement.blur()")
            save_png(FOLDER / name, page.screenshot())


def save_png(path: Path, screenshot: bytes) -> None:
    """Saves a PNG with maximum lossless compression. Raises ValueError if it is too large for the repository."""
    Image.open(io.BytesIO(screenshot)).convert("RGB").save(path, optimize=True)
    if path.stat().st_size > LIMIT_BYTES:
        raise ValueError(f"{path} has more than {LIMIT_BYTES} bytes")


if __name__ == "__main__":
    take_screenshots()
