"""The page of `lt-noisy review` with 50,000 suspects: seconds until its first cards are there, and until a filter is.

    python benchmarks/review_page.py [--suspects=50000] [--json=results/review_page.json]

In a headless Chromium, thumbnails beside the page, 1,000 classes. Five visits, each of a browser of its own.
"""

import pathlib
import tempfile
import time

import arguments
import numpy as np
from PIL import Image
from records import measured

from lt_noisy.errors import UserError, say
from lt_noisy.files import write_json
from lt_noisy.finished.review.command import page

VISITS, CLASSES, THUMBNAILS = 5, 1000, 5000
CHROMIUM = "/usr/bin/chromium"


def make(directory: pathlib.Path, count: int) -> None:
    """The page, and thumbnails of noise, which several suspects share."""
    generator = np.random.default_rng(0)
    for number in range(THUMBNAILS):
        folder = directory / "thumbnails" / f"{number // 1000:03}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (96, 96, 3), dtype=np.uint8)).save(folder / f"{number:06}.jpg")
    suspects = [
        [
            str(10**17 + row),
            f"class {row % CLASSES}/{row}.jpg",
            row % CLASSES,
            (row + 1) % CLASSES,
            round(1 - row / count, 4),
            row % THUMBNAILS,
            [(row + k) % THUMBNAILS for k in (1, 2, 3)],
            [(row + k) % THUMBNAILS for k in (4, 5, 6)],
        ]
        for row in range(count)
    ]
    names = [f"class {label}" for label in range(CLASSES)]
    document = {"run": "runs/large", "command": "", "stage": "folds", "key": "large", "judged": count, "classes": names}
    (directory / "index.html").write_text(page({**document, "suspects": suspects, "images": [], "folder": 1000}))


def visit(path: pathlib.Path) -> dict[str, float]:
    """Seconds of one visit."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise UserError("review_page takes Playwright: pip install -e '.[test]'") from None
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        view = browser.new_page()
        began = time.perf_counter()
        view.goto(path.as_uri())
        view.wait_for_selector(".card")
        drawn = time.perf_counter()
        view.select_option("#suggested", label=view.locator("#suggested option").nth(500).inner_text())
        view.wait_for_function("document.querySelectorAll('.card').length < 60")
        filtered = time.perf_counter()
        browser.close()
    return {"open": drawn - began, "filter": filtered - drawn}


def main(argv: list[str]) -> None:
    """Measures, says the figures, and writes them."""
    parser = arguments.Parser(description=__doc__)
    parser.add_argument("--suspects", type=arguments.count, default=50_000)
    parser.add_argument("--json", type=arguments.new_file)
    given = parser.parse_args(argv[1:])
    with tempfile.TemporaryDirectory() as name:
        make(pathlib.Path(name), given.suspects)
        visits = [visit(pathlib.Path(name, "index.html")) for _ in range(VISITS)]
        size = pathlib.Path(name, "index.html").stat().st_size
    seconds = {f"{what}_seconds": [round(one[what], 2) for one in visits] for what in ("open", "filter")}
    figures = measured(argv, suspects=given.suspects, page_bytes=size, **seconds)
    say(f"open {figures['open_seconds']} s, filter {figures['filter_seconds']} s, {size / 1e6:.1f} MB")
    if given.json is not None:
        write_json(given.json, figures)


if __name__ == "__main__":
    arguments.run(main)
