"""What a Vision Transformer's layers are called: by timm, DINOv2, Hugging Face, and JAX's programs."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lt_noisy.errors import UserError
from lt_noisy.models.vit import ViT
from lt_noisy.weights.pairs import AS_IS, CONVOLUTION, LINEAR, THREE_BIASES, THREE_LINEAR, Form, Naming, Pair
from lt_noisy.weights.tokens import CLASS, GRID, GRID_WITH_CLASS, REGISTERS


class _Names(NamedTuple):
    """Names of a program: of what stands before the blocks, of the last norm, of block i, and of what is in a block.

    `scale` takes the number of the branch, 1 for attention and 2 for the MLP. `qkv` has one name, or three.
    """

    patch: str
    cls: str
    positions: str
    registers: str
    norm: str
    block: str
    norms: tuple[str, str]
    qkv: tuple[str, ...]
    proj: str
    mlp: tuple[str, str]
    scale: str


_TIMM = _Names(
    patch="patch_embed.proj",
    cls="cls_token",
    positions="pos_embed",
    registers="reg_token",
    norm="norm",
    block="blocks.{i}",
    norms=("norm1", "norm2"),
    qkv=("attn.qkv",),
    proj="attn.proj",
    mlp=("mlp.fc1", "mlp.fc2"),
    scale="ls{}.gamma",
)
_DINOV2 = _TIMM._replace(registers="register_tokens")
_HUGGINGFACE_DINOV2 = _Names(
    patch="embeddings.patch_embeddings.projection",
    cls="embeddings.cls_token",
    positions="embeddings.position_embeddings",
    registers="embeddings.register_tokens",
    norm="layernorm",
    block="encoder.layer.{i}",
    norms=("norm1", "norm2"),
    qkv=tuple(f"attention.attention.{part}" for part in ("query", "key", "value")),
    proj="attention.output.dense",
    mlp=("mlp.fc1", "mlp.fc2"),
    scale="layer_scale{}.lambda1",
)
_HUGGINGFACE = _HUGGINGFACE_DINOV2._replace(
    norms=("layernorm_before", "layernorm_after"), mlp=("intermediate.dense", "output.dense")
)
_BIG_VISION = _Names(
    patch="embedding",
    cls="cls",
    positions="pos_embedding",
    registers="registers",
    norm="Transformer/encoder_norm",
    block="Transformer/encoderblock_{i}",
    norms=("LayerNorm_0", "LayerNorm_1"),
    qkv=tuple(f"MultiHeadDotProductAttention_0/{part}" for part in ("query", "key", "value")),
    proj="MultiHeadDotProductAttention_0/out",
    mlp=("MlpBlock_0/Dense_0", "MlpBlock_0/Dense_1"),
    scale="scale{}",
)
_VISION_TRANSFORMER = _BIG_VISION._replace(
    positions="Transformer/posembed_input/pos_embedding",
    norms=("LayerNorm_0", "LayerNorm_2"),
    qkv=tuple(f"MultiHeadDotProductAttention_1/{part}" for part in ("query", "key", "value")),
    proj="MultiHeadDotProductAttention_1/out",
    mlp=("MlpBlock_3/Dense_0", "MlpBlock_3/Dense_1"),
)


class _Layout(NamedTuple):
    """How a program writes a layer: what stands between names, what its arrays are called, and their forms."""

    between: str
    kernel: str
    scale: str
    patch: Form
    linear: Form
    qkv: Form
    qkv_bias: Form
    proj: Form


_FUSED = _Layout(".", "weight", "weight", CONVOLUTION, LINEAR, LINEAR, AS_IS, LINEAR)
_APART = _FUSED._replace(qkv=THREE_LINEAR, qkv_bias=THREE_BIASES)


def _by_heads(heads: int) -> _Layout:
    """JAX's attention: queries, keys and values [in, heads, D / heads], with such biases; the last [heads, ., out]."""

    def load(tensors: Sequence[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
        return np.concatenate([tensor.reshape(*shape[:-1], -1) for tensor in tensors], axis=-1)

    def save(array: np.ndarray) -> list[np.ndarray]:
        return [part.reshape(*part.shape[:-1], heads, -1) for part in np.split(array, 3, axis=-1)]

    three = Form(load, save)
    proj = Form(lambda tensors, shape: tensors[0].reshape(shape), lambda a: [a.reshape(heads, -1, a.shape[-1])])
    return _Layout("/", "kernel", "scale", AS_IS, AS_IS, three, three, proj)


def _refuse(array: np.ndarray) -> list[np.ndarray]:
    raise UserError("the programs of this naming have neither LayerScale nor registers")


_NOWHERE = Form(AS_IS.load, _refuse)

# Beside the encoder: classifiers, the token of masked patches, the decoder of MAE, a layer after the class token.
_HEADS = ("head.", "mask_token", "decoder_")
_HUGGINGFACE_HEADS = ("classifier.", "pooler.", "embeddings.mask_token")
_JAX_HEADS = ("head/", "pre_logits/", "MAPHead_0/")
# Parts of names by which a file tells an argument of the model.
_ARGUMENTS = (("reg", "registers"), *((part, "layer_scale") for part in ("ls1.", "ls2.", "scale1", "scale2")))


def namings(net: ViT) -> tuple[Naming, ...]:
    """What files call the layers of `net`.

    * `timm`: its own, and DeiT's, DINO's, MAE's, and DINOv2's without registers. With registers it saves positions for
      the patches alone, as timm's networks with registers have them.
    * `dinov2`: the files of facebookresearch/dinov2; as the program trains (`block_chunks`), in 1 and in 4 chunks.
    * `huggingface`, `huggingface_dinov2`: of transformers, as `save_pretrained` writes them.
    * `vision_transformer`: the .npz files of AugReg and of the first paper. `big_vision`: what followed them, with a
      class token and not its `scan=True`.
    """
    timm = _named(net, _TIMM, _FUSED, GRID if net.registers else GRID_WITH_CLASS)
    chunks = [n for n in (1, 4) if net.depth % n == 0]
    chunked = {n: _named(net, _DINOV2, _FUSED, GRID_WITH_CLASS, chunks=n) for n in (0, *chunks)}
    jax = _by_heads(net.heads)
    return (
        Naming("timm", timm, _HEADS, _ARGUMENTS, head="head"),
        *(Naming(f"dinov2{f'_chunks{n}' * (n > 0)}", pairs, _HEADS, _ARGUMENTS) for n, pairs in chunked.items()),
        Naming(
            "huggingface",
            _named(net, _HUGGINGFACE, _APART, GRID_WITH_CLASS, plain=True),
            _HUGGINGFACE_HEADS,
            _ARGUMENTS,
        ),
        Naming(
            "huggingface_dinov2",
            _named(net, _HUGGINGFACE_DINOV2, _APART, GRID_WITH_CLASS),
            _HUGGINGFACE_HEADS,
            _ARGUMENTS,
        ),
        Naming(
            "vision_transformer",
            _named(net, _VISION_TRANSFORMER, jax, GRID_WITH_CLASS, plain=True),
            _JAX_HEADS,
            _ARGUMENTS,
        ),
        Naming("big_vision", _named(net, _BIG_VISION, jax, GRID, plain=True), _JAX_HEADS, _ARGUMENTS),
    )


def _named(
    net: ViT, names: _Names, layout: _Layout, positions: Form, plain: bool = False, chunks: int = 0
) -> tuple[Pair, ...]:
    """Every array of the network.

    Args:
      positions: the form of positions.
      plain: whether the program has neither LayerScale nor registers.
      chunks: 0, or into how many lists the blocks are divided; a block keeps its number in its list.
    """

    def layer(ours: str, theirs: Sequence[str], kernel: Form, bias: Form = AS_IS, weight: str = "kernel") -> list[Pair]:
        called = layout.kernel if weight == "kernel" else layout.scale
        return [
            Pair(f"params.{ours}.{weight}", tuple(f"{name}{layout.between}{called}" for name in theirs), kernel),
            Pair(f"params.{ours}.bias", tuple(f"{name}{layout.between}bias" for name in theirs), bias),
        ]

    pairs = layer("patch_embed", [names.patch], layout.patch)
    pairs.append(Pair("params.positions", (names.positions,), positions))
    pairs.append(Pair("params.cls", (names.cls,), CLASS, (names.positions,)))
    if net.registers:
        pairs.append(Pair("params.registers", (names.registers,), _NOWHERE if plain else REGISTERS))
    for i in range(net.depth):
        chunk = f"{i // (net.depth // chunks)}." if chunks else ""
        start = names.block.format(i=f"{chunk}{i}") + layout.between
        ours = f"block{i + 1}"
        for at in (1, 2):
            pairs += layer(f"{ours}_norm{at}", [start + names.norms[at - 1]], AS_IS, weight="scale")
            pairs += layer(f"{ours}_mlp{at}", [start + names.mlp[at - 1]], layout.linear)
            if net.layer_scale:
                form = _NOWHERE if plain else AS_IS
                pairs.append(Pair(f"params.{ours}_scale{at}", (start + names.scale.format(at),), form))
        pairs += layer(f"{ours}_qkv", [start + part for part in names.qkv], layout.qkv, layout.qkv_bias)
        pairs += layer(f"{ours}_proj", [start + names.proj], layout.proj)
    return (*pairs, *layer("norm", [names.norm], AS_IS, weight="scale"))
