"""The page of suspicious labels: what is on it, and a browser that clicks through it."""

import csv
import io
import json
import re

import numpy as np
import pytest
from helpers import photos
from PIL import Image

from lt_noisy.data.sources import SOURCES
from lt_noisy.data.sources.base import Split
from lt_noisy.finished.apply import read_decisions
from lt_noisy.finished.review import command
from lt_noisy.finished.review.command import page, review
from lt_noisy.finished.review.neighbours import nearest_of_class
from lt_noisy.finished.review.thumbnails import thumbnails
from lt_noisy.runs import cli


def test_neighbours_are_those_by_angle():
    """Against every pair by hand; no row is its own, no doubted one anybody's."""
    generator = np.random.default_rng(0)
    features, labels = generator.normal(size=(40, 5)), generator.integers(0, 3, 40)
    trusted = generator.random(40) < 0.8
    queries = np.array([0, 7, 21, 33])
    classes = np.array([labels[0], (labels[7] + 1) % 3, labels[21], 2])
    units = features / np.linalg.norm(features, axis=1, keepdims=True)
    found = nearest_of_class(features, labels, trusted, queries, classes, 3)
    for row, query in enumerate(queries):
        allowed = [i for i in range(40) if trusted[i] and labels[i] == classes[row] and i != query]
        expected = sorted(allowed, key=lambda i: -units[i] @ units[query])[:3]
        assert found[row].tolist() == expected


def test_a_class_with_too_few_neighbours_has_gaps():
    features, labels = np.eye(4), np.array([0, 0, 1, 2])
    trusted = np.array([True, True, True, False])
    found = nearest_of_class(features, labels, trusted, np.array([0, 0, 0]), np.array([0, 1, 2]), 2)
    assert found.tolist() == [[1, -1], [2, -1], [-1, -1]]


def test_thumbnails_are_of_the_originals_or_of_the_pixels(messy):
    train = SOURCES["folder"](path=str(messy[0]), size=8)().train
    sizes = [Image.open(io.BytesIO(jpeg)).size for jpeg in thumbnails(train, [3, 0], 12)]
    assert all(max(size) == 12 for size in sizes)  # the files have 16 pixels and more, the network's images 8
    grey = Split(train.ids, train.labels, lambda rows: np.zeros((len(rows), 6, 6, 1), np.uint8))
    assert [Image.open(io.BytesIO(jpeg)).size for jpeg in thumbnails(grey, [1], 12)] == [(6, 6)]

    def gone(row):
        raise FileNotFoundError

    assert len(list(thumbnails(train._replace(original=gone), [0, 1], 12))) == 2  # the page is made all the same


@pytest.fixture(scope="module")
def made(messy, tmp_path_factory):
    """The page of the run."""
    out = tmp_path_factory.mktemp("review") / "page"
    assert cli.main(["lt-noisy", "review", str(messy[1]), f"--out={out}"]) == 0
    return out / "index.html"


def document(path):
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', path.read_text(), re.DOTALL)
    return json.loads(found[1])


def test_the_page_has_all_that_is_needed(messy, made):
    """Suspects with files and neighbours of both classes, as the folder has them; all pictures in the page."""
    found = document(made)
    assert [path.name for path in made.parent.iterdir()] == ["index.html"]
    assert found["classes"] == ["class 0", "class 1", "class 2"] and found["stage"] == "folds"
    assert {row[1]: found["classes"][row[3]] for row in found["suspects"]} == photos.WRONG
    train = SOURCES["folder"](path=str(messy[0]), size=8)().train
    file = dict(zip(map(str, train.ids.tolist()), train.files, strict=True))
    for key, name, _, _, probability, _, given, suggested in found["suspects"]:
        assert file[key] == name and 0.5 < probability <= 1 and len(given) == len(suggested) == 3
    pictures = {number for row in found["suspects"] for number in (row[5], *row[6], *row[7])}
    assert pictures == set(range(len(found["images"])))


def test_many_thumbnails_lie_beside_the_page(messy, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "_EMBEDDED", 2)
    monkeypatch.setattr(command, "_FOLDER", 4)
    assert review([str(messy[1]), f"--out={tmp_path}", "--limit=2", "--neighbours=1"]) == 0
    found = document(tmp_path / "index.html")
    assert len(found["suspects"]) == 2 and found["images"] == [] and found["folder"] == 4
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.jpg"))
    assert files == [f"thumbnails/{number // 4:03}/{number:06}.jpg" for number in range(len(files))]
    assert 4 <= len(files) <= 6


def test_what_is_none_of_ours_is_not_replaced(messy, tmp_path, capsys):
    (tmp_path / "thumbnails").mkdir()
    (tmp_path / "thumbnails" / "mine.jpg").write_bytes(b"mine")
    (tmp_path / "decisions.csv").write_text("id,decision,new_label\n")
    arguments = [str(messy[1]), f"--out={tmp_path}", "--limit=1", "--neighbours=0"]
    assert review(arguments) == 2 and "thumbnails is of no review; give another place" in capsys.readouterr().err
    (tmp_path / "thumbnails").rename(tmp_path / "pictures")
    assert review(arguments) == 0 == review(arguments)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["decisions.csv", "index.html", "pictures"]
    (tmp_path / "index.html").write_text("<title>My page</title>")
    assert review(arguments) == 2 and (tmp_path / "index.html").read_text() == "<title>My page</title>"


BAD = {
    "no suspects": (["{run}/pretrain"], "has no suspects.csv: a self_supervised stage judges no labels"),
    "limit": (["{run}", "--limit=-1"], "limit and neighbours are at least 0"),
    "size": (["{run}", "--size=big"], "argument --size: invalid int value: 'big'"),
    "no run": (["{folder}"], "is no directory of a run"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line(name, messy, capsys):
    arguments, expected = BAD[name]
    assert review([a.format(run=messy[1], folder=messy[0]) for a in arguments]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1 and expected in err


def decided(page):
    return page.inner_text("#progress")


def test_a_person_reviews_labels(made, browser_page, tmp_path):
    """By keys and by mouse: relabel, keep, drop, undo, filter, export, leave, come back."""
    with browser_page(made) as (view, complaints, requests):
        assert view.locator(".card").count() == 3
        assert [title.strip() for title in view.locator(".card h3").all_inner_texts()] == list(photos.WRONG)
        assert view.evaluate("[...document.images].every(i => i.alt && i.complete && i.naturalWidth)")
        assert view.evaluate("document.querySelectorAll('b').length") == 6  # none from a file's name
        view.keyboard.press("r")
        view.keyboard.press("k")
        view.keyboard.press("d")
        assert decided(view) == "3 of 3 decided"
        assert view.locator(".card .state").all_inner_texts() == ["relabelled: class 1", "kept", "dropped"]
        view.keyboard.press("u")
        assert decided(view) == "2 of 3 decided" and view.locator(".card.current .state").inner_text() == ""
        view.locator(".card").nth(2).locator("select").focus()
        view.locator(".card").nth(2).locator("select").select_option(label="class 1")
        view.get_by_role("button", name="Drop train/class 1/wrong 2.jpg").click()
        with view.expect_download() as download:
            view.get_by_role("button", name="Export decisions.csv").click()
        download.value.save_as(tmp_path / "decisions.csv")

        view.locator("#status").select_option("drop")
        assert view.locator(".card h3").all_inner_texts() == ["train/class 1/wrong 2.jpg"]
        view.locator("#status").select_option("all")
        view.get_by_label("File name has").fill("WRONG")
        assert view.locator(".card").count() == 2
        view.get_by_label("Class suggested").select_option(label="class 2 (1)")
        assert view.locator(".card").count() == 1
        view.get_by_label("Probability at least").fill("2")
        assert view.locator("#nothing").is_visible()

        view.reload()
        assert decided(view) == "3 of 3 decided"  # the browser has kept them
        view.evaluate("localStorage.clear()")
        view.reload()
        assert decided(view) == "0 of 3 decided"
        view.locator("#import").set_input_files(tmp_path / "decisions.csv")
        view.wait_for_function("document.querySelector('#progress').textContent === '3 of 3 decided'")
        view.get_by_role("button", name="Undo (U)").click()
        assert decided(view) == "0 of 3 decided"  # all that the file held
        assert complaints == [] and requests == []

    rows = list(csv.DictReader(io.StringIO((tmp_path / "decisions.csv").read_text(encoding="utf-8-sig"), newline="")))
    assert [(row["decision"], row["new_label"]) for row in rows] == [
        ("relabel", "class 1"),
        ("drop", ""),
        ("relabel", "class 1"),
    ]
    assert rows[2]["file"] == f"train/class 2/{photos.ODD}"
    found = read_decisions(tmp_path / "decisions.csv", ("class 0", "class 1", "class 2"))
    assert set(found.relabelled.values()) == {1} and len(found.dropped) == 1


def test_a_page_of_fewer_suspects_loses_no_decision(messy, made, browser_page, tmp_path):
    """The store is of the run: what was decided on the whole page stays, and goes into the export."""
    assert review([str(messy[1]), f"--out={tmp_path / 'few'}", "--limit=1", "--neighbours=0"]) == 0
    with browser_page(made) as (view, complaints, _):
        for _ in range(3):
            view.keyboard.press("k")
        view.goto((tmp_path / "few" / "index.html").as_uri())
        assert decided(view) == "1 of 1 decided, 2 that are not on this page"
        view.keyboard.press("d")
        with view.expect_download() as download:
            view.get_by_role("button", name="Export decisions.csv").click()
        download.value.save_as(tmp_path / "decisions.csv")
        view.goto(made.as_uri())
        assert view.locator(".card .state").all_inner_texts() == ["dropped", "kept", "kept"]
        assert complaints == []
    found = read_decisions(tmp_path / "decisions.csv", ("class 0", "class 1", "class 2"))
    assert (len(found.kept), len(found.dropped)) == (2, 1)


def test_it_can_be_used_without_a_mouse_and_is_labelled(made, browser_page):
    """Every control has a name; tabbing outlines the card that it is in; contrast of text is that of WCAG AA."""
    with browser_page(made) as (view, _, _):
        unnamed = view.evaluate(
            "[...document.querySelectorAll('button, select, input')].filter(c => !(c.ariaLabel || c.labels?.length || "
            "c.textContent.trim())).length"
        )
        assert unnamed == 0 and view.evaluate("document.documentElement.lang") == "en"
        view.locator(".card").nth(1).get_by_role("button", name="Keep").focus()
        assert view.locator(".card").nth(1).get_attribute("class").split() == ["card", "current"]
        view.keyboard.press("Enter")
        assert decided(view) == "1 of 3 decided" and view.inner_text("#message") == "train/class 1/wrong 2.jpg: kept"
        focused = "[...document.querySelectorAll('.card')].indexOf(document.activeElement)"
        assert view.evaluate(focused) == 2  # the next one, from which Tab goes on
        assert view.locator("[aria-current]").count() == 1
        view.keyboard.press("i")
        assert view.evaluate(focused) == 1
        view.get_by_label("Keys").uncheck()
        view.locator(".card").first.focus()
        view.keyboard.press("d")
        assert decided(view) == "1 of 3 decided"
        for scheme in ("light", "dark"):
            view.emulate_media(color_scheme=scheme)
            for part in ("h1", ".facts", "#message", "button:not(:disabled)", ".state", ".near-title"):
                assert view.evaluate(CONTRAST, part) >= 4.5, (scheme, part)


# Of an element's text on what is behind it (WCAG 2.2, 1.4.3).
CONTRAST = """selector => {
  const parse = text => text.match(/[\\d.]+/g).map(Number);
  const linear = v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => [r, g, b].map(v => linear(v / 255))
    .reduce((sum, v, k) => sum + v * [0.2126, 0.7152, 0.0722][k], 0);
  let element = document.querySelector(selector);
  const ink = light(parse(getComputedStyle(element).color));
  while (element && (parse(getComputedStyle(element).backgroundColor)[3] ?? 1) === 0) element = element.parentElement;
  const paper = light(parse(getComputedStyle(element ?? document.body).backgroundColor));
  return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
}"""


def large(count):
    """A document of so many suspects of 1,000 classes."""
    suspects = [[str(10**18 + i), f"{i}.jpg", i % 1000, (i + 1) % 1000, 0.9, i, [], []] for i in range(count)]
    classes = [f"class {c}" for c in range(1000)]
    return {
        "run": "r",
        "command": "c",
        "stage": "s",
        "key": "k",
        "judged": count,
        "classes": classes,
        "suspects": suspects,
    }


def test_fifty_thousand_suspects_are_pages(browser_page, tmp_path):
    """What is drawn is one page, however many there are; benchmarks/review_page.py has the seconds."""
    (tmp_path / "index.html").write_text(page({**large(50_000), "images": [], "folder": 1000}))
    picture = tmp_path / "thumbnails" / "000" / "000000.jpg"
    with browser_page(tmp_path / "index.html") as (view, _, _):
        assert view.inner_text("#page") == "page 1 of 2084, 50,000 shown"
        assert view.locator("*").count() < 3000 and view.locator(".card").count() == 24
        assert view.locator(".card img").first.get_attribute("src") == str(picture.relative_to(tmp_path))
        for _ in range(25):
            view.keyboard.press("d")
        assert view.inner_text("#page").startswith("page 2 of") and decided(view) == "25 of 50,000 decided"
        view.keyboard.press("u")
        view.keyboard.press("u")
        assert view.inner_text("#page").startswith("page 1 of")
        view.get_by_label("File name has").fill("49999")
        assert view.locator(".card").count() == 1


def test_no_name_ends_the_data(tmp_path, browser_page):
    odd = "</script><script>alert(1)</script><!--"
    text = page({**large(1), "run": odd, "classes": [odd] * 1000, "images": [""], "folder": 1})
    (tmp_path / "index.html").write_text(text)
    with browser_page(tmp_path / "index.html") as (view, complaints, _):
        assert view.locator(".facts b").first.inner_text() == odd
        assert view.locator("script").count() == 2 and not any("alert" in text for text in complaints)
