"""Self-supervised objectives: views of each image in, one loss per image out.

Their formulas are pure functions for any JAX loop:

    from lt_noisy.objectives import nt_xent

    def mean_loss(params):
        return nt_xent(network(params, first_views), network(params, second_views), temperature=0.5).mean()

`OBJECTIVES` are the whole methods, with their heads, queues and target networks.
"""

from lt_noisy.config.spec import table
from lt_noisy.objectives.contrastive import info_nce, moco, nt_xent, simclr
from lt_noisy.objectives.rotation import rotation
from lt_noisy.objectives.siamese import byol, negative_cosine, simsiam

__all__ = ["OBJECTIVES", "byol", "info_nce", "moco", "negative_cosine", "nt_xent", "rotation", "simclr", "simsiam"]

OBJECTIVES = table(
    {
        "simclr": simclr,
        "simsiam": simsiam,
        "byol": byol,
        "moco": moco,
        "rotation": rotation,
    }
)
