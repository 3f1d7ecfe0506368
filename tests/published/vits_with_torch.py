"""Makes `vits.npz`: tiny Vision Transformers of timm and Hugging Face, their weights, an input and its features.

Run once, where there is PyTorch (these are of torch 2.14, timm 1.0.31 and transformers 5.24); no test imports it:

    pip install torch timm transformers safetensors && python tests/published/vits_with_torch.py

A case has `<case>/weights/<name in the file>` (float16), and `<case>/input` [2, H, W, C] and `<case>/features` [2, D]
(float32). Every parameter is random, LayerScale and norms too. Where a program is no package, it goes so:

* vision_transformer and big_vision: the file is written here, by their own names; timm's loader of such files reads it.
* facebookresearch/dinov2: the weights of Hugging Face's network, renamed here as that program calls them.
"""

import pathlib
import tempfile

import numpy as np
import timm
import torch
import transformers
from safetensors.numpy import load_file
from timm.layers import resample_abs_pos_embed

DEPTH, WIDTH, HEADS, PATCH = 2, 12, 3, 4
MADE = {}


def coarse(values):
    """Multiples of 1/64, which float16 has and which compress well."""
    return np.float32(np.round(64 * values) / 64)


def randomise(net, seed):
    """Every parameter anew: kernels that keep the size of activations, the rest away from 0 and 1."""
    random = np.random.RandomState(seed)
    with torch.no_grad():
        for name, value in net.named_parameters():
            drawn = random.standard_normal(tuple(value.shape))
            drawn *= 1.5 / np.sqrt(value[0].numel()) if value.ndim in (2, 4) else 0.4
            grows = value.ndim == 1 and not name.endswith("bias")
            value.copy_(torch.tensor(coarse(drawn + grows)))
    return net.eval()


def keep(case, weights, features, x):
    """`features` of the images x [2, C, H, W], float64, and what made them."""
    with torch.no_grad():
        found = features(x.double())
    MADE[f"{case}/input"] = x.permute(0, 2, 3, 1).numpy()
    MADE[f"{case}/features"] = found.numpy().astype(np.float32)
    for name, value in weights.items():
        MADE[f"{case}/weights/{name}"] = np.asarray(value, np.float16)


def images(seed, channels=3, height=12, width=12):
    return torch.tensor(np.random.RandomState(seed).standard_normal((2, channels, height, width)), dtype=torch.float32)


def timms(size=12, **arguments):
    arguments = {"num_classes": 0, "in_chans": 3, **arguments}
    return timm.models.vision_transformer.VisionTransformer(
        img_size=size, patch_size=PATCH, embed_dim=WIDTH, depth=DEPTH, num_heads=HEADS, **arguments
    )


def state(net):
    return {name: value.numpy() for name, value in net.state_dict().items()}


def of_timm():
    net = randomise(timms(num_classes=5), 1)
    weights = state(net)
    net.reset_classifier(0)
    keep("timm", weights, net.double(), images(1))
    registers = {"init_values": 0.1, "reg_tokens": 4, "no_embed_class": True}
    net = randomise(timms(in_chans=1, **registers), 2)
    keep("timm_registers", state(net), net.double(), images(2, channels=1))
    # Its positions, of a grid of 5x5, are resized as it runs.
    net = randomise(timms(size=20, init_values=0.1, dynamic_img_size=True), 3)
    keep("timm_resized", state(net), net.double(), images(3, height=8, width=12))


def of_huggingface():
    sizes = {"hidden_size": WIDTH, "num_hidden_layers": DEPTH, "num_attention_heads": HEADS}
    sizes |= {"image_size": 12, "patch_size": PATCH}
    vit = transformers.ViTConfig(intermediate_size=4 * WIDTH, **sizes)
    dinov2 = transformers.Dinov2Config(**sizes)
    registers = transformers.Dinov2WithRegistersConfig(num_register_tokens=3, **sizes)
    for seed, (case, net, of) in enumerate(
        (
            ("huggingface", transformers.ViTForImageClassification(vit), lambda net: net.vit),
            ("huggingface_pooler", transformers.ViTModel(vit), lambda net: net),
            ("huggingface_dinov2", transformers.Dinov2Model(dinov2), lambda net: net),
            ("huggingface_registers", transformers.Dinov2WithRegistersModel(registers), lambda net: net),
        ),
        4,
    ):
        randomise(net, seed)
        with tempfile.TemporaryDirectory() as folder:  # what it saves is named otherwise than what it holds
            net.save_pretrained(folder)
            weights = load_file(pathlib.Path(folder) / "model.safetensors")
        encoder = of(net.double())
        keep(case, weights, lambda x, net=encoder: net(pixel_values=x).last_hidden_state[:, 0], images(seed))
    renamed = facebooks(weights)
    x, features = MADE["huggingface_registers/input"], MADE["huggingface_registers/features"]
    MADE.update({"dinov2/input": x, "dinov2/features": features})
    MADE.update({f"dinov2/weights/{name}": value.astype(np.float16) for name, value in renamed.items()})


def facebooks(weights):
    """Hugging Face's DINOv2 with the names of facebookresearch/dinov2."""
    renamed = {
        "cls_token": weights["embeddings.cls_token"],
        "pos_embed": weights["embeddings.position_embeddings"],
        "mask_token": weights["embeddings.mask_token"],
        "register_tokens": weights["embeddings.register_tokens"],
    }
    for kind in ("weight", "bias"):
        renamed[f"patch_embed.proj.{kind}"] = weights[f"embeddings.patch_embeddings.projection.{kind}"]
        renamed[f"norm.{kind}"] = weights[f"layernorm.{kind}"]
        for i in range(DEPTH):
            old, new = f"encoder.layer.{i}", f"blocks.{i}"
            parts = [weights[f"{old}.attention.attention.{part}.{kind}"] for part in ("query", "key", "value")]
            renamed[f"{new}.attn.qkv.{kind}"] = np.concatenate(parts)
            renamed[f"{new}.attn.proj.{kind}"] = weights[f"{old}.attention.output.dense.{kind}"]
            for layer in ("norm1", "norm2", "mlp.fc1", "mlp.fc2"):
                renamed[f"{new}.{layer}.{kind}"] = weights[f"{old}.{layer}.{kind}"]
    for i in range(DEPTH):
        for branch in (1, 2):
            renamed[f"blocks.{i}.ls{branch}.gamma"] = weights[f"encoder.layer.{i}.layer_scale{branch}.lambda1"]
    return renamed


def of_jax():
    """Files of vision_transformer and big_vision, which timm loads and runs."""
    for seed, case in enumerate(("vision_transformer", "big_vision"), 8):
        old = case == "vision_transformer"
        attention, second, mlp = (
            ("MultiHeadDotProductAttention_1", "LayerNorm_2", "MlpBlock_3")
            if old
            else ("MultiHeadDotProductAttention_0", "LayerNorm_1", "MlpBlock_0")
        )
        shapes = {"cls": (1, 1, WIDTH), "embedding/kernel": (PATCH, PATCH, 3, WIDTH), "embedding/bias": (WIDTH,)}
        shapes |= {"Transformer/encoder_norm/scale": (WIDTH,), "Transformer/encoder_norm/bias": (WIDTH,)}
        shapes["Transformer/posembed_input/pos_embedding" if old else "pos_embedding"] = (1, 9 + old, WIDTH)
        shapes |= {"head/kernel": (WIDTH, 5), "head/bias": (5,)}
        for i in range(DEPTH):
            block = f"Transformer/encoderblock_{i}"
            for norm in ("LayerNorm_0", second):
                shapes |= {f"{block}/{norm}/scale": (WIDTH,), f"{block}/{norm}/bias": (WIDTH,)}
            for part in ("query", "key", "value"):
                shapes[f"{block}/{attention}/{part}/kernel"] = (WIDTH, HEADS, WIDTH // HEADS)
                shapes[f"{block}/{attention}/{part}/bias"] = (HEADS, WIDTH // HEADS)
            shapes[f"{block}/{attention}/out/kernel"] = (HEADS, WIDTH // HEADS, WIDTH)
            shapes[f"{block}/{attention}/out/bias"] = (WIDTH,)
            for layer, (inputs, outputs) in enumerate(((WIDTH, 4 * WIDTH), (4 * WIDTH, WIDTH))):
                shapes[f"{block}/{mlp}/Dense_{layer}/kernel"] = (inputs, outputs)
                shapes[f"{block}/{mlp}/Dense_{layer}/bias"] = (outputs,)
        random, weights = np.random.RandomState(seed), {}
        for name, shape in shapes.items():
            drawn = random.standard_normal(shape)
            drawn = 0.3 * drawn + name.endswith("scale")
            weights[name if old else f"params/{name}"] = coarse(drawn)
        net = timms(num_classes=5, no_embed_class=not old)
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "weights.npz"
            np.savez(path, **weights)
            net.load_pretrained(str(path))
        net.reset_classifier(0)
        keep(case, weights, net.eval().double(), images(seed))


def of_grids():
    """Positions [1, 1 + 25, D] resized by timm."""
    positions = torch.tensor(np.random.RandomState(20).standard_normal((1, 26, 4)), dtype=torch.float32)
    MADE["grids/5x5"] = positions.numpy()
    for rows, columns in ((2, 2), (3, 7), (8, 8)):
        MADE[f"grids/{rows}x{columns}"] = resample_abs_pos_embed(positions, [rows, columns]).numpy()


of_timm()
of_huggingface()
of_jax()
of_grids()
np.savez_compressed(pathlib.Path(__file__).parent / "vits.npz", **MADE)
