"""How the experts of a stage share its budget."""

import numpy as np
import pytest

from lt_noisy.stages.experts import batch_size


@pytest.mark.parametrize(
    ("images", "asked", "batch"), [(5000, 512, 512), (2048, 512, 512), (2047, 512, 256), (129, 512, 32), (7, 512, 1)]
)
def test_batches_hold_a_quarter_of_the_cluster_at_most_and_do_not_depend_on_devices(images, asked, batch):
    assert batch_size(np.int64(images), asked) == batch  # as counted
    assert batch_size(3, asked) == 0
