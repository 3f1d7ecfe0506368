"""Arrays kept on the disk: whole, or made again."""

import os

import numpy as np
import pytest

from lt_noisy.data import cache


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A cache that keeps everything, and the keys it was asked to make."""
    monkeypatch.setenv(cache.DIRECTORY, str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "WORTH_SECONDS", 0.0)
    return tmp_path / "cache"


def ask(key, made):
    def make():
        made.append(key)
        return {"images": np.full((3, 2), key, np.uint8), "labels": np.arange(3)}

    return cache.cached({"key": key}, make)


def test_made_once_and_read_only(kept):
    made = []
    for _ in range(2):
        arrays = ask(7, made)
        assert arrays["images"].tolist() == [[7, 7]] * 3 and arrays["labels"].tolist() == [0, 1, 2]
    assert made == [7] and not arrays["images"].flags.writeable
    assert ask(8, made)["images"][0, 0] == 8 and made == [7, 8]
    assert not list(kept.glob(".making-*"))


def test_what_a_killed_process_left_is_removed_once_it_is_old(kept):
    old, new = kept / ".making-old", kept / ".making-new"
    for place in (old, new):
        place.mkdir(parents=True)
        (place / "images.npy").write_bytes(b"part")
    day_ago = old.stat().st_mtime - 90000
    os.utime(old, (day_ago, day_ago))
    ask(7, [])
    assert not old.exists() and new.exists()


@pytest.mark.parametrize("damage", ["cut", "emptied", "another key"])
def test_what_is_damaged_is_made_again(kept, damage):
    made = []
    ask(7, made)
    (place,) = kept.iterdir()
    if damage == "another key":
        (place / "key.json").write_text("{}")
    else:
        os.truncate(place / "images.npy", 129 if damage == "cut" else 0)
    assert ask(7, made)["images"].tolist() == [[7, 7]] * 3 and made == [7, 7]
    ask(7, made)
    assert made == [7, 7]


def test_what_was_quick_to_make_or_has_no_place_is_not_kept(kept, monkeypatch):
    made = []
    monkeypatch.setattr(cache, "WORTH_SECONDS", 60.0)
    assert [ask(7, made)["labels"].size for _ in range(2)] == [3, 3] and made == [7, 7]
    monkeypatch.setattr(cache, "WORTH_SECONDS", 0.0)
    kept.parent.joinpath("file").write_text("")
    monkeypatch.setenv(cache.DIRECTORY, str(kept.parent / "file" / "cache"))
    assert ask(9, made)["images"][0, 0] == 9 and made == [7, 7, 9]


def test_what_another_process_replaces_meanwhile_is_never_mixed(kept, monkeypatch):
    made = []
    ask(7, made)
    (place,) = kept.iterdir()
    load = np.load

    def replacing(file, **options):
        array = load(file, **options)
        if file.name == "images.npy" and not (kept / "old").exists():  # the other one is yet to be opened
            place.rename(kept / "old")
            cache.renewed({"key": 7}, lambda found: {"images": np.zeros((1, 2)), "labels": np.zeros(1)})
        return array

    monkeypatch.setattr(np, "load", replacing)
    arrays = ask(7, made)
    assert len(arrays["images"]) == len(arrays["labels"]) == 3 and made == [7, 7]
