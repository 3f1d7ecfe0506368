"""Reading photographs for training, beside tf.data and a DataLoader of PyTorch, in turns, on one core.

    taskset -c 0 python benchmarks/decode.py [--pairs=5] [--size=500] [--tensorflow=python] [--torch=python] [--json=F]

Each side reads the same JPEG files, made of scikit-learn's two photographs, decodes them, cuts a random box of 0.08 to
1 of the picture as on ImageNet, resizes it to 224 pixels and gives batches uint8 of 64. `--tensorflow` and `--torch`
are interpreters that have those libraries, by default this one; a side without its library is left out. We read by
`whole_crop()` and the feed of a streamed stage with one worker; tf.data by `decode_and_crop_jpeg`, with antialiasing,
as the others have it, and without, which is another image; PyTorch by torchvision on Pillow, in its own process (no
workers: on one core they only add copies). A ratio is the other's time divided by ours: above 1 we are the faster.
"""

import pathlib
import subprocess
import sys
import tempfile
from typing import Any

import arguments
import numpy as np
from PIL import Image
from records import measured
from sides import in_turns, median, ratios, spread, started
from sklearn.datasets import load_sample_images
from turns import serve, timed

from lt_noisy.augment import AUGMENTS
from lt_noisy.data.batches import batches
from lt_noisy.data.feed import Cuts, fed
from lt_noisy.data.images import Stored
from lt_noisy.data.sources.pictures import Pictures, look
from lt_noisy.errors import UserError, say
from lt_noisy.files import write_json
from lt_noisy.runs.markdown import markdown

FILES, BATCH, PIXELS = 256, 64, 224
TURN = 24  # batches: what a side has read ahead while another computed is little of that
SIDES = {"tf_antialias": "tf.data, antialiased", "tf": "tf.data, not antialiased", "torch": "DataLoader (torchvision)"}


def write_photographs(folder: pathlib.Path, size: int) -> None:
    """`FILES` JPEG files, parts of two photographs, the longer side of `size` pixels."""
    generator = np.random.default_rng(0)
    photographs = [Image.fromarray(image) for image in load_sample_images().images]
    for number in range(FILES):
        photograph = photographs[number % 2]
        width = int(generator.integers(photograph.width * 2 // 3, photograph.width))
        height = round(width * photograph.height / photograph.width)
        left = int(generator.integers(0, photograph.width - width + 1))
        top = int(generator.integers(0, photograph.height - height + 1))
        part = photograph.crop((left, top, left + width, top + height))
        part.resize((size, size * height // width), Image.Resampling.BICUBIC).save(folder / f"{number}.jpg", quality=90)


def ours(folder: pathlib.Path) -> Any:
    """A call that gives the next batch of lt_noisy's feed."""
    files = sorted(folder.glob("*.jpg"))
    pictures = Pictures(folder, files, look(folder, files), PIXELS)
    cut = AUGMENTS["whole_crop"]().cut
    images = Stored(pictures, np.arange(FILES), pictures.shape, pictures.cut)
    order = batches(FILES, BATCH, None, 0, "order")
    _, stream = fed(images, np.arange(FILES), order, 10**6, 1, Cuts(cut, 0, "cut"))
    steps = iter(range(10**6))
    return lambda: stream(next(steps))["images"]


def compare(folder: pathlib.Path, pairs: int, interpreters: dict[str, str]) -> list[dict[str, Any]]:
    """One row a side: images per second, and its time divided by ours, of each turn."""
    here = pathlib.Path(__file__).resolve()
    commands = {"ours": [sys.executable, str(here), f"--serve={folder}"]}
    for side, python in interpreters.items():
        commands[side] = [python, str(here.with_name("decode_peers.py")), side, str(folder)]
    with started(commands) as sides:
        turns = in_turns(sides, pairs)
    return [
        {
            "side": name,
            "images_per_second": BATCH / median(turns, name),
            "ratios": ratios(turns, name, "ours"),
        }
        for name in commands
    ]


def show(rows: list[dict[str, Any]]) -> str:
    """A Markdown table."""
    body = [
        [
            SIDES.get(row["side"], "lt_noisy"),
            f"{row['images_per_second']:.0f}",
            spread(row["ratios"]),
        ]
        for row in rows
    ]
    return markdown([["reader", "images/s", "its time by ours (smallest to largest)"], *body])


def version_of(python: str, module: str) -> str:
    """The version of a library in an interpreter; the empty string where it has none."""
    code = f"import {module}; print({module}.__version__)"
    found = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return found.stdout.strip() if found.returncode == 0 else ""


def main(argv: list[str]) -> None:
    """Prints the table and writes the JSON."""
    parser = arguments.Parser(description=__doc__)
    parser.add_argument("--pairs", type=arguments.count, default=5)
    parser.add_argument("--size", type=arguments.count, default=500)
    parser.add_argument("--tensorflow", default=sys.executable)
    parser.add_argument("--torch", default=sys.executable)
    parser.add_argument("--json", type=arguments.new_file)
    parser.add_argument("--serve", type=pathlib.Path, help="our side, which this script starts")
    given = parser.parse_args(argv[1:])
    if given.serve:
        serve(timed(ours(given.serve), lambda batch: batch, TURN))
        return
    try:
        peers = {name: version_of(getattr(given, name), name) for name in ("tensorflow", "torch")}
    except OSError as error:
        raise UserError(f"no such interpreter: {error.filename}") from None
    interpreters = {"tf_antialias": given.tensorflow, "tf": given.tensorflow} if peers["tensorflow"] else {}
    interpreters |= {"torch": given.torch} if peers["torch"] else {}
    with tempfile.TemporaryDirectory() as folder:
        write_photographs(pathlib.Path(folder), given.size)
        rows = compare(pathlib.Path(folder), given.pairs, interpreters)
    say(*show(rows).splitlines())
    if given.json is not None:
        here = [word for word in argv if not word.startswith(("--tensorflow=", "--torch="))]
        record = measured(here, size=given.size, rows=rows)
        record["versions"] |= {name: version for name, version in peers.items() if version}
        write_json(given.json, record)


if __name__ == "__main__":
    arguments.run(main)
