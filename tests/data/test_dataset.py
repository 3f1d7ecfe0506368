"""What a stage works on, and what of it belongs to the stage's identity."""

import numpy as np
import pytest
from helpers import layouts

from lt_noisy.config.spec import bind
from lt_noisy.data.dataset import DATA, Dataset, Part, choose, hold_out, read_by, select, whole
from lt_noisy.data.sources import SOURCES
from lt_noisy.errors import UserError


@pytest.fixture(scope="module")
def dataset():
    """Every third digit of the training split, one label in four wrong."""
    source = bind("digits(test_per_class=20)", SOURCES, "dataset")()
    rows = np.arange(0, len(source.train.labels), 3)
    clean = source.train.labels[rows]
    observed = np.where(np.arange(len(rows)) % 4 == 0, (clean + 1) % 10, clean).astype(np.int32)
    test = source.test.images(np.arange(len(source.test.labels)))
    return Dataset(
        source.train.images(rows),
        observed,
        clean,
        source.train.ids[rows],
        test,
        source.test.labels,
        source.class_names,
        source,
    )


def test_choices(dataset):
    assert bind("manifest()", DATA, "data") is Part.MANIFEST and choose(Part.MANIFEST, dataset) is dataset
    full = choose(bind("full()", DATA, "data"), dataset)
    np.testing.assert_array_equal(full.ids, dataset.source.train.ids)
    np.testing.assert_array_equal(full.observed, dataset.source.train.labels)
    np.testing.assert_array_equal(full.train_images[::3], dataset.train_images)
    other = choose(bind("halves(digits(test_per_class=30))", DATA, "data"), dataset)  # nests as in `dataset`
    assert len(other.test_labels) == 300 and not np.array_equal(other.test_images[:200], full.test_images)
    with pytest.raises(UserError, match="did you mean 'full'"):
        bind("ful()", DATA, "config.probe.data")


def test_identity_is_what_is_read(dataset):
    ssl, supervised, oracle = (read_by(dataset.hashes(), labels) for labels in ((), ("observed",), ("clean",)))
    # Whatever reads labels reports on the clean ones.
    assert set(supervised) - set(ssl) == {"observed_labels", "clean_labels", "class_names"}
    assert set(oracle) - set(ssl) == {"clean_labels", "class_names"}
    relabelled = dataset._replace(observed=dataset.clean)
    assert read_by(relabelled.hashes(), ()) == ssl and read_by(relabelled.hashes(), ("clean",)) == oracle
    assert read_by(relabelled.hashes(), ("observed",)) != supervised
    assert read_by(whole(dataset.source).hashes(), ())["images"] != ssl["images"]


def test_labels_of_files_are_corrected_between_runs(dataset):
    """What reads no labels is the same with other labels of test images; what reads some names classes."""
    files = tuple(f"{i}.png" for i in range(len(dataset.source.train.ids)))
    named = dataset._replace(source=dataset.source._replace(train=dataset.source.train._replace(files=files)))
    corrected = named._replace(test_labels=np.roll(named.test_labels, 1))
    assert read_by(corrected.hashes(), ()) == read_by(named.hashes(), ())
    assert read_by(corrected.hashes(), ("observed",)) != read_by(named.hashes(), ("observed",))
    renamed = named._replace(class_names=(*named.class_names[:-1], "nine"))
    assert read_by(renamed.hashes(), ()) == read_by(named.hashes(), ())
    assert read_by(renamed.hashes(), ("observed",)) != read_by(named.hashes(), ("observed",))
    other = named._replace(test_images=named.test_images[::-1])
    assert read_by(other.hashes(), ()) != read_by(named.hashes(), ())


def test_rows(dataset):
    rows = np.array([5, 2, 9])
    part = dataset.rows(rows)
    for name in ("train_images", "observed", "clean", "ids"):
        np.testing.assert_array_equal(getattr(part, name), getattr(dataset, name)[rows])
    assert part.test_images is dataset.test_images and part.class_names == dataset.class_names


def test_the_full_split_has_the_clean_labels_that_are_known(tmp_path):
    layouts.features(tmp_path)
    source = bind(f"features(path='{tmp_path}/features.npz')", SOURCES, "dataset")()
    full = whole(source)
    assert (source.train.labels != source.train.clean).sum() == 2
    assert (full.observed == source.train.clean).all() and (full.clean == source.train.clean).all()


def test_flags_are_of_the_labels_that_a_run_has(dataset):
    source, rows = dataset.source, np.arange(5)
    published = np.full(len(source.train.ids), -1, np.int8)
    published[:5] = [0, 0, 1, 1, -1]
    source = source._replace(train=source.train._replace(flags=published))
    labels = source.train.labels[rows]
    changed = np.where([False, True, False, True, True], (labels + 1) % 10, labels).astype(np.int32)
    assert select(source, rows, changed, labels).flags.tolist() == [0, 1, 1, -1, -1]
    assert select(dataset.source, rows, changed, labels).flags is None


def test_what_a_summary_reports_is_in_the_hashes(dataset):
    """Flags, images that are held out, names of classes: of what reads labels."""

    def read(changed):
        return read_by(changed.hashes(), ("observed",))

    held = hold_out(dataset, 0.2, 0)
    others = [
        held._replace(flags=np.zeros(len(held.ids), np.int8)),
        held._replace(flags=np.ones(len(held.ids), np.int8)),
        held._replace(validation=held.validation._replace(images=held.validation.images[::-1])),
        held._replace(class_names=(*held.class_names[:-1], "nine")),
    ]
    assert len({repr(read(changed)) for changed in (held, *others)}) == 5
    assert all(read_by(changed.hashes(), ()) == read_by(held.hashes(), ()) for changed in others)


def test_the_hashes_of_files_are_the_same_in_memory_and_streamed(tmp_path):
    layouts.folder(tmp_path, each=9)
    source = bind(f"folder(path='{tmp_path}', size=8)", SOURCES, "dataset")()
    labels, rows = source.train.labels, np.arange(len(source.train.labels))
    resident, streamed = (hold_out(select(source, rows, labels, labels, stored), 0.2, 0) for stored in (False, True))
    assert resident.hashes() == streamed.hashes() and isinstance(resident.validation.images, np.ndarray)
