"""TFDS sets: read without TensorFlow, and one clear line where they cannot be."""

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.commands import HANGS
from helpers.tfds_files import examples, pictures, png, write_tfds
from PIL import Image

from lt_noisy.config import spec
from lt_noisy.data import cache, sources
from lt_noisy.data.sources import preparing
from lt_noisy.errors import UserError


def load(text):
    return spec.bind(text, sources.SOURCES, "dataset")()


def refused(text, match):
    with pytest.raises(UserError, match=match) as caught:
        load(text)
    assert "\n" not in str(caught.value)


@pytest.fixture
def tfds_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """What is read is kept in a cache of the test's own, however soon it was read."""
    monkeypatch.setenv(cache.DIRECTORY, str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "WORTH_SECONDS", 0.0)


def test_tfds_reads_ids_labels_and_the_rows_asked_for(tfds_dir):
    train, test = examples(pictures(600)), examples(pictures(5, seed=1), b"test_")
    write_tfds(tfds_dir, "tiny_set", {"train": train, "test": test})
    source = load("tfds(tiny_set)")
    assert source.class_names == ("cat", "dog", "emu") and source.num_classes == 3
    for split, stored in ((source.train, train), (source.test, test)):
        assert split.ids.tolist() == [int(i[-5:]) for i, _, _ in stored] and split.ids.dtype == np.int64
        assert split.labels.tolist() == [label for _, _, label in stored] and split.labels.dtype == np.int32
    rows = np.random.RandomState(5).randint(0, 600, 700)
    images = source.train.images(rows)
    assert images.dtype == np.uint8 and (images == np.stack([train[r][1] for r in rows])).all()
    assert source.train.images(rows[:0]).shape == (0, 6, 6, 3)
    part = load('tfds(tiny_set, train="train[:40%]", test="train[40%:]", size=3)')
    assert (len(part.train.ids), len(part.test.ids)) == (240, 360)
    expected = Image.fromarray(train[1][1]).resize((3, 3), Image.Resampling.BILINEAR)
    assert (part.train.images(np.array([1]))[0] == np.asarray(expected)).all()


def test_tfds_imports_no_tensorflow(tfds_dir):
    write_tfds(tfds_dir, "tiny_set", {s: examples(pictures(4)) for s in ("train", "test")})
    code = (
        "import sys; from lt_noisy.data import sources; s = sources.tfds.tfds('tiny_set')();"
        "assert 'tensorflow_datasets' in sys.modules;"
        "print(s.train.images(s.train.ids * 0).shape, 'tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(4, 6, 6, 3) False"


@pytest.mark.parametrize("identities", [None, [b"a", b"b_1"], [b"x_1", b"y_1"]])
def test_tfds_ids_are_rows_where_no_unique_integer_ends_the_id(tfds_dir, identities):
    stored = [(identities and identities[i], p, i) for i, p in enumerate(pictures(2))]
    write_tfds(tfds_dir, "tiny_set", {"train": stored, "test": stored})
    assert load("tfds(tiny_set)").train.ids.tolist() == [0, 1]


def test_tfds_grey_images_and_unknown_shapes(tfds_dir):
    grey = examples(pictures(3, channels=1))
    write_tfds(tfds_dir, "grey_set", {"train": grey, "test": grey}, shape=(6, 6, 1))
    assert (load("tfds(grey_set)").train.images(np.arange(3)) == np.stack([p for _, p, _ in grey])).all()
    wide = examples(pictures(3, height=4, width=7))
    write_tfds(tfds_dir, "wide_set", {"train": wide, "test": wide}, shape=(-1, -1, 3))
    assert load("tfds(wide_set)").train.images(np.arange(2)).shape == (2, 4, 7, 3)
    mixed = [*wide, *((i + b"9", p, n) for i, p, n in examples(pictures(2)))]
    write_tfds(tfds_dir, "mixed_set", {"train": mixed, "test": wide}, shape=(-1, -1, 3))
    refused("tfds(mixed_set)", "images differ in shape; give size=")
    write_tfds(tfds_dir, "apart_set", {"train": grey[:1], "test": wide}, shape=(-1, -1, 3))
    refused("tfds(apart_set)", "train and test images differ in shape; give size=")
    assert load("tfds(mixed_set, size=5)").train.images(np.arange(5)).shape == (5, 5, 5, 3)


def test_tfds_sets_that_will_not_do(tfds_dir):
    good = examples(pictures(3))
    write_tfds(tfds_dir, "tiny_set", {"train": good, "test": good})
    refused("tfds(tiny_set, train=trian)", "split 'trian', cannot be read: Unknown split")
    refused("tfds(cifer10)", "no data set 'cifer10', did you mean 'cifar10'")
    refused('tfds("cifar10:9.9.9")', "cannot open 'cifar10:9.9.9'")
    refused("tfds(tiny_set, size=-1)", "size=-1 must be")
    write_tfds(tfds_dir, "no_label", {"train": good, "test": good}, label=False)
    refused("tfds(no_label)", "not a set of 8-bit images with one class label .it has id: Text, image: Image.$")
    write_tfds(tfds_dir, "hidden", {"train": good, "test": [(b"test_1", good[0][1], -1)]})
    refused("tfds(hidden)", "split 'test': some images have no label")
    write_tfds(tfds_dir, "tf_set", {"train": good, "test": good}, file_format="tfrecord")
    refused("tfds(tf_set)", f"convert_format --dataset_version_dir={tfds_dir}/tf_set/1.0.0")
    next((tfds_dir / "tiny_set" / "1.0.0").glob("*train*")).unlink()
    refused("tfds(tiny_set)", "split 'train': the prepared files are damaged")


@pytest.mark.parametrize("whole", [True, False])
def test_another_label_of_the_set_and_what_it_says_of_them(tfds_dir, monkeypatch, whole):
    monkeypatch.setattr(sources.tfds, "_WHOLE", 2**30 if whole else 0)
    stored = examples(pictures(4))
    said = {"train": [(0, 1), (1, 0), (2, 1), (0, 0)], "test": [(-1, 1)] * 4}
    write_tfds(tfds_dir, "tiny_set", {"train": stored, "test": stored}, said=said)
    noisy = load("tfds(tiny_set, label=worse_label)")
    true = [label for _, _, label in stored]
    assert noisy.train.labels.tolist() == [0, 1, 2, 0] and noisy.train.clean.tolist() == true
    assert noisy.train.flags.tolist() == [0, 1, 0, 1] and noisy.test.labels.tolist() == true
    plain = load("tfds(tiny_set)").train
    assert plain.labels.tolist() == true and plain.clean is None
    refused(
        "tfds(tiny_set, label=worst_label)", "no label 'worst_label', did you mean 'worse_label'. .it has label, worse"
    )


def test_sums_of_splits(tfds_dir):
    stored = examples(pictures(5))
    more = [(b"extra_%02d" % at, pixels, label) for at, (_, pixels, label) in enumerate(stored[:3])]
    write_tfds(tfds_dir, "tiny_set", {"train": stored, "extra": more, "test": stored})
    train = load("tfds(tiny_set, train='train+extra')").train
    assert train.labels.tolist() == [label for _, _, label in stored + more] and len(set(train.ids)) == 8
    assert (train.images(np.array([6])) == stored[1][1]).all()


def test_what_is_downloaded_by_hand_is_said_whole(tfds_dir, monkeypatch):
    monkeypatch.setattr(preparing, "_has_tensorflow", lambda: True)
    monkeypatch.setattr(subprocess, "run", None)
    text = (
        rf"Put it into {tfds_dir}/downloads/manual: manual_dir should contain .*train.tar and .*val.tar\. .* dataset\.$"
    )
    refused("tfds(imagenet_lt, size=8)", text)
    (tfds_dir / "downloads" / "manual").mkdir(parents=True)
    (tfds_dir / "downloads" / "manual" / "ILSVRC2012_img_train.tar").write_bytes(b"")
    monkeypatch.setattr(preparing, "_unreachable", lambda builder: "example.org")
    refused("tfds(imagenet_lt, size=8)", "example.org cannot be reached")


def test_tfds_not_prepared_is_prepared_in_another_process_or_says_how(tfds_dir, monkeypatch):
    commands = []
    monkeypatch.setattr(preparing, "_has_tensorflow", lambda: True)
    monkeypatch.setattr(preparing, "_unreachable", lambda builder: "")

    def fail(command, **options):
        commands.append(command)
        return subprocess.CompletedProcess(command, 1, stderr="Traceback\n  x\nModuleNotFoundError: No tensorflow\n")

    monkeypatch.setattr(subprocess, "run", fail)
    refused("tfds(cifar10)", r"not prepared .*\(ModuleNotFoundError: No tensorflow\).*\.\[prepare\].* python -c ")
    code = commands[0][-1]
    compile(code, "the command", "exec")
    assert "tfds.builder('cifar10', file_format='array_record').download_and_prepare()" in code

    def prepare(command, **options):
        write_tfds(tfds_dir, "cifar10", {s: examples(pictures(3)) for s in ("train", "test")}, version="3.0.2")
        return subprocess.CompletedProcess(command, 0, stderr="")

    monkeypatch.setattr(subprocess, "run", prepare)
    assert len(load("tfds(cifar10)").train.ids) == 3


def test_tfds_not_prepared_without_tensorflow_names_the_extra_and_starts_nothing(tfds_dir, monkeypatch):
    monkeypatch.setattr(preparing, "_has_tensorflow", lambda: False)
    monkeypatch.setattr(subprocess, "run", None)
    monkeypatch.setattr(preparing, "_unreachable", None)
    refused("tfds(cifar10)", rf"is not prepared in {tfds_dir}, .* takes TensorFlow .*pip install '\.\[prepare\]'")


def test_tfds_not_prepared_without_a_network_is_said_soon(tfds_dir, monkeypatch):
    """One host that refuses, one that never answers, one that does; a file that is there already is not asked for."""
    with socket.socket() as deaf, socket.socket() as speaking:
        for server in (deaf, speaking):
            server.bind(("127.0.0.1", 0))
        speaking.listen()
        deaf.listen()

        def answer():
            with speaking.accept()[0] as client:
                client.sendall(b"HTTP/1.0 404 none\r\n\r\n")

        answering = threading.Thread(target=answer)
        answering.start()
        refusing, silent, there = (f"http://127.0.0.1:{port}/a.zip" for port in (1, *_ports(deaf, speaking)))
        builder = SimpleNamespace(data_path=tfds_dir / "cifar10" / "3.0.2", builder_config=None)
        monkeypatch.setattr(preparing, "_PATIENCE", 0.5)
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.delenv(name, raising=False)
        began = time.perf_counter()
        for url, missing in ((refusing, "127.0.0.1:1"), (silent, f"127.0.0.1:{_ports(deaf)[0]}"), (there, "")):
            builder.url_infos = {url: None}
            assert preparing._unreachable(builder) == missing
        answering.join()
        (tfds_dir / "downloads").mkdir()
        (tfds_dir / "downloads" / "a.INFO").write_text(f'{{"urls": ["{refusing}"]}}')
        builder.url_infos = {refusing: None}
        assert preparing._unreachable(builder) == ""
        assert time.perf_counter() - began < 30

    monkeypatch.setattr(preparing, "_has_tensorflow", lambda: True)
    monkeypatch.setattr(preparing, "_unreachable", lambda builder: "example.org")
    monkeypatch.setattr(subprocess, "run", None)
    refused("tfds(cifar10)", r"example.org cannot be reached; .*'\.\[prepare\]'")


def _ports(*servers):
    return [server.getsockname()[1] for server in servers]


def test_preparing_ends_with_the_process_that_asked_for_it():
    lives, end = os.pipe()
    code = f"{preparing._ENDS_WITH_ITS_PARENT}; import time; time.sleep({HANGS})"
    with subprocess.Popen([sys.executable, "-c", code], stdin=lives) as child:
        os.close(lives)
        assert child.poll() is None
        os.close(end)
        assert child.wait(HANGS) == 1


def test_tfds_cifar10_where_it_is_prepared(monkeypatch):
    root = Path.home() / "tensorflow_datasets"
    if not (root / "cifar10/3.0.2/features.json").is_file():
        return  # the tiny set above goes the same way
    monkeypatch.setenv("TFDS_DATA_DIR", str(root))  # TFDS reads it once, maybe in a test above
    source = load("tfds(cifar10)")
    assert sorted(source.train.ids) == list(range(50000)) and sorted(source.test.ids) == list(range(10000))
    assert np.bincount(source.train.labels).tolist() == [5000] * 10
    by_id = source.train.labels[np.argsort(source.train.ids)]
    assert by_id[:10].tolist() == [
        6,
        9,
        9,
        4,
        1,
        1,
        2,
        7,
        8,
        3,
    ]  # data_batch_1 begins frog, truck, truck, deer
    assert source.class_names[:2] == ("airplane", "automobile")
    assert source.train.images(np.array([3, 49999])).shape == (2, 32, 32, 3)


def test_a_small_set_is_decoded_once_and_again_when_its_files_change(tfds_dir, monkeypatch, kept):
    stored = examples(pictures(5))
    write_tfds(tfds_dir, "tiny_set", {"train": stored, "test": stored})
    first = load("tfds(tiny_set)").train
    with monkeypatch.context() as patched:
        patched.setattr(sources.tfds.Form, "pixels", None)
        again = load("tfds(tiny_set)").train
    for rows in (np.arange(5), np.array([3, 1])):
        assert (again.images(rows) == np.stack([stored[row][1] for row in rows])).all()
    assert again.ids.tolist() == first.ids.tolist() and again.labels.tolist() == first.labels.tolist()
    shutil.rmtree(tfds_dir / "tiny_set")
    other = examples(pictures(5, seed=9))
    write_tfds(tfds_dir, "tiny_set", {"train": other, "test": stored})
    assert (load("tfds(tiny_set)").train.images(np.arange(5)) == np.stack([p for _, p, _ in other])).all()


@pytest.mark.parametrize("size", ["", ", size=4"])
@pytest.mark.parametrize("whole", [2**30, 0])
def test_images_are_identified_by_what_they_are_not_by_how_they_are_stored(tfds_dir, monkeypatch, kept, whole, size):
    """Prepared anew, with other files of the same images, a run goes on where it was."""
    monkeypatch.setattr(sources.tfds, "_WHOLE", whole)
    rows, stored = np.array([3, 1]), examples(pictures(5))

    def identity(examples, **written):
        shutil.rmtree(tfds_dir / "tiny_set", ignore_errors=True)
        write_tfds(tfds_dir, "tiny_set", {"train": examples, "test": stored}, **written)
        return load(f"tfds(tiny_set{size})").train.content(rows)

    first = identity(stored)
    assert identity(stored, writer="group_size:2,uncompressed") == first
    uncompressed = identity(stored, encode=lambda pixels: png(pixels, level=0))
    assert (uncompressed == first) == (whole > 0)  # of a large set the encoded bytes are what is known
    other = [(i, pixels ^ (row == 3), label) for row, (i, pixels, label) in enumerate(stored)]
    assert identity(other) != first


def test_what_is_read_of_a_large_set_is_kept(tfds_dir, monkeypatch, kept):
    monkeypatch.setattr(sources.tfds, "_WHOLE", 0)
    stored = examples(pictures(5))
    write_tfds(tfds_dir, "tiny_set", {"train": stored, "test": stored})
    first = load("tfds(tiny_set)").train
    monkeypatch.setattr(sources.tfds.Keys, "facts", None)
    again = load("tfds(tiny_set)").train
    assert again.ids.tolist() == first.ids.tolist() and again.labels.tolist() == first.labels.tolist()
    assert again.content(np.arange(5)) == first.content(np.arange(5))


@pytest.mark.parametrize("whole", [2**30, 0])
@pytest.mark.parametrize("end", [0, 40])  # without a header; cut off behind it
def test_a_picture_that_cannot_be_read_is_named(tfds_dir, monkeypatch, whole, end):
    monkeypatch.setattr(sources.tfds, "_WHOLE", whole)
    stored = examples(pictures(5))
    write_tfds(tfds_dir, "tiny_set", {"train": stored, "test": stored}, encode=lambda pixels: png(pixels)[:end])
    refused("tfds(tiny_set)", "split 'train', record 0: the picture cannot be read")


@pytest.mark.parametrize("fault", [OSError("truncated"), SyntaxError("PNG"), Image.DecompressionBombError("")])
def test_a_picture_that_cannot_be_cut_is_named(tfds_dir, monkeypatch, fault):
    """Of a large set only the headers are read before the step that takes a picture."""
    monkeypatch.setattr(sources.tfds, "_WHOLE", 0)
    stored = examples(pictures(5))
    write_tfds(tfds_dir, "tiny_set", {"train": stored, "test": stored})
    split = load("tfds(tiny_set, size=8)").train

    def broken(*_):
        raise fault

    monkeypatch.setattr(sources.tfds.Form, "cut", broken)
    monkeypatch.setattr(sources.tfds.Form, "pixels", broken)
    for read in (lambda rows: split.read_cut(rows, None, np.zeros(len(rows))), split.images):
        with pytest.raises(UserError, match="split 'train', record 3: the picture cannot be read"):
            read(np.array([3]))


def test_a_large_set_is_decoded_by_row(tfds_dir, monkeypatch):
    monkeypatch.setattr(sources.tfds, "_WHOLE", 0)
    stored = examples(pictures(5))
    write_tfds(tfds_dir, "tiny_set", {"train": stored, "test": stored})
    split = load("tfds(tiny_set)").train
    rows = np.array([3, 1, 3])
    assert (split.images(rows) == np.stack([stored[row][1] for row in rows])).all()
    assert split.ids.tolist() == [int(i[-5:]) for i, _, _ in stored] and split.labels.tolist() == [
        label for _, _, label in stored
    ]
