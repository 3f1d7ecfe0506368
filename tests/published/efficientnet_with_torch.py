"""Makes `efficientnet.npz`: what published programs of EfficientNet-Lite0 make of images, with weights by a rule.

Run once, where there is PyTorch (the arrays here are of torch 2.14, timm 1.0.31 and efficientnet_lite_pytorch 0.1.0);
no test imports it:

    pip install torch timm efficientnet_lite_pytorch && python tests/published/efficientnet_with_torch.py

For each program: what its tensors are called, with their shapes, and the features in evaluation mode, in float64.
"""

import pathlib
import sys

import numpy as np
import timm
import torch
from efficientnet_lite_pytorch import EfficientNet

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
from helpers import published_efficientnet as published

x = torch.tensor(published.images()).permute(0, 3, 1, 2)
package = EfficientNet.from_name("efficientnet-lite0", image_size=tuple(x.shape[2:]))
programs = {
    "package": (package, package.extract_features),
    **{name: (net, net.forward_features) for name, net in ((n, timm.create_model(n)) for n in published.TIMMS)},
}
made = {}
for name, (net, maps) in programs.items():
    shapes = {key: tuple(value.shape) for key, value in net.state_dict().items() if value.ndim}
    values = {key: torch.tensor(value) for key, value in published.tensors(shapes).items()}
    net.load_state_dict(values, strict=False)
    net.double().eval()
    with torch.no_grad():
        made[f"{name}/features"] = maps(x).mean((2, 3)).numpy()
    made[f"{name}/names"] = np.array(list(shapes))
    made[f"{name}/shapes"] = np.array([",".join(map(str, shape)) for shape in shapes.values()])
np.savez_compressed(published.ARRAYS, **made)
