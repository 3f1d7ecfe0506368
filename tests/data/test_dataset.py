"""What a stage works on, and what of it belongs to the stage's identity."""

import numpy as np
import pytest

from lt_noisy.config.spec import bind
from lt_noisy.data.dataset import DATA, Dataset, Part, choose, read_by, whole
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
    assert set(supervised) - set(ssl) == {"observed_labels", "clean_labels"}
    assert set(oracle) - set(ssl) == {"clean_labels"}
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
