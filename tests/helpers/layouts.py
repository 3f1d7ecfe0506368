"""Data sets in the layouts of their authors, with invented pictures: small JPEG files whose colour tells the class.

Or with vectors in their place.

python tests/helpers/layouts.py NAME DIRECTORY     makes one, to try a config on
"""

import json
import pathlib
import sys

import numpy as np
from PIL import Image


def picture(path, label, number, size=16):
    """A picture of a class, of its own by its number."""
    generator = np.random.default_rng([label, number])
    colour = np.random.default_rng(label).integers(0, 256, 3)
    pixels = 0.7 * colour + 0.3 * generator.integers(0, 256, (size, size + number % 5, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path, quality=90)


def write(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def folder(root, classes=3, each=4):
    for label in range(classes):
        for number in range(each):
            picture(root / f"class {label}" / f"{number}.jpg", label, number)


def table(root, each=4, heading=("image", "label", "clean_label", "split", "id"), separator=","):
    rows = []
    for number in range(3 * each):
        label, name = number % 3, f"{number:03d}.jpg"
        picture(root / "pictures" / name, label, number)
        split = "test" if number >= 2 * each else "train"
        given = (label + (number == 0)) % 3  # the first label is wrong
        row = {
            "image": name,
            "label": "abc"[given],
            "clean_label": "abc"[label],
            "split": split,
            "id": str(900 - number),
        }
        rows.append(separator.join(row[column] for column in heading))
    write(root / f"labels.{'tsv' if separator != ',' else 'csv'}", [separator.join(heading), *rows])


def filelist(root, each=4):
    for split in ("train", "test"):
        names = [(f"{split}/a {number}.jpg", number % 3) for number in range(each * 3)]
        for number, (name, label) in enumerate(names):
            picture(root / name, label, number + 1000 * (split == "test"))
        write(root / f"{split}.txt", [f"{name} {label}" for name, label in names])
    write(root / "classes.txt", ["a thing", "b", "c"])


def clothing1m(root, each=2):
    labels = {"noisy": [], "clean": []}
    for kind, name in (
        ("noisy", "noisy_train"),
        ("clean", "clean_train"),
        ("clean", "clean_val"),
        ("clean", "clean_test"),
    ):
        keys = [
            (f"images/{label % 10}/{label:02d}/{name}{number}.jpg", label)
            for label in range(14)
            for number in range(each)
        ]
        for number, (key, label) in enumerate(keys):
            picture(root / key, label, number + 100 * len(name))
            labels[kind].append(f"{key} {label}")
        prefix = 0 if name != "clean_test" else len("images/")  # both forms are about
        write(root / f"{name}_key_list.txt", [key[prefix:] for key, _ in keys])
        if prefix:
            labels[kind] += [f"{key[prefix:]} {label}" for key, label in keys]
    for kind, lines in labels.items():
        write(root / f"{kind}_label_kv.txt", lines)


def webvision(root, classes=4, each=3):
    for part in ("google", "flickr"):
        names = [(f"{part}/q{label:04d}/{number}.jpg", label) for label in range(classes) for number in range(each)]
        for number, (name, label) in enumerate(names):
            picture(root / name, label, number + (part == "flickr") * 100)
        write(root / "info" / f"train_filelist_{part}.txt", [f"{name} {label}" for name, label in names])
    names = [(f"val{number:06d}.jpg", number % classes) for number in range(2 * classes)]
    for number, (name, label) in enumerate(names):
        picture(root / "val_images_256" / name, label, 500 + number)
    write(root / "info" / "val_filelist.txt", [f"{name} {label}" for name, label in names])
    thing = ["tench, Tinca tinca", "crane", "goldfish", "crane"]
    write(root / "info" / "synsets.txt", [f"n{label:08d} {thing[label % 4]}" for label in range(classes)])


def cnwl(root, classes=3, each=4):
    for name, folder in (("red_noise_nl_0.4", "noisy_images"), ("clean_validation", "all_images")):
        files = [(f"n{label:04d}{name}{number}.jpg", label) for label in range(classes) for number in range(each)]
        if name.startswith("red"):  # the first of every class is from the web, in the place of a right one
            files = [(f"w{file}" if at % each == 0 else file, label) for at, (file, label) in enumerate(files)]
        for number, (file, label) in enumerate(files):
            picture(root / folder / file, label, number + 100 * (folder == "all_images"))
        write(root / "split" / name, [f"{file} {label}" for file, label in files])
    write(root / "class_name.txt", [f"n{label:08d} thing {label}" for label in range(classes)])


def animal10n(root, each=2):
    for split in ("training", "testing"):
        for label in range(10):
            for number in range(each):
                picture(root / split / f"{label}_{number}.jpg", label, number + 100 * (split == "testing"))


def food101n(root, classes=3, each=3):
    names = [f"pie_{label}" for label in range(classes)]
    keys = {"train": [], "test": []}
    for split, place in (("train", "Food-101N_release"), ("test", "food-101")):
        for label, name in enumerate(names):
            for number in range(each):
                key = f"{name}/{split}{number}"
                picture(root / place / "images" / f"{key}.jpg", label, number + 100 * (split == "test"))
                keys[split].append(f"{key}.jpg" if split == "train" else key)
    meta = root / "Food-101N_release" / "meta"
    write(meta / "classes.txt", ["class_name", *names])
    write(meta / "imagelist.tsv", ["class_name/key", *keys["train"]])
    verified = [f"{key}\t{number % 2}" for number, key in enumerate(keys["train"][:-1])]
    write(meta / "verified_train.tsv", ["class_name/key\tverification_label", *verified])
    write(root / "food-101" / "meta" / "test.txt", keys["test"])


def features(root, classes=3, each=10, width=6):
    """Vectors around a centre for each class, and the same for the test; of the first class two labels are wrong."""
    root.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    centres, clean = 3 * generator.normal(size=(classes, width)), np.arange(classes * each) % classes
    given = np.where(np.isin(np.arange(len(clean)), (0, classes)), 1, clean)
    train, test = (centres[clean] + generator.normal(size=(len(clean), width)) for _ in range(2))
    np.savez(
        root / "features.npz",
        train_features=train.astype(np.float32),
        train_labels=given,
        train_ids=900 - np.arange(len(clean)),
        clean_labels=clean,
        test_features=test.astype(np.float32),
        test_labels=clean,
        class_names=np.array([f"class {c}" for c in range(classes)]),
    )


def parquet(root, each=6, names=("ant", "bee", "cat"), plain=False, group=4):
    """As the Hub has it: a file of two for training, one for the test, small row groups, names in the metadata.

    Args:
      names: of the classes; none: the labels are texts.
      plain: whether the bytes stand without a struct around them.
    """
    import pyarrow
    import pyarrow.parquet

    for at, name in enumerate(("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001")):
        labels = [number % 3 for number in range(3 * each)]
        bytes_ = []
        for number, label in enumerate(labels):
            picture(root / "one.jpg", label, number + 100 * at)
            bytes_.append((root / "one.jpg").read_bytes())
        (root / "one.jpg").unlink()
        images = bytes_ if plain else [{"bytes": data, "path": f"{i}.jpg"} for i, data in enumerate(bytes_)]
        found = pyarrow.table({"image": images, "label": labels if names else [f"kind {c}" for c in labels]})
        features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
        known = {"huggingface": json.dumps({"info": {"features": features}})} if names else None
        (root / "data").mkdir(exist_ok=True)
        pyarrow.parquet.write_table(
            found.replace_schema_metadata(known), root / "data" / f"{name}.parquet", row_group_size=group
        )


# How a config names each, below the directory `{tmp}` that it was made in.
SPECS = {
    "folder": (folder, "folder(path='{tmp}', size=8)"),
    "table": (table, "table(path='{tmp}/labels.csv', images='{tmp}/pictures', size=8)"),
    "filelist": (filelist, "filelist('{tmp}/train.txt', '{tmp}/test.txt', '{tmp}', '{tmp}/classes.txt', size=8)"),
    "parquet": (parquet, "parquet(path='{tmp}/data', size=8)"),
    "features": (features, "features(path='{tmp}/features.npz')"),
    "clothing1m": (clothing1m, "clothing1m(path='{tmp}', size=8)"),
    "webvision": (webvision, "webvision(path='{tmp}', classes=4, size=8)"),
    "cnwl": (cnwl, "cnwl(path='{tmp}', size=8)"),
    "animal10n": (animal10n, "animal10n(path='{tmp}', size=8)"),
    "food101n": (food101n, "food101n(path='{tmp}/Food-101N_release', food101='{tmp}/food-101', size=8)"),
}

if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in SPECS:
        sys.exit(f"usage: python tests/helpers/layouts.py {'|'.join(SPECS)} DIRECTORY")
    name, directory = sys.argv[1:]
    SPECS[name][0](pathlib.Path(directory))
    print(f'--config.dataset="{SPECS[name][1].format(tmp=directory)}"')
