"""Makes `torch.npz`: what PyTorch and torchvision make of the inputs in `tests/helpers/published.py`, in float64.

Run once, where there is PyTorch (the arrays here are of torch 2.14 and torchvision 0.29); no test imports it:

    pip install torch torchvision && python tests/published/with_torch.py

Optimisers, ResNet-18, -34, -50 and the image operations are PyTorch's own. The CIFAR ResNet, LDAM, SAM and MoCo are
written here from their papers. Parameters are named and laid out as in lt_noisy, so that gradients compare as they are.
"""

import pathlib
import sys

import numpy as np
import torch
import torch.nn.functional as F
from torchvision.models import resnet18, resnet34, resnet50
from torchvision.transforms import functional as TF

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
from helpers import published

torch.set_default_dtype(torch.float64)
MADE = {}


def leaves(values):
    return {name: torch.tensor(value, requires_grad=True) for name, value in values.items()}


def arrays(tensors):
    return {name: t.detach().numpy() for name, t in tensors.items()}


def optimisers():
    gradients = published.normal(0, published.SGD_STEPS, 8)
    for name, make in {
        "sgd": lambda p: torch.optim.SGD(p, lr=1, momentum=0.9, weight_decay=5e-3),
        "nesterov": lambda p: torch.optim.SGD(p, lr=1, momentum=0.9, weight_decay=5e-3, nesterov=True),
        "adamw": lambda p: torch.optim.AdamW(p, lr=1, betas=(0.9, 0.99), weight_decay=0.1),
    }.items():
        p = torch.tensor(published.normal(1, 8), requires_grad=True)
        optimiser, path = make([p]), []
        for step, gradient in enumerate(gradients):
            optimiser.param_groups[0]["lr"] = published.rate(step)
            p.grad = torch.tensor(gradient)
            optimiser.step()
            path.append(p.detach().numpy().copy())
        MADE[f"optimisers/{name}"] = np.array(path)[[0, 9, 59]]


def scaled(images):
    return torch.tensor(images / 255).permute(0, 3, 1, 2)


def cifar_resnet(p, images, blocks):
    """He et al. (2016), sec. 4.2, with parameter-free shortcuts: features [B, D], BatchNorm by batch."""

    def conv(x, name, stride=1):
        return F.conv2d(x, p[f"{name}/kernel"].permute(3, 2, 0, 1), stride=stride, padding=1)

    def norm(x, name):
        return F.batch_norm(x, None, None, p[f"{name}/scale"], p[f"{name}/bias"], training=True, eps=1e-5)

    x = F.relu(norm(conv(scaled(images), "encoder/stem_conv"), "encoder/stem_norm"))
    for group in (1, 2, 3):
        for block in range(1, blocks + 1):
            name, stride = f"encoder/group{group}_block{block}", 2 if group > 1 and block == 1 else 1
            y = F.relu(norm(conv(x, f"{name}_conv1", stride), f"{name}_norm1"))
            y = norm(conv(y, f"{name}_conv2"), f"{name}_norm2")
            if stride == 2:
                half = x.shape[1] // 2
                x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, half, half))
            x = F.relu(x + y)
    return x.mean((2, 3))


def cifar_shapes(blocks, width):
    def unit(name, size, before, after):
        return {f"{name.replace('#', 'conv')}/kernel": (size, size, before, after)} | {
            f"{name.replace('#', 'norm')}/{part}": (after,) for part in ("scale", "bias")
        }

    shapes, before = unit("encoder/stem_#", 3, 3, width), width
    for group in (1, 2, 3):
        after = width * 2 ** (group - 1)
        for block in range(1, blocks + 1):
            name = f"encoder/group{group}_block{block}_#"
            shapes |= unit(f"{name}1", 3, before, after) | unit(f"{name}2", 3, after, after)
            before = after
    return shapes


def torchvision_resnets():
    for name, make, stem, size in (
        ("resnet18", resnet18, "cifar", 8),
        ("resnet34", resnet34, "imagenet", 32),
        ("resnet50", resnet50, "imagenet", 32),
    ):
        net = make()
        net.fc = torch.nn.Identity()
        if stem == "cifar":
            net.conv1, net.maxpool = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False), torch.nn.Identity()
        named = {}
        for theirs, value in net.named_parameters():
            parts = theirs.split(".")
            if parts[0].startswith("layer"):
                rest = {"downsample.0": "shortcut_conv", "downsample.1": "shortcut_norm"}
                inner = ".".join(parts[2:-1])
                where = f"group{parts[0][-1]}_block{int(parts[1]) + 1}_{rest.get(inner, inner.replace('bn', 'norm'))}"
            else:
                where = {"conv1": "stem_conv", "bn1": "stem_norm"}[parts[0]]
            part = "kernel" if value.ndim == 4 else {"weight": "scale", "bias": "bias"}[parts[-1]]
            named[f"{where}/{part}"] = value
        shapes = {
            n: tuple(np.array(v.shape)[[2, 3, 1, 0]]) if v.ndim == 4 else tuple(v.shape) for n, v in named.items()
        }
        for n, values in published.weights(shapes).items():
            values = torch.tensor(values)
            named[n].data.copy_(values.permute(3, 2, 0, 1) if values.ndim == 4 else values)
        features = net(scaled(published.images(2, 3, size)))
        MADE[f"{name}/features"] = features.detach().numpy()[:, :8]
        if stem == "cifar":
            (features * torch.tensor(published.normal(3, *features.shape))).sum().backward()
            gradients = {n: (v.grad.permute(2, 3, 1, 0) if v.ndim == 4 else v.grad) for n, v in named.items()}
            MADE[f"{name}/gradients"] = published.summary(arrays(gradients))


def five_steps_of_ldam_drw():
    """Cao et al. (2019): cosine classifier, margins, deferred re-weighting on; a ResNet-8 at a quarter width."""
    p = leaves(published.weights(cifar_shapes(1, 4) | {"head/kernel": (16, 10)}))
    optimiser = torch.optim.SGD(p.values(), lr=0.1, momentum=0.9, weight_decay=2e-4)
    margins = torch.tensor(0.5 * published.COUNTS**-0.25 / (published.COUNTS**-0.25).max())
    weights = torch.tensor((1 - 0.9999) / (1 - 0.9999**published.COUNTS))
    weights = weights / weights.sum() * 10
    images = published.images(4, published.LDAM_STEPS * published.LDAM_BATCH, 8)
    labels, losses, path = torch.tensor(published.LDAM_LABELS).long(), [], []
    for step in range(published.LDAM_STEPS):
        batch = slice(step * published.LDAM_BATCH, (step + 1) * published.LDAM_BATCH)
        features = cifar_resnet(p, images[batch], 1)
        cosines = F.normalize(features) @ F.normalize(p["head/kernel"], dim=0)
        logits = 30 * (cosines - margins * F.one_hot(labels[batch], 10))
        loss = F.cross_entropy(logits, labels[batch], weight=weights)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
        path.append(published.summary(arrays(p)))
    MADE["ldam_drw/losses"], MADE["ldam_drw/params"] = np.array(losses), np.array(path)[[0, -1]]


def four_steps_of_sam():
    """Foret et al. (2021), Kwon et al. (2021), Liu et al. (2022): a convolution, BatchNorm by batch, a linear layer."""
    images, labels = published.images(6, 32, 8), torch.tensor(published.LDAM_LABELS[:32]).long() % 4
    weights = torch.tensor(np.exp(published.normal(7, 32)))
    for name, adaptive, weighted in (("sam", False, False), ("adaptive", True, False), ("rwsam", True, True)):
        shapes = {"encoder/Conv_0/kernel": (3, 3, 3, 6), "encoder/norm/scale": (6,), "encoder/norm/bias": (6,)}
        shapes |= {"head/dense/kernel": (6, 4), "head/dense/bias": (4,)}
        p, losses = leaves(published.weights(shapes)), []
        optimiser = torch.optim.SGD(p.values(), lr=0.1, momentum=0.9, weight_decay=5e-4)

        def mean_loss(p, batch, w=None):
            x = F.pad(scaled(images[batch]), (0, 1, 0, 1))
            x = F.conv2d(x, p["encoder/Conv_0/kernel"].permute(3, 2, 0, 1), stride=2)
            scale, bias = p["encoder/norm/scale"], p["encoder/norm/bias"]
            x = F.relu(F.batch_norm(x, None, None, scale, bias, training=True, eps=1e-5)).mean((2, 3))
            logits = x @ p["head/dense/kernel"] + p["head/dense/bias"]
            each = F.cross_entropy(logits, labels[batch], reduction="none")
            return each.mean() if w is None else (w * each).sum() / w.sum()

        for step in range(4):
            batch = slice(8 * step, 8 * step + 8)
            losses.append(mean_loss(p, batch).item())
            ascending = mean_loss(p, batch, weights[batch] if weighted else None)
            g = dict(zip(p, torch.autograd.grad(ascending, list(p.values())), strict=True))
            scale = {n: t.detach().abs() if adaptive else torch.ones_like(t) for n, t in p.items()}
            norm = torch.sqrt(sum(((scale[n] * g[n]) ** 2).sum() for n in p)) + 1e-12
            raised = leaves({n: (t + 0.5 * scale[n] ** 2 * g[n] / norm).detach().numpy() for n, t in p.items()})
            mean_loss(raised, batch).backward()
            for n, t in p.items():
                t.grad = raised[n].grad
            optimiser.step()
        MADE[f"sam/{name}_losses"], MADE[f"sam/{name}_params"] = np.array(losses), published.summary(arrays(p))


def seven_steps_of_moco():
    """He et al. (2020), algorithm 1, with an empty queue at first; a network of three dense layers."""
    shapes = {"encoder/dense": (12, 6), "projector/dense1": (6, 8), "projector/dense2": (8, 5)}
    shapes = {f"{n}/{k}": (s if k == "kernel" else s[1:]) for n, s in shapes.items() for k in ("kernel", "bias")}
    p = leaves(published.weights(shapes))
    slow = {n: t.detach().clone() for n, t in p.items()}
    optimiser = torch.optim.SGD(p.values(), lr=0.5, momentum=0.9)
    images = torch.tensor(published.images(8, published.MOCO_STEPS * published.MOCO_BATCH, 2) / 255)
    queue, losses = torch.zeros(0, 5), []

    def project(p, x):
        for name in ("encoder/dense", "projector/dense1"):
            x = F.relu(x @ p[f"{name}/kernel"] + p[f"{name}/bias"])
        return F.normalize(x @ p["projector/dense2/kernel"] + p["projector/dense2/bias"])

    for step in range(published.MOCO_STEPS):
        x = images[step * published.MOCO_BATCH : (step + 1) * published.MOCO_BATCH].flatten(1)
        with torch.no_grad():
            slow = {n: 0.8 * t + 0.2 * p[n] for n, t in slow.items()}
            keys = project(slow, x)
        queries = project(p, x)
        logits = torch.cat([(queries * keys).sum(1, keepdim=True), queries @ queue.T], dim=1) / 0.2
        loss = F.cross_entropy(logits, torch.zeros(len(x), dtype=torch.long))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        queue = torch.cat([queue, keys])[-published.MOCO_QUEUE :]
        losses.append(loss.item())
    MADE["moco/losses"], MADE["moco/params"] = np.array(losses), published.summary(arrays(p))
    MADE["moco/queue"] = queue.numpy()
    MADE["moco/target"] = published.summary(arrays({n: 0.8 * t + 0.2 * p[n] for n, t in slow.items()}))


def image_operations():
    image = scaled(published.images(9, 1, 7))[0]

    def keep(name, made):
        MADE[f"images/{name}"] = made.permute(1, 2, 0).numpy()

    keep("flip", TF.hflip(image))
    keep("crop", TF.crop(TF.pad(image, [2]), 3, 1, 7, 7))
    for i, (top, left, height, width) in enumerate(published.BOXES):
        keep(f"box{i}", TF.resized_crop(image, top, left, height, width, [7, 7], antialias=True))
    for i, (kernel, sigma) in enumerate(published.BLURS):
        keep(f"blur{i}", TF.gaussian_blur(image, [kernel] * 2, [sigma] * 2))
    brightness, contrast, saturation, turns = published.JITTER
    adjust = (
        lambda x: TF.adjust_brightness(x, brightness),
        lambda x: TF.adjust_contrast(x, contrast),
        lambda x: TF.adjust_saturation(x, saturation),
    )
    for i, (order, place) in enumerate(published.JITTER_ORDERS):
        x = image
        for slot in range(4):
            if slot == place:
                x = TF.adjust_hue(x, turns)
            x = adjust[order[slot]](x) if slot < 3 else x
        keep(f"jitter{i}", x)


optimisers()
torchvision_resnets()
five_steps_of_ldam_drw()
four_steps_of_sam()
seven_steps_of_moco()
image_operations()
np.savez_compressed(published.ARRAYS, **MADE)
