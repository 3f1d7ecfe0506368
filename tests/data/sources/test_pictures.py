"""Picture files of every kind, and folders as people have them: read right, or one line."""

import io
import pathlib
import shutil

import numpy as np
import pytest
from helpers import layouts
from helpers.tfds_files import pictures
from PIL import Image

from lt_noisy.data import cache
from lt_noisy.data.sources import SOURCES, decoding
from lt_noisy.data.sources import pictures as files
from lt_noisy.errors import UserError


def save(path, pixels, kind="PNG", mode=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels) if isinstance(pixels, np.ndarray) else pixels
    (image if mode is None else image.convert(mode)).save(path, kind, **options)


def tree(root, **counts):
    """A folder of classes, every picture of its own."""
    for at, (name, count) in enumerate(counts.items()):
        for i in range(count):
            save(root / name / f"{i:02d}.png", pictures(1, 8, 8, seed=1000 * at + i)[0])


def load(root, **options):
    return SOURCES["folder"](str(root), size=8, **options)()


def everything(source):
    """{file: (class, image)} of both splits."""
    return {
        file: (source.class_names[label], image)
        for split in (source.train, source.test)
        for file, label, image in zip(split.files, split.labels, split.images(np.arange(len(split.ids))), strict=True)
    }


COLOURS = np.repeat(np.array([[200, 40, 90], [10, 220, 30]], np.uint8), 4, 0)[None].repeat(
    8, 0
)  # [8, 8, 3], two halves
GREYS = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4


def alpha(pixels, opaque):
    return np.concatenate([pixels, np.full((8, 8, 1), opaque, np.uint8)], -1)


def palette_with_transparency():
    image = Image.fromarray(np.zeros((8, 8), np.uint8), "P")
    image.putpalette([200, 40, 90] + [0, 0, 0] * 255)
    image.info["transparency"] = 0
    return image


def animation():
    frames = [Image.fromarray(np.full((8, 8, 3), value, np.uint8)) for value in (250, 3)]
    out = io.BytesIO()
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:])
    return Image.open(io.BytesIO(out.getvalue()))


@pytest.mark.parametrize(
    ("name", "pixels", "options", "expected"),
    [
        ("a.png", COLOURS, {}, COLOURS),
        ("grey.png", GREYS, {}, np.stack([GREYS] * 3, -1)),
        ("sixteen.png", GREYS.astype(np.uint16) * 256 + 77, {}, np.stack([GREYS] * 3, -1)),
        ("sixteen.tif", GREYS.astype(np.uint16) * 256 + 77, {"kind": "TIFF"}, np.stack([GREYS] * 3, -1)),
        ("see_through.png", alpha(COLOURS, 0), {}, np.full((8, 8, 3), 255)),
        ("opaque.png", alpha(COLOURS, 255), {}, COLOURS),
        ("half.webp", alpha(COLOURS, 128), {"kind": "WEBP", "lossless": True}, np.rint(127 + COLOURS * (128 / 255))),
        ("palette.png", palette_with_transparency(), {}, np.full((8, 8, 3), 255)),
        ("animation.gif", animation(), {"kind": "GIF", "save_all": True}, np.full((8, 8, 3), 250)),
        ("portable", COLOURS, {"kind": "PPM"}, COLOURS),
        ("ink.tif", COLOURS, {"kind": "TIFF", "mode": "CMYK"}, COLOURS),
        ("one_bit.png", (GREYS > 99), {}, np.stack([(GREYS > 99) * 255] * 3, -1)),
        ("photo.jfif", np.full((8, 8, 3), 120, np.uint8), {"kind": "JPEG", "quality": 100}, np.full((8, 8, 3), 120)),
    ],
)
def test_every_kind_of_picture(tmp_path, name, pixels, options, expected):
    tree(tmp_path, cat=2, dog=2)
    save(tmp_path / "cat" / name, pixels, **options)
    _, found = everything(load(tmp_path))[f"cat/{name}"]
    assert np.abs(found.astype(int) - np.asarray(expected).astype(int)).max() <= 1


@pytest.mark.parametrize("kept", [True, False])
def test_a_large_photograph_is_decoded_at_a_smaller_scale(tmp_path, monkeypatch, kept):
    monkeypatch.setattr(files, "_WHOLE", 2**30 if kept else 0)
    tree(tmp_path, cat=2, dog=2)
    wide = np.asarray(Image.fromarray(pictures(1, 4, 6, seed=3)[0]).resize((960, 640), Image.Resampling.BICUBIC))
    save(tmp_path / "cat" / "photo.jpg", wide, "JPEG", quality=95)
    expected = Image.fromarray(wide[:, 160:800]).resize((8, 8), Image.Resampling.BOX)
    _, found = everything(load(tmp_path))["cat/photo.jpg"]
    assert np.abs(found.astype(int) - np.asarray(expected).astype(int)).mean() < 4


def smooth(height, width, seed=0):
    small = Image.fromarray(pictures(1, 5, 7, seed=seed)[0])
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def as_png(pixels, **options):
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", **options)
    return io.BytesIO(out.getvalue())


def test_the_shorter_side_is_resized_and_the_centre_cut_out_as_for_the_test_images_of_imagenet():
    pixels = smooth(50, 83)
    resized = Image.fromarray(pixels).resize((53, 32), Image.Resampling.BILINEAR)  # torchvision's Resize(32)
    expected = np.asarray(resized)[2:30, 12:40]  # and its CenterCrop(28)
    found = files.decode(as_png(pixels), 28, 3, resize=32)
    assert found.shape == (28, 28, 3)
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1
    assert np.abs(found.astype(int) - files.decode(as_png(pixels), 28, 3).astype(int)).mean() > 5


def test_a_part_is_cut_out_and_then_resized():
    pixels, box = smooth(50, 83), (13, 6, 40, 31)
    expected = np.asarray(Image.fromarray(pixels[6:37, 13:53]).resize((12, 12), Image.Resampling.BILINEAR))
    asked = []

    def cut(draws, *sizes):
        asked.append((draws, *sizes))
        return box

    np.testing.assert_array_equal(files.decode_cut(as_png(pixels), 12, 3, cut, "draws"), expected)
    assert asked == [("draws", 83, 50, 12)]
    assert files.decode_cut(as_png(pixels), 12, 1, cut, "draws").shape == (12, 12, 1)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_part_is_of_the_picture_as_it_is_looked_at(kind):
    pixels, exif = smooth(64, 96), Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, exif=exif, quality=95)
    upright = np.rot90(pixels, -1)
    expected = np.asarray(Image.fromarray(upright[10:74, 0:64]).resize((16, 16), Image.Resampling.BILINEAR))
    found = files.decode_cut(file, 16, 3, lambda draws, width, height, size: (0, 10, 64, 64), None)
    assert np.abs(found.astype(int) - expected.astype(int)).mean() < 2


def test_a_part_of_a_photograph_is_decoded_at_a_smaller_scale_where_it_is_large(monkeypatch):
    pixels, file, scales = smooth(640, 960), io.BytesIO(), []
    Image.fromarray(pixels).save(file, "JPEG", quality=95)
    true = decoding.rgb
    monkeypatch.setattr(decoding, "rgb", lambda image: scales.append(image.width / 960) or true(image))
    for box, scale in [((0, 0, 960, 640), 0.125), ((100, 200, 320, 300), 0.25), ((333, 77, 41, 33), 1)]:
        left, top, width, height = box
        part = Image.fromarray(pixels[top : top + height, left : left + width])
        expected = np.asarray(part.resize((32, 32), Image.Resampling.BILINEAR))
        found = files.decode_cut(file, 32, 3, lambda *_, box=box: box, None)
        assert np.abs(found.astype(int) - expected.astype(int)).mean() < 3
        assert scales.pop() == scale


def broken_files(root):
    whole = io.BytesIO()
    Image.fromarray(pictures(1, 64, 64)[0]).save(whole, "JPEG")
    data = whole.getvalue()
    content = {"cut.jpg": data[:-20], "half.jpg": data[: len(data) // 2], "empty.png": b"", "text.png": b"hello"}
    for name, what in content.items():
        (root / name).write_bytes(what)
    save(root / "float.tif", np.zeros((4, 4), np.float32), "TIFF")
    return sorted([*content, "float.tif"])


def test_broken_files_are_refused_by_name_or_left_out_and_listed(tmp_path, capsys):
    tree(tmp_path, cat=5, dog=5)
    names = broken_files(tmp_path / "cat")
    with pytest.raises(
        UserError, match=r"cut\.jpg cannot be read as an image: .*; 4 more cannot be read either: .*"
    ) as e:
        load(tmp_path)
    assert all(name in str(e.value) for name in names) and str(e.value).endswith("; broken='skip' leaves them out")
    source = load(tmp_path, broken="skip")
    assert len(everything(source)) == 10
    assert [file.rsplit("/", 1)[1] for file, _ in source.skipped] == names and all(why for _, why in source.skipped)
    assert "5 of 15 files cannot be read and are left out" in capsys.readouterr().out
    for i in range(4):
        (tmp_path / "dog" / f"{i:02d}.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"less than 2 images that can be read, one of them for the test, of dog"):
        load(tmp_path, broken="skip")


def test_a_decompression_bomb_is_refused_by_name(tmp_path, monkeypatch):
    tree(tmp_path, cat=2, dog=2)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)  # refused from twice that on; the others have 64
    with pytest.raises(UserError, match=r"00\.png cannot be read .*decompression bomb"):
        load(tmp_path)


def test_what_systems_leave_is_no_picture_and_a_link_in_a_circle_is_one_line(tmp_path, capsys):
    tree(tmp_path, cat=3, dog=3)
    for junk in ("@eaDir/cat/00.png", "__MACOSX/a/00.png", "cat/@eaDir/thumb.png", "dog/Thumbs.db", "cat/desktop.ini"):
        save(tmp_path / junk, GREYS)
    assert len(everything(load(tmp_path))) == 6 and capsys.readouterr().out == ""
    (tmp_path / "dog" / "again").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(UserError, match=r"dog/again is a link to .*, a folder that it is in; remove it"):
        load(tmp_path)


def test_classes_that_are_numbers_come_in_their_order(tmp_path):
    tree(tmp_path, **{str(n): 2 for n in (10, 9, 2, 1)})
    assert load(tmp_path).class_names == ("1", "2", "9", "10")
    tree(tmp_path, ten=2)
    assert load(tmp_path).class_names == ("1", "10", "2", "9", "ten")


def test_equal_files_are_counted_or_left_out(tmp_path, capsys):
    tree(tmp_path / "train", cat=6, dog=6)
    tree(tmp_path / "test", bird=0, cat=0, cow=0, dog=0, emu=3)
    (tmp_path / "test" / "emu").rename(tmp_path / "test" / "cat")
    shutil.copy(tmp_path / "train" / "cat" / "00.png", tmp_path / "test" / "cat" / "seen.png")
    shutil.copy(tmp_path / "train" / "cat" / "01.png", tmp_path / "train" / "dog" / "twin.png")
    shutil.copy(tmp_path / "train" / "dog" / "05.png", tmp_path / "train" / "dog" / "copy.png")
    assert len(everything(load(tmp_path))) == 18
    said = capsys.readouterr().out
    assert "1 training images are test images too" in said and "2 images are in several classes" in said
    found = set(everything(load(tmp_path, dedupe=True)))
    gone = {"train/cat/00.png", "train/cat/01.png", "train/dog/twin.png", "train/dog/copy.png"}
    assert len(found) == 14 and len(found & gone) <= 1 and "test/cat/seen.png" in found
    assert "4 of 18 images are left out, which are there twice" in capsys.readouterr().out


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A cache that keeps everything; the files that were looked at, and those that were decoded."""
    monkeypatch.setenv(cache.DIRECTORY, str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "WORTH_SECONDS", 0.0)
    looked, decoded, look, decode = [], [], files._look, files.decode
    monkeypatch.setattr(files, "_look", lambda file: looked.append(file.name) or look(file))
    monkeypatch.setattr(files, "decode", lambda file, *shape: decoded.append(file.name) or decode(file, *shape))
    return looked, decoded


def test_a_later_start_looks_at_what_has_changed_alone(tmp_path, kept):
    looked, decoded = kept
    root = tmp_path / "photos"
    tree(root, cat=5, dog=5)
    first = everything(load(root))
    assert len(looked) == len(decoded) == 10
    looked.clear(), decoded.clear()
    again = everything(load(root))
    assert looked == decoded == [] and again.keys() == first.keys()
    assert all((again[name][1] == first[name][1]).all() for name in first)
    save(root / "cat" / "new.png", COLOURS)
    save(root / "dog" / "00.png", 255 - COLOURS)
    (root / "dog" / "01.png").rename(root / "cat" / "moved.png")
    (root / "dog" / "02.png").unlink()
    changed = everything(load(root))
    assert sorted(looked) == ["00.png", "moved.png", "new.png"] and sorted(decoded) == ["00.png", "new.png"]
    assert (changed["cat/new.png"][1] == COLOURS).all() and (changed["dog/00.png"][1] == 255 - COLOURS).all()
    assert (changed["cat/moved.png"][1] == first["dog/01.png"][1]).all() and "dog/02.png" not in changed
    looked.clear(), decoded.clear()
    assert load(root) and looked == decoded == []


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), MemoryError("no room")])
def test_a_fault_of_the_system_is_not_remembered(tmp_path, kept, monkeypatch, error):
    looked, _ = kept
    root = tmp_path / "photos"
    tree(root, cat=5, dog=5)
    read = pathlib.Path.read_bytes

    def fail(file):
        if file.name == "01.png" and file.parent.name == "cat":
            raise error
        return read(file)

    monkeypatch.setattr(pathlib.Path, "read_bytes", fail)
    with pytest.raises(UserError, match=r"cat/01.png cannot be read as an image: .*(Input/output error|no room)"):
        load(root)
    monkeypatch.setattr(pathlib.Path, "read_bytes", read)
    looked.clear()
    assert len(everything(load(root))) == 10 and looked == ["01.png"]


def test_content_identifies_the_pixels_of_rows(tmp_path):
    tree(tmp_path, cat=6, dog=6)
    split = load(tmp_path).train
    rows = np.arange(4)
    assert split.content(rows) == load(tmp_path).train.content(rows) != split.content(rows[::-1])
    assert split.content(rows) != SOURCES["folder"](str(tmp_path), size=4)().train.content(rows)


def test_a_folder_without_classes_has_one(tmp_path, capsys):
    for i in range(9):
        save(tmp_path / f"{i}.png", pictures(1, 8, 8, seed=i)[0])
    (tmp_path / "notes.txt").write_text("hello")
    source = load(tmp_path)
    assert source.class_names == ("unlabelled",) and len(everything(source)) == 9 and len(source.test.ids) >= 1
    assert "has no class folders: its images are for stages that read no labels" in capsys.readouterr().out


def test_lists_below_one_root_do_not_forget_each_other(tmp_path, kept):
    """Rates of one set, noisy and clean training images: each is looked at and decoded once."""
    looked, decoded = kept
    layouts.clothing1m(tmp_path / "set")
    for train in ("noisy_train", "clean_train", "noisy_train", "clean_train"):
        SOURCES["clothing1m"](str(tmp_path / "set"), train=train, size=8)()
    assert len(looked) == 14 * 2 * 3 and len(decoded) == 14 * 2 * 2  # the clean ones have the pixels of the noisy


def test_a_stretched_picture_is_upright_and_over_white():
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    half = np.zeros((8, 8, 4), np.uint8)
    half[:, :4] = 255, 0, 0, 255  # the other half is transparent
    Image.fromarray(half).save(file, "PNG", exif=exif)
    found = decoding.decode_stretched(file, 8, 3)
    assert (found[:4] == (255, 0, 0)).all() and (found[4:] == 255).all()
