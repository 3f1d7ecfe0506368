"""The manifest: order of long tail and noise, exact round trips, and every kind of alteration refused."""

import json
import os
import zipfile

import numpy as np
import pytest

from lt_noisy.config import spec
from lt_noisy.data import longtail, manifest, noise
from lt_noisy.errors import UserError

LABELS = np.random.RandomState(1).permutation(np.repeat(np.arange(3), [40, 30, 30])).astype(np.int32)
IDS = np.random.RandomState(2).permutation(100).astype(np.int64) + 500
NAMES = ("cat", "dog", "emu")


def build(tail="exponential(4)", kind="symmetric(0.4)", seed=0, labels=LABELS, ids=IDS):
    return manifest.build(
        labels,
        ids,
        3,
        NAMES,
        spec.bind(tail, longtail.LONGTAILS, "longtail"),
        spec.bind(kind, noise.NOISES, "noise"),
        seed,
        {"dataset": "made(up)", "longtail": tail, "noise": kind},
    )


def arrays(m):
    return {key: getattr(m, key) for key in ("ids", "clean_labels", "observed_labels")}


def test_noise_after_the_long_tail():
    m = build()
    assert np.bincount(m.clean_labels).tolist() == [40, 20, 10]
    rows = manifest.verify(m, LABELS, IDS)
    expected = noise.symmetric(0.4).corrupt(LABELS[rows], IDS[rows], 3, 0)
    assert (m.observed_labels == expected).all() and (m.observed_labels != m.clean_labels).any()
    assert [a.dtype for a in arrays(m).values()] == [np.int64, np.int32, np.int32]


def test_noise_before_the_long_tail_selects_by_the_noisy_label():
    m = build("explicit((20, 10, 5))", "before_longtail(symmetric(0.4))")
    assert np.bincount(m.observed_labels).tolist() == [20, 10, 5]
    full = noise.symmetric(0.4).corrupt(LABELS, IDS, 3, 0)
    rows = manifest.verify(m, LABELS, IDS)
    assert (m.observed_labels == full[rows]).all() and (m.clean_labels == LABELS[rows]).all()
    assert m.recipe["noise_before_longtail"] is True


def test_storage_order_does_not_matter():
    shuffle = np.random.RandomState(3).permutation(100)
    a, b = build(), build(labels=LABELS[shuffle], ids=IDS[shuffle])
    assert manifest.diff(a, b) == {} and manifest.digest(a) == manifest.digest(b)


def test_round_trip_and_deterministic_bytes(tmp_path):
    m = build()
    first, second = tmp_path / "a" / "deep", tmp_path / "b"
    manifest.save(m, first)
    os.environ["TZ"], zone = "Asia/Tokyo", os.environ.get("TZ")
    manifest.save(build(), second)
    os.environ.pop("TZ") if zone is None else os.environ.update(TZ=zone)
    assert sorted(os.listdir(first)) == ["manifest.json", "manifest.npz"]
    for name in os.listdir(first):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    with zipfile.ZipFile(first / "manifest.npz") as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}  # no clock in it
    for path in (first, str(first), first / "manifest.npz", first / "manifest.json"):
        loaded = manifest.load(path)
        assert manifest.diff(m, loaded) == {} and loaded.recipe == m.recipe
        assert [a.dtype for a in arrays(loaded).values()] == [np.int64, np.int32, np.int32]
    with np.load(first / "manifest.npz") as file:
        assert sorted(file.files) == ["clean_labels", "ids", "observed_labels"]


def test_statistics_by_hand(tmp_path):
    recipe = {"num_classes": 4, "class_names": list("abcd"), "seed": 0, "nominal_rate": None}
    m = manifest.Manifest(np.arange(5), np.array([0, 0, 0, 0, 1]), np.array([0, 0, 0, 2, 2]), recipe)
    manifest.save(m, tmp_path)
    written = json.loads((tmp_path / "manifest.json").read_text())
    assert written["recipe"] == recipe
    assert written["statistics"] == {
        "num_examples": 5,
        "clean_counts": [4, 1, 0, 0],
        "observed_counts": [3, 0, 2, 0],
        "realised_rate": 0.4,
        "realised_rate_per_clean_class": [0.25, 1.0, 0.0, 0.0],
        "transitions": [[0, 0, 3], [0, 2, 1], [1, 2, 1]],
    }
    assert written["sha256"]["arrays"] == manifest.digest(m)


def test_another_format_is_refused(tmp_path):
    manifest.save(build(), tmp_path)
    file = tmp_path / "manifest.json"
    document = json.loads(file.read_text())
    file.write_text(json.dumps({**document, "format": 3}))
    refused(tmp_path, "has format 3, and this version reads 2")
    file.write_text(json.dumps({key: value for key, value in document.items() if key != "format"}))
    refused(tmp_path, "has format 1, and this version reads 2")


@pytest.mark.parametrize(
    ("kind", "labels", "more", "expected"),
    [
        ("none()", [0, 1], {}, False),  # a folder: nobody knows better
        ("none()", [0, 1], {"corrected": [5]}, False),
        ("symmetric(rate=0.3)", [0, 1], {}, True),  # which happened to spare all
        ("none()", [1, 1], {}, True),  # noise of its publisher
        ("none()", [0, 1], {"truth_known": True}, True),  # all of whose wrong labels have been corrected
    ],
)
def test_whose_truth_it_is(kind, labels, more, expected):
    one = manifest.Manifest(np.arange(2), np.array(labels), np.array([0, 1]), {"noise": kind, **more})
    assert manifest.truth_known(one) == expected
    assert manifest.truth_known(one, clean=np.array([0, 1]))  # which the source has


def test_nothing_in_the_json_grows_with_the_square_of_the_classes(tmp_path):
    classes = 3000
    labels = np.arange(classes, dtype=np.int32)
    recipe = {"num_classes": classes, "class_names": [str(c) for c in labels]}
    manifest.save(manifest.Manifest(labels.astype(np.int64), labels, labels[::-1], recipe), tmp_path)
    assert (tmp_path / "manifest.json").stat().st_size < 200 * classes
    assert manifest.load(tmp_path).num_classes == classes


def test_digest_is_of_the_arrays_alone():
    m = build()
    other = manifest.Manifest(**{k: a.astype(">i8") for k, a in arrays(m).items()}, recipe={"num_classes": 9})
    assert manifest.digest(other) == manifest.digest(m)
    for key in arrays(m):
        changed = arrays(m) | {key: arrays(m)[key][::-1]}
        assert manifest.digest(manifest.Manifest(**changed, recipe=m.recipe)) != manifest.digest(m)


def refused(path, match):
    with pytest.raises(UserError, match=match) as caught:
        manifest.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["ids", "clean_labels", "observed_labels"])
def test_an_altered_array_is_refused(tmp_path, key):
    m = build()
    manifest.save(m, tmp_path)
    changed = arrays(m)
    changed[key] = changed[key].copy()
    changed[key][7] = (changed[key][7] + 1) % 3
    np.savez(tmp_path / "manifest.npz", **changed)
    refused(tmp_path, "altered")
    np.savez(tmp_path / "manifest.npz", **(arrays(m) | {key: arrays(m)[key].astype(np.int16)}))
    refused(tmp_path, "altered")
    np.savez(tmp_path / "manifest.npz", **arrays(m), more=np.zeros(1))
    refused(tmp_path, "altered")


@pytest.mark.parametrize("section", ["recipe", "statistics", "sha256"])
def test_every_altered_entry_of_the_json_is_refused(tmp_path, section):
    manifest.save(build(), tmp_path)
    file = tmp_path / "manifest.json"
    good = json.loads(file.read_text())

    def altered(value):
        if isinstance(value, list):
            return [altered(value[0]), *value[1:]]
        return {bool: lambda: not value, str: lambda: value + "x"}.get(type(value), lambda: value + 1)()

    for key in good[section]:
        for change in ({key: altered(good[section][key])}, None):
            entry = {**good[section], **change} if change else {k: v for k, v in good[section].items() if k != key}
            file.write_text(json.dumps({**good, section: entry}))
            refused(tmp_path, "altered")
    file.write_text(json.dumps(good))
    manifest.load(tmp_path)
    file.write_text(json.dumps({k: v for k, v in good.items() if k != section}))
    refused(tmp_path, "altered")
    for text in ("[]", "3", '"text"', "{", ""):
        file.write_text(text)
        refused(tmp_path, "altered|damaged")


def test_flipped_bytes_and_truncation_never_give_other_arrays(tmp_path):
    m = build()
    manifest.save(m, tmp_path)
    file = tmp_path / "manifest.npz"
    good = file.read_bytes()
    for end in (0, 1, len(good) // 2, len(good) - 1):
        file.write_bytes(good[:end])
        refused(tmp_path, "damaged")
    surviving = 0
    for at in range(0, len(good), 7):
        file.write_bytes(good[:at] + bytes([good[at] ^ 0x41]) + good[at + 1 :])
        try:
            assert manifest.diff(m, manifest.load(tmp_path)) == {}
            surviving += 1  # a byte that means nothing, such as an archive date
        except UserError:
            pass
    assert surviving < len(good) / 7 / 5


def test_killed_at_any_write_leaves_nothing_usable_or_a_complete_manifest(tmp_path, monkeypatch):
    old, new = build(seed=0), build(seed=1)

    class Killed(BaseException):
        pass

    real = os.replace
    for start in (None, old):
        for after in range(3):
            place = tmp_path / f"{start is None}{after}"
            place.mkdir()
            if start is not None:
                manifest.save(start, place)
            done = []

            def replace(source, target, after=after, done=done):
                if len(done) == after:
                    raise Killed
                done.append(target)
                real(source, target)

            monkeypatch.setattr(os, "replace", replace)
            if after < 2:
                with pytest.raises(Killed):
                    manifest.save(new, place)
            else:
                manifest.save(new, place)
            monkeypatch.setattr(os, "replace", real)
            if after == 2:
                assert manifest.diff(manifest.load(place), new) == {}
            elif after == 0 and start is not None:
                assert manifest.diff(manifest.load(place), old) == {}
            else:
                refused(place, "missing|half-written")


def test_missing_files(tmp_path):
    refused(tmp_path, "manifest.npz is missing")
    manifest.save(build(), tmp_path)
    (tmp_path / "manifest.json").unlink()
    refused(tmp_path / "manifest.npz", "manifest.json is missing")


def test_verify():
    m = build()
    rows = manifest.verify(m, LABELS, IDS)
    assert (IDS[rows] == m.ids).all() and rows.dtype == np.int64
    with pytest.raises(UserError, match="3 of 70 ids are not in the data set"):
        keep = ~np.isin(IDS, m.ids[[0, 5, 69]])
        manifest.verify(m, LABELS[keep], IDS[keep])
    labels = LABELS.copy()
    labels[rows[4]] += 1
    with pytest.raises(UserError, match=f"1 of 70 clean labels .* id {m.ids[4]}: {m.clean_labels[4]} here"):
        manifest.verify(m, labels, IDS)


def test_diff_names_what_differs():
    a = build()
    ids, observed = a.ids.copy(), a.observed_labels.copy()
    ids[0], observed[5] = 9999, (observed[5] + 1) % 3
    b = manifest.Manifest(ids, a.clean_labels, observed, {**a.recipe, "seed": 3, "more": 1})
    assert manifest.diff(a, b) == {
        "ids_only_in_a": [a.ids[0]],
        "ids_only_in_b": [9999],
        "observed_labels": [a.ids[5]],
        "recipe": {"more": [None, 1], "seed": [0, 3]},
    }
    backwards = manifest.Manifest(*(x[::-1] for x in arrays(a).values()), recipe=a.recipe)
    assert manifest.diff(a, backwards) == {"order": True}
