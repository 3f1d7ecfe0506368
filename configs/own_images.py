"""Your own folder of images, some of them wrongly labelled: a classifier, and the list of labels to look at.

    python main.py --config=configs/own_images.py --config.dataset="folder(path='photos', size=64)"         one GPU
    python main.py --config=configs/own_images.py:small --config.dataset="folder(path='photos', size=32)"   a CPU

`photos` has one sub-folder of images per class. SimCLR looks at the images alone, then a network is trained with logit
adjustment inside SuperLoss. Last, `folds` judges every label by a network that has not seen it:
`folds/suspects.csv` in the run's directory lists files and classes, the likeliest mistakes first. Look at the first
few dozen; the estimate of how many there are is rough. Move what is wrong to the folder of its class and give the same
command again: the pre-training stays, what read the labels moves to `earlier/1` and runs again.

The test images, about a fifth of every class unless `photos` has `train` and `test`, are not judged (`test_percent=1`
keeps them few); their labels are as good as the others, and accuracy is measured against them. With fewer than 200
images in all lower the batch sizes (`--config.finetune.batch_size=32`, and so on).

Images that nobody has sorted can be labelled by the network and trained on too:

    ... --config.stages="('pretrain', 'finetune', 'labels', 'joint')" \\
        --config.labels.pool="images(path='unsorted', size=64)"

Cost: 19 TFLOP an image of 64 x 64 pixels, most of it pre-training (XLA counts 4.2 GFLOP a forward pass; three times
that an image and view, 500 epochs of two views, 100 of one, and five folds of 100 on four fifths); `small` about half a
second of one CPU core an image.
Measured: `small`, on a folder made of CIFAR-10 with wrong labels, docs/results.md.
"""

from ml_collections import ConfigDict

from lt_noisy.config import recipes
from lt_noisy.config.resolve import check_variant


def get_config(variant: str = "") -> ConfigDict:
    """The experiment; variant `small` is ResNet-8, fewer epochs and four folds."""
    check_variant(variant)
    size = 32 if variant == "small" else 64
    return recipes.own(f"folder(path='photos', size={size})", size, variant == "small")
