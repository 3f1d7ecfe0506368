"""Images in memory and on the disk, to a reader the same."""

import threading

import numpy as np
import pytest

from lt_noisy.data import feed, images
from lt_noisy.data.batches import batches
from lt_noisy.data.images import Stored, blocks, identity, joined, subset
from lt_noisy.errors import UserError
from lt_noisy.hashing import array_sha256

PIXELS = np.random.default_rng(0).integers(0, 256, (50, 3, 2, 1), dtype=np.uint8)


def stored(rows=None):
    return Stored(lambda rows: PIXELS[rows], np.arange(50) if rows is None else rows, (3, 2, 1))


def test_stored_images_are_selected_like_an_array():
    images, rows = stored(), np.array([7, 3, 3])
    assert images.shape == PIXELS.shape and len(images) == 50 and images.nbytes == PIXELS.nbytes
    np.testing.assert_array_equal(images[rows], PIXELS[rows])
    np.testing.assert_array_equal(images[4:9], PIXELS[4:9])
    part = subset(subset(images, np.arange(10, 30)), rows)
    assert isinstance(part, Stored)
    np.testing.assert_array_equal(part[:], PIXELS[10:30][rows])
    np.testing.assert_array_equal(subset(PIXELS, rows), PIXELS[rows])


@pytest.mark.parametrize("first", [PIXELS[:4], stored(np.arange(4))])
@pytest.mark.parametrize("second", [PIXELS[9:], stored(np.arange(9, 50))])
def test_joined(first, second):
    both, expected = joined(first, second), np.concatenate([PIXELS[:4], PIXELS[9:]])
    assert both.shape == expected.shape and isinstance(both, np.ndarray | Stored)
    for rows in (np.array([44, 3, 4, 0]), np.array([0]), np.array([30]), slice(2, 7)):
        np.testing.assert_array_equal(both[rows], expected[rows])


def shifted(rows, cut, draws):
    """A picture's part, of which a test can tell what was drawn."""
    return PIXELS[rows] + np.uint8(1) + (draws[:, 0] * 100).astype(np.uint8)[:, None, None, None]


def pictures(rows):
    return Stored(lambda rows: PIXELS[rows], rows, (3, 2, 1), shifted)


def test_parts_of_pictures_are_those_of_their_rows():
    draws, rows = np.random.default_rng(0).random((3, 22)), np.array([7, 3, 3])
    expected = shifted(np.arange(10, 30)[rows], None, draws)
    part = subset(pictures(np.arange(50)), np.arange(10, 30))
    np.testing.assert_array_equal(part.cut(rows, None, draws), expected)
    both = joined(subset(part, np.arange(5)), subset(part, np.arange(5, 20)))
    np.testing.assert_array_equal(both.cut(rows, None, draws), expected)
    assert joined(part, PIXELS).read_cut is None
    with pytest.raises(ValueError, match="not made of larger pictures"):
        stored().cut(rows, None, draws)


def test_cuts_are_a_function_of_seed_step_position_and_view():
    images, rows = pictures(np.arange(50)), np.array([4, 4, 9])
    cuts = feed.Cuts(None, 7, "cut", views=2, begin=3)
    np.testing.assert_array_equal(cuts.batch(images, rows, 2), PIXELS[rows])
    first = cuts.batch(images, rows, 3)
    assert first.shape == (3, 2, 3, 2, 1)
    np.testing.assert_array_equal(first, cuts.batch(images, rows, 3))
    np.testing.assert_array_equal(first[:2], cuts.batch(images, rows[:2], 3))  # a shorter batch draws the same
    assert len({view.tobytes() for image in first[:2] for view in image}) == 4  # positions and views differ
    for other in (cuts.batch(images, rows, 4), cuts._replace(seed=1).batch(images, rows, 3)):
        assert (other != first).any()
    one = cuts._replace(views=1).batch(images, rows, 3)
    assert one.shape == (3, 3, 2, 1)


@pytest.mark.parametrize("workers", [1, 3])
def test_a_stream_of_cuts(workers):
    cuts, order_of = feed.Cuts(None, 0, "cut", views=2), order()
    images = pictures(np.arange(50))
    _, stream = feed.fed(images, np.arange(50), order_of, 9, workers, cuts)
    for step in range(9):
        np.testing.assert_array_equal(stream(step)["images"], cuts.batch(images, order_of(step)["rows"], step))
    stream.close()


@pytest.mark.parametrize("size", [1, 7, 50, 80])
@pytest.mark.parametrize("images", [PIXELS, stored()])
def test_blocks_are_all_images_in_order(images, size):
    found = list(blocks(images, size))
    assert [start for start, _ in found] == list(range(0, 50, size))
    np.testing.assert_array_equal(np.concatenate([block for _, block in found]), PIXELS)
    assert list(blocks(subset(images, np.arange(0)), size)) == []


@pytest.mark.parametrize(("cores", "budget", "most"), [(5, 2**28, 5), (5, 1, 2), (1, 2**28, 1)])
def test_as_many_blocks_are_read_at_once_as_there_are_cores_and_memory(monkeypatch, cores, budget, most):
    monkeypatch.setattr(images.system, "cores", lambda: cores)
    monkeypatch.setattr(images, "_AHEAD_BYTES", budget)
    all_there, reading, largest, lock = threading.Barrier(most), 0, 0, threading.Lock()

    def read(rows):
        nonlocal reading, largest
        with lock:
            reading += 1
            largest = max(largest, reading)
        if rows[0] < most * 2:
            all_there.wait(60)  # so many at once, or it never opens
        with lock:
            reading -= 1
        return PIXELS[rows]

    found = list(blocks(Stored(read, np.arange(50), (3, 2, 1)), 2))
    assert len(found) == 25 and largest == most


def test_batches_ahead_are_bounded_by_their_bytes(monkeypatch):
    seen = []
    options = feed.grain.ReadOptions
    monkeypatch.setattr(feed.grain, "ReadOptions", lambda **given: seen.append(given) or options(**given))
    for budget in (2**30, 1, 8 * 6 * 4):
        monkeypatch.setattr(feed, "_AHEAD_BYTES", budget)
        _, stream = feed.fed(stored(), np.arange(50), order(), 9, 16)
        stream(0), stream(1)
        stream.close()
    assert [given["prefetch_buffer_size"] for given in seen] == [17, 2, 4]


def test_a_block_that_cannot_be_read_is_the_readers_error():
    def read(rows):
        raise UserError(f"row {rows[0]} is broken")

    with pytest.raises(UserError, match="row 0 is broken"):
        list(blocks(Stored(read, np.arange(9), (3, 2, 1)), 2))


def test_identity_is_of_pixels():
    assert identity(PIXELS) == identity(stored()) == array_sha256(PIXELS)
    assert identity(stored(np.arange(49))) != identity(stored())


def order(**options):
    return batches(50, 8, None, 0, "order", **options)


@pytest.mark.parametrize("workers", [1, 2, 8])
@pytest.mark.parametrize("keep_last", [False, True])
def test_a_stream_is_a_function_of_the_step(workers, keep_last):
    rows_of, total = order(keep_last=keep_last), 23
    _, stream = feed.fed(stored(), np.arange(50), rows_of, total, workers)
    try:
        for step in (0, 0, 1, 2, 3, 9, 10, 11, 12, 4, 5, 6, 20, 21, 22):  # asked again, resumed, resumed earlier
            batch, expected = stream(step), rows_of(step)
            assert batch.keys() == {"rows", "weights", "images"}
            np.testing.assert_array_equal(batch["rows"], expected["rows"])
            np.testing.assert_array_equal(batch["images"], PIXELS[expected["rows"]])
    finally:
        stream.close()
    assert stream.waited > 0


def test_workers_read_ahead_but_not_past_the_end():
    read, ahead = [], threading.Event()

    def reading(rows):
        read.append(rows.tolist())
        if len(read) > 2:
            ahead.set()
        return PIXELS[rows]

    rows_of = order()
    _, stream = feed.fed(Stored(reading, np.arange(50), (3, 2, 1)), np.arange(50), rows_of, 5, 2)
    stream(0), stream(1)
    assert ahead.wait(60)  # though only two were asked for
    assert len([stream(step) for step in (2, 3, 4)]) == 3
    stream.close()
    assert sorted(read) == sorted(rows_of(step)["rows"].tolist() for step in range(5))


def test_a_stream_raises_what_the_reader_raises():
    def read(rows):
        if 3 in rows:
            raise UserError("photos/3.jpg cannot be read")
        return PIXELS[rows]

    images = Stored(read, np.arange(50), (3, 2, 1))
    _, stream = feed.fed(images, np.arange(50), lambda step: {"rows": np.arange(step, step + 1)}, 9, 2)
    with pytest.raises(UserError, match=r"photos/3\.jpg cannot be read"):
        for step in range(9):
            stream(step)
    stream.close()


def test_by_their_size_images_stay_in_memory_or_on_the_disk():
    choose, cpu, gpu = feed.stays_resident, feed.Room(1000, None), feed.Room(1000, 500)
    assert choose(feed.auto(), 300, 200, cpu) and not choose(feed.auto(), 350, 250, cpu)  # a CPU holds them twice
    assert choose(feed.auto(), 350, 250, gpu) and not choose(feed.auto(), 350, 251, gpu)
    assert not choose(feed.auto(), 501, 200, gpu)
    assert choose(feed.resident(), 10**6, 0, cpu) and not choose(feed.streamed(), 2, 1, cpu)
    assert choose(feed.auto(), 10**9, 10**9, feed.Room(None, None))
    with pytest.raises(UserError, match="workers=-1"):
        feed.streamed(-1)
