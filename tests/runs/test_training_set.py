"""The training set of a run: which images are kept in memory, what is refused, what is left out."""

from types import SimpleNamespace

import pytest

from lt_noisy.config.resolve import default, resolve, section
from lt_noisy.data.feed import Room
from lt_noisy.errors import UserError
from lt_noisy.runs.seeds import replicas
from lt_noisy.runs.training_set import is_resident, make, write_skipped
from lt_noisy.training import parallel


def resolved(**values):
    c = default()
    c.dataset, c.stages, c.train = "digits(test_per_class=5)", ("train",), section("supervised")
    c.update(values)
    return resolve(c)


def test_images_of_all_seeds_are_in_memory_or_none(tmp_path):
    """60 images of 64 bytes a seed, drawn by it; of those that a device holds half of its memory are twice as many."""
    config = resolved(seeds=(0, 3, 4), longtail="explicit((6, 6, 6, 6, 6, 6, 6, 6, 6, 6))")
    each = [make(run.resolved, run.directory) for run in replicas(config, tmp_path, parallel.make("jit", 2))]

    def fits(places, sets, images, config=config):
        return is_resident(config, sets, places, Room(None, 2 * 64 * images))

    assert fits("aaa", each, 3 * 60) and not fits("aaa", each, 3 * 60 - 1)
    assert fits("aba", each, 2 * 60) and not fits("aba", each, 2 * 60 - 1)
    same = [each[0]] * 3
    assert fits("aaa", same, 60) and not fits("aaa", same, 59)  # the same images
    held_out = resolved(seeds=(0, 3, 4), validation=0.1)
    assert not fits("aaa", same, 3 * 60 - 1, held_out)  # of which each holds out others


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"noise": "before_longtail(symmetric(0.4))"}, "noise comes before the long tail; take noise without before_"),
        ({"dataset": "tfds('cifar10_n:1.0.1', label=worse_label)"}, "cifar10_n:1.0.1 comes before the long tail; take"),
    ],
)
def test_noisy_labels_draw_no_conventional_subset(tmp_path, values, says):
    config = resolved(longtail="exponential(9, subset=conventional)", **values)
    with pytest.raises(UserError) as error:
        make(config, tmp_path)
    assert f"the conventional subset is drawn by the true labels, and {says}" in str(error.value)


def test_the_list_of_skipped_files_goes_with_the_last_of_them(tmp_path):
    write_skipped(SimpleNamespace(skipped=(("a.jpg", "truncated"),)), tmp_path)
    assert "a.jpg,truncated" in (tmp_path / "skipped_files.csv").read_text(encoding="utf-8-sig")
    write_skipped(SimpleNamespace(skipped=()), tmp_path)
    assert not list(tmp_path.iterdir())
