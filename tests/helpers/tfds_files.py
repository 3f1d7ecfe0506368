"""Prepared data sets in TFDS's own layout."""

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image


def pictures(n, height=6, width=6, channels=3, seed=0):
    return np.random.RandomState(seed).randint(0, 256, (n, height, width, channels)).astype(np.uint8)


def png(pixels, level=6):
    out = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(out, "PNG", compress_level=level)
    return out.getvalue()


def write_tfds(
    root,
    name,
    splits,
    shape=(6, 6, 3),
    label=True,
    file_format="array_record",
    version="1.0.0",
    said=None,
    writer="group_size:1",
    encode=png,
):
    """A prepared set in TFDS's own layout.

    splits: name -> list of (id bytes or None, pixels, label).
    writer: options of the files.
    said: split -> list of (another label, whether it is right).
    """
    from array_record.python.array_record_module import ArrayRecordWriter
    from tensorflow_datasets.proto import tf_example_generated_pb2 as proto

    place = root / name / version
    place.mkdir(parents=True)
    infos = []
    for split, examples in splits.items():
        infos.append(
            {
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "name": split,
                "numBytes": "1",
                "shardLengths": [str(len(examples))],
            }
        )
        path = str(place / f"{name}-{split}.{file_format}-00000-of-00001")
        if file_format != "array_record":
            Path(path).write_bytes(b"")
            continue
        records = ArrayRecordWriter(path, writer)
        for at, (identity, pixels, number) in enumerate(examples):
            example = proto.Example()
            feature = example.features.feature
            feature["image"].bytes_list.value.append(encode(pixels))
            feature["label"].int64_list.value.append(number)
            if said:
                other, right = said[split][at]
                feature["worse_label"].int64_list.value.append(other)
                feature["is_clean"].int64_list.value.append(right)
            if identity is not None:
                feature["id"].bytes_list.value.append(identity)
            records.write(example.SerializeToString())
        records.close()
    module = "tensorflow_datasets.core.features."
    image_feature = {
        "pythonClassName": module + "image_feature.Image",
        "image": {"dtype": "uint8", "shape": {"dimensions": [str(d) for d in shape]}},
    }
    features = {"image": image_feature}
    if label:
        features["label"] = {
            "pythonClassName": module + "class_label_feature.ClassLabel",
            "classLabel": {"numClasses": "3"},
        }
        (place / "label.labels.txt").write_text("cat\ndog\nemu\n")
    if said:
        features["worse_label"] = features["label"]
        tensor = {"shape": {}, "dtype": "bool", "encoding": "none"}
        features["is_clean"] = {"pythonClassName": module + "tensor_feature.Tensor", "tensor": tensor}
        (place / "worse_label.labels.txt").write_text("cat\ndog\nemu\n")
    if any(identity is not None for examples in splits.values() for identity, _, _ in examples):
        features["id"] = {"pythonClassName": module + "text_feature.Text", "text": {}}
    (place / "features.json").write_text(
        json.dumps(
            {
                "pythonClassName": module + "features_dict.FeaturesDict",
                "featuresDict": {"features": features},
            }
        )
    )
    (place / "dataset_info.json").write_text(
        json.dumps({"name": name, "version": version, "fileFormat": file_format, "splits": infos})
    )


def examples(pixels, prefix=b"train_"):
    numbers = np.random.RandomState(4).permutation(len(pixels)) + 40
    return [(prefix + b"%05d" % i, p, int(i) % 3) for i, p in zip(numbers, pixels, strict=True)]
