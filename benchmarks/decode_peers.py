"""The other sides of benchmarks/decode.py, which starts them: batches of random crops of JPEG files.

decode_peers.py tf|tf_antialias|torch FOLDER
"""

import os
import pathlib
import sys
from collections.abc import Callable
from typing import Any

from turns import serve, timed

BATCH, PIXELS, TURN = 64, 224, 24
AREA, ASPECT = (0.08, 1.0), (3 / 4, 4 / 3)


def tensorflow(folder: pathlib.Path, antialias: bool) -> Callable[[], Any]:
    """The next batch of tf.data, on one thread."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf  # pyright: ignore (an environment of its own may have it)

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    options = tf.data.Options()
    options.threading.private_threadpool_size = options.threading.max_intra_op_parallelism = 1

    def read(file: Any) -> Any:
        data = tf.io.read_file(file)
        begin, size, _ = tf.image.sample_distorted_bounding_box(
            tf.image.extract_jpeg_shape(data),
            tf.zeros([1, 0, 4]),
            area_range=AREA,
            aspect_ratio_range=ASPECT,
            max_attempts=10,
            use_image_if_no_bounding_boxes=True,
        )
        box = tf.concat([begin[:2], size[:2]], 0)
        image = tf.image.decode_and_crop_jpeg(data, box, channels=3)
        image = tf.image.resize(image, (PIXELS, PIXELS), antialias=antialias)
        return tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)

    files = [str(file) for file in sorted(folder.glob("*.jpg"))]
    data = tf.data.Dataset.from_tensor_slices(files).shuffle(len(files)).repeat()
    data = data.map(read, num_parallel_calls=1).batch(BATCH, drop_remainder=True).with_options(options)
    batches = data.as_numpy_iterator()
    return lambda: next(batches)


def torch(folder: pathlib.Path) -> Callable[[], Any]:
    """The next batch of a DataLoader without workers."""
    import torch  # pyright: ignore[reportMissingImports]
    from PIL import Image
    from torchvision.transforms import v2  # pyright: ignore[reportMissingImports]

    torch.set_num_threads(1)
    transform = v2.Compose([v2.RandomResizedCrop(PIXELS, scale=AREA, ratio=ASPECT), v2.PILToTensor()])
    files = sorted(folder.glob("*.jpg"))

    class Photographs(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(files)

        def __getitem__(self, row: int) -> Any:
            with Image.open(files[row]) as image:
                return transform(image.convert("RGB"))

    def endless() -> Any:
        while True:
            yield from torch.utils.data.DataLoader(Photographs(), BATCH, shuffle=True, drop_last=True)

    batches = endless()
    return lambda: next(batches)


if __name__ == "__main__":
    side, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    serve(timed(torch(folder) if side == "torch" else tensorflow(folder, side == "tf_antialias"), lambda b: b, TURN))
