"""A folder of pictures with wrong labels, and a finished run on it: what people have, in a few seconds."""

import pathlib

from helpers import layouts
from helpers.commands import run

CONFIG = "tests/helpers/photos_config.py"
ODD = "=1+1 <b>&\"'.jpg"  # a name that no page and no table must take at its word
WRONG = {  # where they are: what they show
    "train/class 0/wrong 1.jpg": "class 1",
    "train/class 1/wrong 2.jpg": "class 2",
    f"train/class 2/{ODD}": "class 0",
}


def make(root: pathlib.Path, each: int = 12) -> None:
    """Three classes, told apart by colour, and one picture of each in the training folder of another."""
    for label in range(3):
        for number in range(each + 4):
            split = "train" if number < each else "test"
            layouts.picture(root / split / f"class {label}" / f"{number}.jpg", label, number)
    for number, (name, true) in enumerate(WRONG.items()):
        layouts.picture(root / name, int(true[-1]), 100 + number)


def train(env, folder: pathlib.Path, workdir: pathlib.Path, *overrides: str) -> str:
    """Runs the stages; returns what was said."""
    dataset = f"--config.dataset=folder(path='{folder}', size=8)"
    done = run(env, workdir, dataset, *overrides, config=[f"--config={CONFIG}"])
    assert done.returncode == 0, done.stderr
    return done.stdout
