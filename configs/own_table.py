"""Your own images as a table names them: a classifier, and the list of labels to look at.

    python main.py --config=configs/own_table.py --config.dataset="table('labels.csv', 'pictures')"                a GPU
    python main.py --config=configs/own_table.py:small --config.dataset="table('labels.csv', 'pictures', size=32)" a CPU

`labels.csv` (or `.tsv`, `.parquet`) has the columns `image` and `label`; `split`, `id` and `clean_label` if there are
any (docs/data.md). The stages, what they cost and what they leave are those of `configs/own_images.py`, which is for
folders: pre-training without labels, a classifier by logit adjustment inside SuperLoss, every label judged by a network
that has not seen it (`folds/suspects.csv`).

With `clean_label` in the table the summary says how many wrong labels were found.

Cost: that of `own_images`.
Measured: that of `own_images`, docs/results.md; this config on invented pictures alone.
"""

from ml_collections import ConfigDict

from lt_noisy.config import recipes
from lt_noisy.config.resolve import check_variant


def get_config(variant: str = "") -> ConfigDict:
    """The experiment; variant `small` is ResNet-8, fewer epochs and four folds."""
    check_variant(variant)
    size = 32 if variant == "small" else 64
    return recipes.own(f"table(path='labels.csv', images='pictures', size={size})", size, variant == "small")
