"""Sources from arrays, folders and scikit-learn; and one clear line for whatever is wrong."""

import io

import numpy as np
import pytest
from PIL import Image

from lt_noisy.config import spec
from lt_noisy.data import sources
from lt_noisy.errors import UserError


def load(text):
    return spec.bind(text, sources.SOURCES, "dataset")()


def refused(text, match):
    with pytest.raises(UserError, match=match) as caught:
        load(text)
    assert "\n" not in str(caught.value)


def pictures(n, height=6, width=6, channels=3, seed=0):
    return np.random.RandomState(seed).randint(0, 256, (n, height, width, channels)).astype(np.uint8)


def png(pixels):
    out = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(out, "PNG")
    return out.getvalue()


# npz


def arrays():
    return {
        "train_images": pictures(4),
        "train_labels": np.array([0, 1, 1, 2], np.uint8),
        "train_ids": np.array([7, 3, 9, 1]),
        "test_images": pictures(2, seed=1),
        "test_labels": np.array([2, 0]),
    }


def test_npz(tmp_path):
    path = str(tmp_path / "a.npz")
    np.savez(path, **arrays())
    source = load(f'npz("{path}")')
    assert source.train.ids.tolist() == [7, 3, 9, 1] and source.test.ids.tolist() == [0, 1]
    assert source.train.labels.dtype == np.int32 and source.class_names == ("0", "1", "2")
    assert (source.train.images(np.array([2, 2, 0])) == arrays()["train_images"][[2, 2, 0]]).all()
    grey = {k: v[..., 0] if "images" in k else v for k, v in arrays().items()}
    np.savez(path, **grey)
    assert load(f'npz("{path}")').test.images(np.arange(2)).shape == (2, 6, 6, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test_labels": None}, "no array 'test_labels'"),
        ({"train_images": pictures(4).astype(np.float32)}, "train_images is float32"),
        ({"train_images": pictures(4, channels=2)}, "must be uint8"),
        ({"train_images": pictures(5)}, r"train_labels is uint8 \[4\]; it must be integer \[5\]"),
        ({"train_labels": np.zeros(4)}, "train_labels is float64"),
        ({"train_labels": np.array([0, 1, -1, 2])}, "train_labels holds -1"),
        ({"train_labels": np.array([0, 3, 3, 3])}, r"no image of 2 of the 4 classes \(1, 2\); labels must be 0\.\.C-1"),
        (
            {"train_labels": np.array([0, 1, 2**32 + 1, 2])},
            "train_labels holds class 4294967297, 4 training images can",
        ),
        (
            {"train_labels": np.array([0, 1, 10**9, 2])},
            r"holds class 1000000000, 4 training images can have only 0\.\.3",
        ),
        ({"test_labels": np.array([0, 2**64 - 1], np.uint64)}, "test_labels holds class 18446744073709551615, 4 train"),
        ({"train_ids": np.array([1, 2, 3, 2**63 + 4], np.uint64)}, "train_ids holds 9223372036854775812 in row 3; ids"),
        ({"test_labels": np.array([3, 0])}, r"test_labels holds class 3, train_labels only 0\.\.2"),
        ({"train_ids": np.array([1, 2, 3, 1])}, "train_ids holds duplicates"),
        ({"test_images": pictures(2, height=5)}, "differ in height or width"),
        ({"test_images": pictures(0), "test_labels": np.zeros(0, int)}, "test_images is empty"),
        ({"train_labels": np.array([{}] * 4)}, "not a readable .npz"),
    ],
)
def test_npz_refusals(tmp_path, change, message):
    path = str(tmp_path / "a.npz")
    np.savez(path, **{k: v for k, v in (arrays() | change).items() if v is not None})
    refused(f'npz("{path}")', message)


def test_npz_files_that_cannot_be_read(tmp_path):
    refused(f'npz("{tmp_path}/none.npz")', "none.npz does not exist")
    for content in (b"", b"text", b"PK\x03\x04 cut"):
        (tmp_path / "bad.npz").write_bytes(content)
        refused(f'npz("{tmp_path}/bad.npz")', "bad.npz is not a readable .npz file")


# folder


def write_folder(root, files):
    for name, pixels in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if pixels is None:
            (root / name).write_bytes(b"not an image")
        else:
            Image.fromarray(pixels.squeeze()).save(root / name)


def by_file(split):
    return zip(split.files, split.images(np.arange(len(split.ids))), strict=True)


def classes(**counts):
    """{file: a picture of its own}."""
    return {
        f"{c}/{i}.png": pictures(1, seed=100 * k + i)[0] for k, (c, n) in enumerate(counts.items()) for i in range(n)
    }


def test_folder_holds_out_a_fixed_share_of_each_class(tmp_path):
    write_folder(tmp_path, classes(ant=10, bee=5, cat=2) | {"ant/notes.txt": None, "bee/._1.png": None})
    source = load(f'folder("{tmp_path}", size=6)')
    assert source.class_names == ("ant", "bee", "cat")
    assert np.bincount(source.test.labels, minlength=3).min() >= 1
    assert np.bincount(source.train.labels, minlength=3).min() >= 1
    files = [f"{c}/{i}.png" for c, n in (("ant", 10), ("bee", 5), ("cat", 2)) for i in range(n)]
    assert sorted([*source.train.files, *source.test.files]) == sorted(files)
    again = load(f'folder("{tmp_path}", size=6)')
    assert (again.test.ids == source.test.ids).all() and again.test.files == source.test.files
    for split in (source.train, source.test):
        assert (np.diff(split.ids) > 0).all() and split.ids.min() >= 0
        for file, label, image in zip(split.files, split.labels, split.images(np.arange(len(split.ids))), strict=True):
            name, i = file.removesuffix(".png").split("/")
            assert name == source.class_names[label] and (image == pictures(1, seed=100 * label + int(i))[0]).all()


@pytest.mark.parametrize("held_out", ["test", "val", "valid", "validation"])
def test_folder_with_its_own_split(tmp_path, held_out):
    train, test = classes(ant=2, bee=1), classes(none=0, no=0, nor=0, bee=2)
    write_folder(
        tmp_path, {f"train/{k}": v for k, v in train.items()} | {f"{held_out}/{k}": v for k, v in test.items()}
    )
    source = load(f'folder("{tmp_path}")')
    assert source.test.labels.tolist() == [1, 1] and sorted(source.train.labels) == [0, 0, 1]
    assert sorted(source.train.files) == [f"train/{name}" for name in train]
    assert sorted(source.test.files) == [f"{held_out}/{name}" for name in test]
    write_folder(tmp_path, {f"{held_out}/cow/1.png": pictures(1)[0]})
    refused(f'folder("{tmp_path}")', f"{held_out}/cow is a class that .*train does not have")


@pytest.mark.parametrize("split", ["Test", "dev", ""])
@pytest.mark.parametrize("train", ["train", "Train", "training"])
def test_folder_does_not_take_a_train_folder_for_a_class(tmp_path, train, split):
    files = {f"{part}/{k}": v for part in (train, split) if part for k, v in classes(ant=2, bee=2).items()}
    write_folder(tmp_path, files)
    shown = ", ".join(sorted(filter(None, (train, split))))
    refused(f'folder("{tmp_path}")', rf"holds {shown}: call the splits train and test \(or val, valid, validation\)")


def test_folder_counts_what_it_skips(tmp_path, capsys):
    write_folder(tmp_path, classes(ant=2, bee=2))
    load(f'folder("{tmp_path}")')
    assert capsys.readouterr().out == ""
    write_folder(tmp_path, {"ant/1.HEIC": None, "ant/more/2.heic": None, "bee/README": None, "bee/._1.heic": None})
    load(f'folder("{tmp_path}")')
    note = capsys.readouterr().out
    assert note.startswith(f"note: {tmp_path}: skipped 3 files (.heic, no ending); ") and note.count("\n") == 1
    (tmp_path / "cow").mkdir()
    (tmp_path / "cow" / "1.heic").touch()
    refused(f'folder("{tmp_path}")', r"cow holds no image \(.*\.webp\) but 1 file \(\.heic\)")


def test_folder_reads_tiff(tmp_path):
    for name in ("a/0.tif", "a/1.TIFF", "b/0.tif", "b/1.tif"):
        write_folder(tmp_path, {name: pictures(1, channels=1, seed=3)[0]})
    images = load(f'folder("{tmp_path}", size=6)').train.images(np.arange(2))
    assert (images == pictures(1, channels=1, seed=3)).all()


def test_folder_names_every_file_that_cannot_be_read(tmp_path):
    broken = dict.fromkeys(["ant/1.png", "bee/0.png", "bee/1.png"])
    write_folder(tmp_path, classes(ant=3, bee=3) | broken)
    rest = ", ".join(str(tmp_path / name) for name in ("bee/0.png", "bee/1.png"))
    refused(f'folder("{tmp_path}")', rf"ant/1\.png cannot be read .*; 2 more cannot be read either: {rest}; broken=")
    write_folder(tmp_path, {f"cow/{i}.png": None for i in range(20)})
    refused(
        f'folder("{tmp_path}")',
        r"; 22 more cannot be read either: .*cow/13\.png, \.\.\.; broken='skip' leaves them out$",
    )


def test_folder_resizes_the_shorter_side_and_crops_the_centre(tmp_path):
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, 8:16] = 200  # the centre, exactly the square that is kept
    write_folder(tmp_path, {"a/1.png": wide, "a/2.png": wide.transpose(1, 0, 2), **classes(b=2)})
    source = load(f'folder("{tmp_path}", size=8, test_percent=50)')
    found = dict(pair for split in (source.train, source.test) for pair in by_file(split))
    assert (found["a/1.png"] == 200).all() and (found["a/2.png"] == 200).all()
    small = load(f'folder("{tmp_path}", size=4)').train.images(np.arange(2))
    assert small.shape == (2, 4, 4, 3)


def test_folder_is_grey_only_where_every_image_is(tmp_path):
    grey = {f"{c}/{i}.png": pictures(1, channels=1, seed=i)[0] for c in "ab" for i in range(2)}
    write_folder(tmp_path, grey)
    images = load(f'folder("{tmp_path}", size=6, test_percent=50)').train.images(np.arange(2))
    assert images.shape == (2, 6, 6, 1) and any((images[0] == g).all() for g in grey.values())
    write_folder(tmp_path, {"a/2.png": pictures(1)[0]})
    assert load(f'folder("{tmp_path}", size=6)').train.images(np.arange(1)).shape == (1, 6, 6, 3)


def test_folder_turns_photographs_upright(tmp_path):
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4] = 255  # white above; orientation 3 says: stored upside down
    write_folder(tmp_path, classes(a=2, b=2))
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(pixels).save(tmp_path / "a" / "0.png", exif=exif)
    source = load(f'folder("{tmp_path}", size=8, test_percent=50)')
    found = dict(pair for split in (source.train, source.test) for pair in by_file(split))
    assert (found["a/0.png"] == pixels[::-1]).all()


def test_folder_refusals(tmp_path):
    refused(f'folder("{tmp_path}/none")', "none is not a folder")
    write_folder(tmp_path, classes(ant=3))
    refused(f'folder("{tmp_path}")', "1 class folders; at least 2")
    (tmp_path / "bee").mkdir()
    refused(f'folder("{tmp_path}")', "bee holds no image")
    write_folder(tmp_path, {"bee/1.png": pictures(1)[0]})
    refused(f'folder("{tmp_path}")', "bee holds one image")
    write_folder(tmp_path, {"bee/2.JPG": None})
    refused(f'folder("{tmp_path}")', r"bee/2\.JPG cannot be read as an image")
    cut = png(pictures(1, 64, 64)[0])
    (tmp_path / "bee" / "2.JPG").write_bytes(cut[: len(cut) // 2])
    refused(f'folder("{tmp_path}")', r"bee/2\.JPG cannot be read as an image")
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "bee" / "2.JPG", "TIFF")
    refused(f'folder("{tmp_path}")', "its pixels are neither 8-bit nor 16-bit but 'F'")
    refused('folder("x", broken=keep)', "broken='keep' is one of refuse, skip")
    refused('folder("x", size=0)', "size=0 must be")
    refused('folder("x", test_percent=100)', r"test_percent=100 must lie in 1\.\.99")


# digits


def test_digits():
    from sklearn.datasets import load_digits

    data, source = load_digits(), load("digits(test_per_class=20)")
    assert np.bincount(source.test.labels).tolist() == [20] * 10
    assert sorted([*source.train.ids, *source.test.ids]) == list(range(1797))
    for split in source[:2]:
        images = split.images(np.arange(len(split.ids)))
        assert (split.labels == data.target[split.ids]).all() and images.shape[1:] == (8, 8, 1)
        assert abs(images[..., 0] - data.images[split.ids] * 255 / 16).max() <= 0.5 and images.max() == 255
    assert set(source.test.ids) < set(load("digits()").test.ids)
    wide, rows = load("digits(test_per_class=20, canvas=11)"), np.arange(len(source.train.ids))
    for image, digit in zip(wide.train.images(rows), source.train.images(rows), strict=True):
        places = [image[top : top + 8, left : left + 8] for top in range(4) for left in range(4)]
        assert any(np.array_equal(place, digit) for place in places) and image.sum() == digit.sum()
    refused("digits(canvas=7)", "canvas=7 must be 0")
    refused("digits(test_per_class=174)", r"must lie in 1\.\.173")


PLACES = ("", "train/a", "train/b", "test/a", "test/b", "val/a")


def test_a_folder_says_what_it_does_not_read(tmp_path, capsys):
    """Pictures beside the class folders, and a third split beside `train` and `test`."""
    for place in PLACES:
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        for at in range(2):
            pixels = pictures(1, 4, 4, seed=2 * PLACES.index(place) + at)[0]
            Image.fromarray(pixels).save(tmp_path / place / f"{at}.png")
    source = sources.SOURCES["folder"](str(tmp_path), size=4)()
    assert len(source.train.ids) == len(source.test.ids) == 4
    said = capsys.readouterr().out
    assert said == f"note: {tmp_path}: 4 files outside the class folders are not read ({tmp_path / '0.png'}, ...)\n"


def test_folders_of_splits_alone_are_no_classes(tmp_path):
    for split in ("Val", "test"):
        (tmp_path / split / "a").mkdir(parents=True)
    with pytest.raises(UserError, match="holds Val, test: call the splits train and test"):
        sources.SOURCES["folder"](str(tmp_path))()
