"""Figures that are made a block of rows at a time."""

import numpy as np

from lt_noisy.evaluation import classification as evaluation
from lt_noisy.evaluation import representation
from lt_noisy.evaluation.classification import classification, label_noise
from lt_noisy.evaluation.label_quality import quality
from lt_noisy.evaluation.representation import knn_predict

RNG = np.random.default_rng(0)


def test_figures_do_not_hang_on_the_block_they_are_made_in(monkeypatch):
    logits, labels = RNG.normal(size=(50, 7)).astype(np.float32), RNG.integers(0, 7, 50)
    observed, counts = (labels + (np.arange(50) % 4 == 0)) % 7, np.arange(7)

    def made():
        return (
            classification(logits, labels, counts, [f"class{c}" for c in range(7)]),
            label_noise(logits, observed, labels),
            {name: array.tolist() for name, array in quality(logits, observed, 0).items()},
            knn_predict(logits, labels, logits[:9], 7, 20).tolist(),
        )

    whole = made()
    for module, name in ((evaluation, "_BLOCK"), (representation, "_VOTES")):
        monkeypatch.setattr(module, name, 21)  # three rows
    assert made() == whole
