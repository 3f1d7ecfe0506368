"""A page in a browser without a window: Debian's Chromium, driven by Playwright; tests skip where one is missing."""

import contextlib
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

CHROMIUM = pathlib.Path("/usr/bin/chromium")


class Opened(NamedTuple):
    """A page that is open.

    Attributes:
      page: Playwright's, to click in and to ask.
      complaints: errors and warnings of its console, and exceptions that nothing caught, as they come.
      requests: what it asked for beside itself and data URIs, as they come.
    """

    page: Any
    complaints: list[str]
    requests: list[str]


@contextlib.contextmanager
def opened(place: pathlib.Path | str) -> Iterator[Opened]:
    """Opens a file, or an address, in a browser of its own, and closes it.

    Playwright holds an event loop while it runs, in which no other can start: so it is not kept between tests, whose
    checkpoints have loops of their own.
    """
    from playwright.sync_api import sync_playwright

    address = place.absolute().as_uri() if isinstance(place, pathlib.Path) else place
    complaints: list[str] = []
    requests: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        try:
            page = browser.new_page(viewport={"width": 1200, "height": 900})
            page.on("console", lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None)
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("request", lambda r: requests.append(r.url) if _is_other(r.url, address) else None)
            page.goto(address)
            yield Opened(page, complaints, requests)
        finally:
            browser.close()


def _is_other(url: str, address: str) -> bool:
    return not url.startswith(("data:", "blob:")) and url.partition("#")[0] != address.partition("#")[0]


@pytest.fixture(scope="session")
def browser_page():
    """`opened`: `with browser_page(path) as (page, complaints, requests): ...`."""
    pytest.importorskip("playwright.sync_api", reason="no playwright: pip install -e '.[test]'")
    if not CHROMIUM.exists():
        pytest.skip(f"no browser: {CHROMIUM} is missing")
    return opened
