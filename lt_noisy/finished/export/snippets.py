"""Programs of a few lines that load an exported file: they stand in its card, and run as they are."""

from pathlib import Path

from lt_noisy.errors import printable
from lt_noisy.finished.export.facts import Facts


def snippet(facts: Facts, file: str) -> str:
    """Text and a program in Markdown for a file of this name, by its ending."""
    text, program = {".safetensors": _weights, ".onnx": _onnx, ".stablehlo": _stablehlo}[Path(file).suffix](
        facts, printable(file)
    )
    return f"{text}\n\n```python\n{program}```"


def _images(facts: Facts) -> str:
    """Lines that make the input of `picture.jpg`, as `data.sources.decoding` does, or of zeros."""
    shape = facts.run.image_shape
    if len(shape) == 1:
        return f"vectors = np.zeros((1, {shape[0]}), np.float32)  # yours\n"
    height, width, channels = shape
    resize, stretched = facts.fit
    brought = "picture.resize(" if stretched else "ImageOps.fit(picture, "
    fitted = f"{brought}({resize or width}, {resize or height}), Image.Resampling.BILINEAR)"
    cut = ""
    if resize:
        left, top = round((resize - width) / 2), round((resize - height) / 2)
        cut = f".crop(({left}, {top}, {left + width}, {top + height}))"
    mode, axes = ("L", "[None, ..., None]") if channels == 1 else ("RGB", "[None]")
    return (
        f'picture = ImageOps.exif_transpose(Image.open("picture.jpg")).convert("{mode}")\n'
        f"images = np.asarray({fitted}{cut}){axes}  # uint8 [1, {height}, {width}, {channels}]\n"
    )


def _imports(facts: Facts, *modules: str) -> str:
    pictures = "from PIL import Image, ImageOps\n" if facts.kind == "images" else ""
    return "".join(f"import {name}\n" for name in modules) + pictures + "\n"


def _onnx(facts: Facts, file: str) -> tuple[str, str]:
    program = (
        _imports(facts, "json", "numpy as np", "onnxruntime")
        + f"session = onnxruntime.InferenceSession({file!r})\n"
        + 'names = json.loads(session.get_modelmeta().custom_metadata_map["class_names"])\n'
        + _images(facts)
        + f'(probabilities,) = session.run(["probabilities"], {{"{facts.kind}": {facts.kind}}})\n'
        + "print(names[probabilities[0].argmax()], probabilities[0].max())\n"
    )
    return f"`pip install onnxruntime pillow`. {_GRAPH}", program


def _stablehlo(facts: Facts, file: str) -> tuple[str, str]:
    program = (
        _imports(facts, "jax", "jax.export", "numpy as np").replace("\n\n", "\nfrom pathlib import Path\n\n")
        + f"network = jax.export.deserialize(bytearray(Path({file!r}).read_bytes()))\n"
        + f"names = {[printable(name) for name in facts.run.class_names]!r}\n"
        + _images(facts)
        + f'probabilities = network.call({facts.kind})["probabilities"]\n'
        + "print(names[probabilities[0].argmax()], probabilities[0].max())\n"
    )
    return f"`pip install jax flatbuffers pillow`, on a CPU, an NVIDIA GPU or a TPU. {_GRAPH}", program


_GRAPH = (
    "Its input is a batch of any size, uint8 [N, H, W, C] as files decode (vectors: float32 [N, D]); all that "
    "normalises it is in the graph. Its outputs are `logits`, `probabilities` and `features`."
)


def _weights(facts: Facts, file: str) -> tuple[str, str]:
    beside = f"{Path(file).stem}.json"
    program = (
        "import json\nfrom pathlib import Path\n\nfrom safetensors.numpy import load_file\n\n"
        f"tensors = load_file({file!r})  # a PyTorch model: load_state_dict(safetensors.torch.load_file({file!r}))\n"
        f'prepared = json.loads(Path({beside!r}).read_text())["pretrained_cfg"]\n'
        "print(len(tensors), prepared)\n"
    )
    return (
        f"The tensors have the names of the PyTorch program of this network; mean, deviation and size of its images "
        f'are in the `.json`. A config of lt_noisy starts from it with `init="pretrained(path={file!r})"`.'
    ), program
