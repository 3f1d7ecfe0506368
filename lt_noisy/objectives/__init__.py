"""Self-supervised objectives: views of each image in, one loss per image out."""

from lt_noisy.config.spec import table
from lt_noisy.objectives.contrastive import moco, simclr
from lt_noisy.objectives.rotation import rotation
from lt_noisy.objectives.siamese import byol, simsiam

OBJECTIVES = table(
    {
        "simclr": simclr,
        "simsiam": simsiam,
        "byol": byol,
        "moco": moco,
        "rotation": rotation,
    }
)
