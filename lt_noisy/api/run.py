"""Runs as Python calls: `fit` trains one, `load` opens one, and a `Run` is used."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from scipy.special import softmax

from lt_noisy.config import recipes
from lt_noisy.config.command_line import read_config, set_fields
from lt_noisy.data.images import DTYPES, Images, kind_of
from lt_noisy.data.manifest import Manifest
from lt_noisy.errors import UserError, quieted
from lt_noisy.files import user_path
from lt_noisy.finished.apply import apply_decisions
from lt_noisy.finished.network import Network, load_network
from lt_noisy.finished.pictures import Read, named_files
from lt_noisy.finished.predict import Prediction, predictions
from lt_noisy.finished.review.command import write_review
from lt_noisy.finished.run import FinishedStage, named
from lt_noisy.finished.suspects import Suspect, judge, read_suspects
from lt_noisy.runs.run import run as run_stages
from lt_noisy.training import parallel

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def fit(
    data: str | os.PathLike[str] = "",
    workdir: str | os.PathLike[str] = "",
    *,
    config: str | os.PathLike[str] | ConfigDict | None = None,
    weights: str | os.PathLike[str] = "",
    size: int = 0,
    overrides: Mapping[str, Any] = {},
    quiet: bool = False,
) -> "Run":
    """Trains on a folder of images, or as a config says; the same call goes on where it was stopped.

    Args:
      data: a folder with one sub-folder of images per class, or the spec of a data set, such as "tfds(cifar10)"; empty:
        as the config says.
      workdir: where the run goes; empty: `runs/<config>-<hash>`.
      config: a config file, such as "configs/cifar100_lt_noise.py:small", or what its `get_config` returns. None: with
        `weights` that of `configs/own_images_pretrained.py`, else that of `configs/own_images.py`, on a CPU its small
        variant.
      weights: a file of EfficientNet-Lite0's (docs/pretrained.md), on whose features the classifier then stands.
      size: of the images of a folder, in pixels; 0: 128 with `weights`, 32 on a CPU, else 64.
      overrides: {field: value} of the config, such as {"seed": 1, "finetune.loss": "gce(q=0.7)"}.
      quiet: as `--quiet`: warnings and the table at the end, nothing of its progress.

    Raises:
      UserError: what the program refuses in one line.
    """
    chosen, name = ConfigDict(), "own_images"
    if isinstance(config, ConfigDict):
        chosen, name = config.copy_and_resolve_references(), "run"
    elif config is not None:
        chosen, name = read_config(str(config))
    devices = {"devices": chosen.get("devices", 0), **overrides}["devices"]
    parallel.divide_cpu(devices if isinstance(devices, int) else 0)  # before JAX is first used
    small = jax.default_backend() == "cpu"
    size = size or (128 if weights else 32 if small else 64)
    if config is None:
        if not data:
            raise UserError("fit takes a folder of images, or a config")
        dataset = _dataset(data, size)
        chosen = recipes.on_features(dataset, str(weights), size) if weights else recipes.own(dataset, size, small)
    else:
        if weights:
            raise UserError("fit: weights are for the config that is taken without one; name them in the config's init")
        if data:
            chosen.dataset = _dataset(data, size)
    set_fields(chosen, overrides)
    if chosen.seeds:
        raise UserError("fit trains one run: set seed, or train config.seeds by the command line and load each of them")
    with quieted(quiet):
        summary = run_stages(chosen, str(workdir), name)
    return load(summary.parent.parent)


def _dataset(data: str | os.PathLike[str], size: int) -> str:
    if isinstance(data, str) and "(" in data and not Path(data).exists():
        return data
    if not Path(data).expanduser().is_dir():
        raise UserError(f"{data} is no folder, nor the spec of a data set such as 'tfds(cifar10)'")
    return f"folder(path={str(data)!r}, size={size})"


def load(directory: str | os.PathLike[str]) -> "Run":
    """The run in a directory, with what of it is finished."""
    return Run(directory)


class Run:
    """A run on the disk, whose stages are finished or not.

    Wherever a `stage` can be named, none means the last that fits: with a classifier, or with judged labels.

    Args:
      directory: its workdir.
    """

    def __init__(self, directory: str | os.PathLike[str]):
        self._run, stage = named(str(directory))
        self._networks: dict[str, Network] = {}
        if stage:
            self._run.stage(Path(stage).parts[0])  # or the name is mistyped
            raise UserError(f"{directory} is a stage; load its run and name the stage in the call")

    def __repr__(self) -> str:
        return f"<Run {self.directory}: {', '.join(stage.name for stage in self._run.stages) or 'no stage finished'}>"

    @property
    def directory(self) -> Path:
        """Its workdir."""
        return self._run.directory

    @property
    def class_names(self) -> tuple[str, ...]:
        """C names."""
        return self._run.class_names

    @property
    def stages(self) -> tuple[FinishedStage, ...]:
        """The finished ones, in the order in which they ran; each has its `summary`."""
        return self._run.stages

    def network(self, stage: str = "") -> Network:
        """The classifier of a stage, kept once it is read."""
        if stage not in self._networks:
            self._networks[stage] = load_network(self._run, stage, few=True)
        return self._networks[stage]

    def predict(self, files: Paths, top: int = 5, stage: str = "") -> list[Prediction]:
        """What the classifier says of pictures, folders of pictures, or tables that list some (`lt-noisy predict`)."""
        network = self.network(stage)
        with quieted(True):
            return list(predictions(network, named_files(_texts(files)), min(top, len(self.class_names))))

    def probabilities(self, images: Paths | np.ndarray, stage: str = "") -> np.ndarray:
        """float64 [N, C], of files (as `predict`) or of images uint8 [N, H, W, C] as the network takes them.

        Raises:
          UserError: a file that cannot be read.
        """
        return softmax(self._outputs(images, stage)[0].astype(np.float64), axis=-1)

    def features(self, images: Paths | np.ndarray, stage: str = "") -> np.ndarray:
        """float32 [N, D], the encoder's features of the same."""
        return self._outputs(images, stage)[1]

    def _outputs(self, images: Paths | np.ndarray, stage: str) -> tuple[np.ndarray, np.ndarray]:
        """Logits [N, C] and features [N, D]."""
        network = self.network(stage)
        with quieted(True):
            return network(_images(images, network))

    def suspects(self, stage: str = "", frame: bool = False) -> Any:
        """The labels that are probably wrong, most suspicious first.

        Args:
          frame: whether they come as a `pandas.DataFrame` rather than a list of `Suspect`.
        """
        found = read_suspects(judge(self._run, stage).directory)
        if not frame:
            return found
        try:
            import pandas
        except ImportError:
            raise UserError("frame=True takes pandas: pip install pandas") from None
        return pandas.DataFrame(found, columns=Suspect._fields)

    def review(self, out: str | os.PathLike[str] = "", stage: str = "", limit: int = 0, neighbours: int = 3) -> Path:
        """Writes the page on which to look at them (`lt-noisy review`); returns the path of its HTML."""
        place = user_path(os.fspath(out)) if out else self.directory / "review"
        return write_review(self._run, stage, place, limit, neighbours)[0]

    def apply(self, decisions: str | os.PathLike[str], out: str | os.PathLike[str] = "") -> Manifest:
        """Writes the corrected training set (`lt-noisy apply`) into `out`, by default `corrected` in the run."""
        place = user_path(os.fspath(out)) if out else self.directory / "corrected"
        return apply_decisions(self._run, user_path(os.fspath(decisions)), place)


def _texts(files: Paths) -> list[str]:
    return [os.fspath(files)] if isinstance(files, str | os.PathLike) else [os.fspath(file) for file in files]


def _images(images: Paths | np.ndarray, network: Network) -> Images:
    """Images as the network takes them, in memory."""
    if isinstance(images, np.ndarray):
        if images.shape[1:] != network.image_shape:
            shape = list(network.image_shape)
            raise UserError(f"the network takes images [N, {', '.join(map(str, shape))}], not {list(images.shape)}")
        if images.dtype != (wanted := DTYPES[kind_of(network.image_shape)]):
            raise UserError(f"the network takes images of {wanted}, not of {images.dtype}")
        return images
    files = named_files(_texts(images))
    if not files:
        raise UserError("there are no images to look at")
    read = Read(files, network)
    pixels = read.images[np.arange(len(files))]
    if read.faults:
        row, fault = min(read.faults.items())
        raise UserError(f"{files[row]}: {fault}")
    return pixels
