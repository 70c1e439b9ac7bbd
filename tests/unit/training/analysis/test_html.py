"""The page of a report: labels and names are escaped, and no external resource is loaded."""

from html.parser import HTMLParser

import pytest

from training.analysis import html as page

MARKUP = "<script>alert('x')</script> & \"friends\""


class Elements(HTMLParser):
    """Collects all elements with their attributes, and the text between them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize(
    "html",
    [
        page.page(MARKUP, []),
        page.section(MARKUP),
        page.paragraph(MARKUP),
        page.preformatted(MARKUP),
        page.table((MARKUP,), [(MARKUP,)]),
        page.image(b"png", MARKUP),
        page.tiles([("", MARKUP)]),
    ],
)
def test_text_is_escaped(html: str) -> None:
    elements = Elements(html)
    assert "script" not in [tag for tag, _ in elements.tags]
    attributes = [value for _, attrs in elements.tags for value in attrs.values()]
    assert MARKUP in elements.text or MARKUP in attributes


def test_the_page_forbids_itself_to_load_anything() -> None:
    elements = Elements(page.page("Title", [page.image(b"\x89PNG", "an image", is_pixelated=True)]))
    [policy] = [attrs["content"] for tag, attrs in elements.tags if "http-equiv" in attrs]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    [image] = [attrs for tag, attrs in elements.tags if tag == "img"]
    assert image["src"] == "data:image/png;base64,iVBORw=="
    assert image["class"] == "pixels"


def test_numbers_are_right_aligned() -> None:
    html = page.table(("class", "images", "found"), [("cat", 12345, "98.10%")])
    assert '<td>cat</td><td class="number">12,345</td><td class="number">98.10%</td>' in html
