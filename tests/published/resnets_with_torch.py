"""Makes `resnets.npz`: features that torchvision and transformers compute with weights by rule (`helpers.weights`).

Run once, where they are (the arrays here are of torch 2.14, torchvision 0.29, transformers 5); no test imports it:

    pip install torch torchvision transformers && python tests/published/resnets_with_torch.py

One block a group, so that a test takes seconds; torchvision's are ResNets of its own class.
"""

import pathlib
import sys

import numpy as np
import torch
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from transformers import ResNetConfig, ResNetModel

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
from helpers.weights import by_rule, images

MADE = {}


def features(net, pool):
    state = {name: torch.tensor(by_rule(name, tuple(tensor.shape))) for name, tensor in net.state_dict().items()}
    net.load_state_dict(state)
    with torch.no_grad():
        return pool(net.eval(), torch.tensor(images(64)).permute(0, 3, 1, 2)).numpy()


def torchvisions(net, x):
    net.fc = torch.nn.Identity()
    return net(x)


for name, block in {"basic": BasicBlock, "bottleneck": Bottleneck}.items():
    net = ResNet(block, [1, 1, 1, 1])
    MADE[f"torchvision/{name}"] = features(net, torchvisions)
    sizes = [64, 128, 256, 512] if name == "basic" else [256, 512, 1024, 2048]
    config = ResNetConfig(hidden_sizes=sizes, depths=[1, 1, 1, 1], layer_type=name)
    MADE[f"huggingface/{name}"] = features(ResNetModel(config), lambda net, x: net(x).pooler_output.flatten(1))
np.savez_compressed(pathlib.Path(__file__).parent / "resnets.npz", **MADE)
