"""The page of a report: names escaped, nothing from elsewhere, and what a browser makes of it."""

import html.parser
import itertools
import re

import pytest
from helpers.finished_runs import names_of

from lt_noisy.errors import printable
from lt_noisy.finished.report.contents import Section, Table
from lt_noisy.finished.report.page import html as page_of


class _Reader(html.parser.HTMLParser):
    """Tags with their attributes, and all text."""

    def __init__(self):
        super().__init__()
        self.tags, self.texts = [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.texts.append(data)


def read(path):
    reader = _Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    return reader


def test_every_name_stands_in_the_page_as_it_is(run):
    """And no part of one has become a tag; what is no UTF-8 or no line is written as Python escapes it."""
    reader = read(run / "report" / "index.html")
    for name in names_of(8):
        assert printable(name) in reader.texts
    assert {tag for tag, _ in reader.tags}.isdisjoint({"b", "run", "i", "script"})
    assert run.name in reader.texts  # the title, with `<run>` and quotes in it


def test_hostile_texts_in_every_place():
    bad = "</style><script>alert('1')</script>\"'\n\udcff"
    text = page_of(bad, bad, [Section(2, bad, [bad, Table(bad, (bad, bad), [[bad, bad]])])])
    text.encode()
    assert "<script" not in text and "alert" in text and text.count("</style>") == 1


@pytest.mark.parametrize("name", ["one", "several"])
def test_the_page_in_a_browser(request, browser_page, name):
    path = request.getfixturevalue("run") / "report" if name == "one" else request.getfixturevalue("runs") / "out"
    with browser_page(path / "index.html") as (page, complaints, requests):
        assert page.evaluate("document.documentElement.lang") == "en"
        images = page.eval_on_selector_all("img", "all => all.map(i => [i.complete && i.naturalWidth > 0, i.alt])")
        levels = page.eval_on_selector_all("h1, h2, h3, h4", "all => all.map(h => Number(h.tagName[1]))")
        scopes = page.eval_on_selector_all("th", "all => all.map(h => h.scope)")
        captions = page.eval_on_selector_all(
            "table", "all => all.map(t => t.caption && t.caption.textContent.trim() !== '')"
        )
        missing = page.eval_on_selector_all(
            "nav a", "all => all.filter(a => !document.querySelector(a.hash.replace('#', '[id=\"') + '\"]')).length"
        )
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        page.locator("details summary").first.click()
        assert page.locator("details").first.get_attribute("open") is not None
    assert complaints == [] and requests == []
    assert len(images) >= 9 and all(loaded and len(alt) > 20 for loaded, alt in images)
    assert len({alt for _, alt in images}) > len(images) // 2
    assert levels[0] == 1 and levels.count(1) == 1 and all(b - a <= 1 for a, b in itertools.pairwise(levels))
    assert set(scopes) == {"row", "col"} and all(captions) and missing == 0 and wide <= 0


def _luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_texts_stand_out_from_the_page(run):
    """WCAG 2.1, 1.4.3: a contrast of 4.5 and more, of every colour of a text on white."""
    style = (run / "report" / "index.html").read_text().partition("</style>")[0]
    colours = re.findall(r"[{; ]color: (#[0-9a-f]{6})", style)
    assert len(colours) >= 4
    for colour in colours:
        assert 1.05 / (_luminance(colour) + 0.05) >= 4.5
