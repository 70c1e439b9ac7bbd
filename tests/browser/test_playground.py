"""The playground in a real browser: drawn digits and dropped files get predictions or error messages."""

import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.browser.page_actions import CHROMIUM, chromium, draw_seven, wait_until_idle
from tests.documentation import ROOT
from tests.support.images import encode
from tests.support.model_versions import linear_graph, write_version
from tests.support.service_process import RunningService

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
KEY = "a-key-for-the-playground"
SEVEN = ROOT / "tests/data/seven.png"
WRONG = "The bytes are not an image, or its header is damaged."


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    for module in ("playwright.sync_api", "axe_playwright_python"):
        pytest.importorskip(module, reason=f"{module} is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium: apt-get install chromium")
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def service() -> Iterator[RunningService]:
    with RunningService(ROOT / "models") as running:
        yield running


class PageSession:
    """A browser context with the page, its requests and its errors."""

    def __init__(self, browser: "Browser", url: str, **options: Any) -> None:
        self.context: BrowserContext = browser.new_context(**{"viewport": DESKTOP, "accept_downloads": True} | options)
        self.context.set_default_timeout(15_000)
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.context.on("request", lambda request: self.requests.append(request.url))
        self.context.on("console", lambda message: message.type == "error" and self.errors.append(message.text))
        self.context.on("weberror", lambda error: self.errors.append(str(error.error)))
        self.page: Page = self.context.new_page()
        self.url = url
        self.page.goto(url)

    def drop(self, files: dict[str, bytes]) -> None:
        """Drops these files onto the page."""
        file_bytes = [[name, list(data)] for name, data in files.items()]
        transfer = self.page.evaluate_handle(
            """given => {
                const transfer = new DataTransfer();
                for (const [name, data] of given) transfer.items.add(new File([new Uint8Array(data)], name));
                return transfer;
            }""",
            file_bytes,
        )
        self.page.dispatch_event("#answer", "drop", {"dataTransfer": transfer})
        wait_until_idle(self.page)

    def accessibility_violations(self) -> list[str]:
        """Returns the serious and critical violations that axe-core finds on the current page."""
        axe = resources.files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")
        self.page.evaluate(axe)
        violations = self.page.evaluate("axe.run()")["violations"]
        return [f"{v['id']}: {v['nodes'][0]['html']}" for v in violations if v["impact"] in ("serious", "critical")]


@pytest.fixture
def session(browser: "Browser", service: RunningService, request: pytest.FixtureRequest) -> Iterator[PageSession]:
    """Yields a session, and checks that the page sent no request to other hosts and had no errors."""
    session = PageSession(browser, service.url, **getattr(request, "param", {}))
    wait_until_idle(session.page)
    yield session
    session.context.close()
    foreign_urls = [url for url in session.requests if not url.startswith((service.url, "blob:", "data:"))]
    assert foreign_urls == []
    assert [text for text in session.errors if "status of 4" not in text] == []


def top_label(page: "Page") -> str:
    return page.locator(".verdict strong").inner_text()


def test_a_drawn_seven_is_read_and_explained(session: PageSession, service: RunningService) -> None:
    page = session.page
    draw_seven(page)
    assert top_label(page) == "7"
    assert page.locator(".bars li").count() == 5
    assert re.search(
        r"answered in .* ms · decoding .* computing .* ms · alone in its batch", page.inner_text("#timing")
    )
    assert page.locator(".strip").count() == 5  # the filters and four layers
    assert re.search(r"28 . 28 pixels, gray", page.inner_text(".input"))
    page.click("text=Show which pixels mattered")
    page.locator(".heat img").wait_for()
    assert "Orange supports 7" in page.inner_text(".heat")
    assert page.locator(".confusion img").is_visible()
    accuracy = service.client.get("/api/v1/models/mnist-lenet5").json()["versions"][0]["test_accuracy"]
    assert f"{accuracy * 100:.2f} %" in page.inner_text(".facts")


def test_the_lines_to_copy_give_the_same_answer(session: PageSession, tmp_path: Path) -> None:
    page = session.page
    draw_seven(page)
    with page.expect_download() as download:
        page.click("text=Save the drawing")
    download.value.save_as(tmp_path / "drawing.png")
    curl, python = (page.locator("pre code").nth(at).inner_text() for at in (0, 1))
    for command in (["sh", "-c", curl], [sys.executable, "-c", python]):
        process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
        if command[0] == "sh" and process.returncode == 127:
            continue  # curl is not installed
        assert re.search(r"""['"]label['"]: ?['"]7['"]""", process.stdout), process.stderr


def test_three_dropped_images_have_three_results_one_of_them_broken(session: PageSession) -> None:
    seven = SEVEN.read_bytes()
    session.drop({"first.png": seven, "broken.png": seven[:90], "last.png": seven})
    page = session.page
    results = page.locator(".many > li")
    assert results.count() == 3
    assert page.inner_text(".summary") == "2 of 3 images have an answer."
    assert "first.png" in results.nth(0).inner_text()
    assert "The image is damaged or truncated" in results.nth(1).inner_text()
    results.nth(2).get_by_role("button").click()
    assert results.nth(2).get_by_role("button").get_attribute("aria-pressed") == "true"
    assert "in a batch of 2" in page.inner_text("#timing")
    python = page.locator("pre code").nth(1).inner_text()
    assert '["first.png","broken.png","last.png"]' in python


def test_a_text_file_gets_a_clear_message(session: PageSession) -> None:
    session.drop({"notes.txt": b"not an image at all"})
    assert WRONG in session.page.inner_text("#answer")
    assert "PNG, JPEG, WebP, BMP or GIF" in session.page.inner_text("#answer")


def test_images_are_chosen_and_pasted_too(session: PageSession) -> None:
    page = session.page
    page.click("#tab-files")
    page.set_input_files("#files", SEVEN)
    wait_until_idle(page)
    assert top_label(page) == "7"
    page.evaluate(
        """data => {
            const clipboardData = new DataTransfer();
            clipboardData.items.add(new File([new Uint8Array(data)], "pasted.png"));
            document.dispatchEvent(new ClipboardEvent("paste", { clipboardData }));
        }""",
        list(SEVEN.read_bytes()),
    )
    page.locator(".name", has_text="pasted.png").wait_for()


def test_a_digit_is_drawn_by_keyboard_alone(session: PageSession) -> None:
    page = session.page
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "pad":
            break
    for keys in (["ArrowUp"] * 11, [" "], ["ArrowDown"] * 22, [" "]):
        for key in keys:
            page.keyboard.press(key)
    wait_until_idle(page)
    assert top_label(page) == "1"
    page.keyboard.press("Backspace")
    assert "Draw something" in page.inner_text("#answer")


@pytest.mark.parametrize("session", [{"viewport": PHONE, "has_touch": True}], indirect=True)
def test_a_finger_draws_on_a_phone_and_nothing_is_wider_than_it(session: PageSession) -> None:
    page = session.page
    page.locator("#pad").scroll_into_view_if_needed()
    box = page.locator("#pad").bounding_box()
    touch = session.context.new_cdp_session(page)
    middle, top, bottom = (box["x"] + box["width"] / 2, box["y"] + 30, box["y"] + box["height"] - 30)
    for kind, y in [("touchStart", top), *(("touchMove", top + (bottom - top) * i / 8) for i in range(1, 9))]:
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": middle, "y": y}]})
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    wait_until_idle(page)
    assert top_label(page) == "1"
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_axe_finds_nothing_serious_by_day(session: PageSession) -> None:
    draw_seven(session.page)
    session.page.click("text=Show which pixels mattered")
    session.page.locator(".heat img").wait_for()
    session.page.click("summary")
    session.page.locator(".card-text h3").first.wait_for()
    assert session.accessibility_violations() == []


@pytest.mark.parametrize("session", [{"color_scheme": "dark"}], indirect=True)
def test_axe_finds_nothing_serious_by_night(session: PageSession) -> None:
    session.drop({"seven.png": SEVEN.read_bytes(), "notes.txt": b"no image"})
    assert session.accessibility_violations() == []


def test_a_drawing_is_laid_out_as_mnist_digits_are(session: PageSession) -> None:
    layout = session.page.evaluate(
        """async () => {
            const { layOutLikeMnist: layOut } = await import("./playground/mnist.js");
            const gray = new Uint8ClampedArray(280 * 280);
            for (let y = 40; y < 240; y++) for (let x = 20; x < 70; x++) gray[y * 280 + x] = 255;
            return { bar: [...layOut(gray, 280, 280, 28)], nothing: layOut(new Uint8ClampedArray(100), 10, 10, 28) };
        }"""
    )
    assert layout["nothing"] is None
    inked = [divmod(at, 28) for at, value in enumerate(layout["bar"]) if value]
    rows, columns = {row for row, _ in inked}, {column for _, column in inked}
    assert (min(rows), max(rows)) == (4, 23)  # 20 pixels high, centered
    assert (len(columns), min(columns) + max(columns)) == (5, 28)  # 5 pixels wide: the aspect ratio is kept


def test_a_service_that_disappears_is_reported(session: PageSession) -> None:
    session.page.route("**/classify*", lambda route: route.abort())
    draw_seven(session.page)
    assert "The service cannot be reached." in session.page.inner_text("#answer")
    session.errors.clear()  # the browser's own errors


def test_a_key_is_requested_and_kept_in_the_tab_only(browser: "Browser") -> None:
    with RunningService(ROOT / "models", keys=f"page inference {KEY}") as protected_service:
        session = PageSession(browser, protected_service.url)
        page = session.page
        page.fill("#key", "a-wrong-key-of-some-length")
        page.click("text=Use this key")
        page.locator("#key-message", has_text="Try another one").wait_for()
        assert session.accessibility_violations() == []
        page.fill("#key", KEY)
        page.keyboard.press("Enter")
        page.locator(".facts").wait_for()
        draw_seven(page)
        assert top_label(page) == "7"
        assert "Bearer $CONVOY_KEY" in page.locator("pre code").first.inner_text()
        assert KEY not in page.content()
        assert page.evaluate("[Object.values(localStorage), document.cookie]") == [[], ""]
        page.locator(".confusion img").wait_for()
        page.click("#forget-key")
        page.locator("#key-dialog").wait_for()
        session.context.close()


def test_all_likely_labels_of_a_network_with_independent_labels_are_shown(browser: "Browser", tmp_path: Path) -> None:
    """Seven of the eight labels have a probability above 50 %. For other networks, the page shows the five most
    probable classes."""
    shape, classes = (8, 8, 1), 8
    weights = np.full((64, classes), 0.1, np.float32) * np.array([1, 1, 1, -1, 1, 1, 1, 1], np.float32)
    write_version(
        tmp_path, "many", 1, shape, classes, graph=linear_graph(weights, shape, "sigmoid"), activation="sigmoid"
    )
    with RunningService(tmp_path) as service:
        session = PageSession(browser, service.url)
        wait_until_idle(session.page)
        session.drop({"white.png": encode(np.full(shape, 255, np.uint8))})
        likely = [f"class-{index}" for index in range(classes) if index != 3]
        assert sorted(session.page.locator(".verdict strong").inner_text().split(", ")) == likely
        assert "class-3" not in session.page.inner_text("#answer")
        session.context.close()
