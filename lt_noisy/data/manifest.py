"""The training set as a file: which examples, their clean and observed labels, and how they came about.

On disk it is `manifest.npz` (exactly the arrays ids, clean_labels, observed_labels) and `manifest.json`:
  format      2;
  recipe      what was asked for: the texts given to `build`, num_classes, class_names, seed, nominal_rate,
              noise_before_longtail; and where labels were corrected since by hand, `corrections`, how many, and
              `corrected`, the ids at which the clean label is no more the source's, or, where the truth is known,
              `truth_known`;
  statistics  what came of it: number of examples, counts per clean and per observed class, realised rate
              overall and per clean class, realised transitions (`pair_counts` of clean and observed labels);
  sha256      of each array, of the three together (`digest`) and of the recipe.
The JSON is a function of the arrays and the recipe, so `load` works it out again and refuses any difference.
"""

import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lt_noisy.data.by_class import pair_counts, rows_of
from lt_noisy.data.longtail import Select
from lt_noisy.data.noise import Noise
from lt_noisy.errors import UserError, say
from lt_noisy.files import exit_status, replacing, user_path, write_arrays, write_json

FORMAT = 2
_DTYPES = {"ids": "<i8", "clean_labels": "<i4", "observed_labels": "<i4"}


@dataclass(frozen=True, eq=False)
class Manifest:
    """A training set. Row i of the three arrays is one example; training code sees only observed labels.

    Attributes:
      ids: int64 [N], unique.
      clean_labels: int32 [N].
      observed_labels: int32 [N].
      recipe: JSON-ready; holds at least num_classes, class_names, seed, nominal_rate, noise_before_longtail.
    """

    ids: np.ndarray
    clean_labels: np.ndarray
    observed_labels: np.ndarray
    recipe: dict[str, Any]

    @property
    def num_classes(self) -> int:
        return self.recipe["num_classes"]


def build(
    labels: np.ndarray,
    ids: np.ndarray,
    num_classes: int,
    class_names: Sequence[str],
    longtail: Select,
    noise: Noise,
    seed: int,
    recipe_text: Mapping[str, Any],
    clean: np.ndarray | None = None,
) -> Manifest:
    """Applies long tail and noise, in the order that the noise asks for.

    Args:
      labels: int [M], the full training split's, clean unless `clean` is given.
      ids: int64 [M].
      num_classes: C.
      class_names: C names.
      longtail: from `longtail.LONGTAILS`.
      noise: from `noise.NOISES`.
      seed: of both draws.
      recipe_text: JSON-ready, e.g. the specs in canonical form; kept in the recipe as it is.
      clean: int [M], the true labels where `labels` are noisy already; the long tail and further noise are of `labels`.
    """
    seen = noise.corrupt(labels, ids, num_classes, seed) if noise.before_longtail else labels
    rows = longtail(seen, ids, num_classes, seed)
    observed = seen[rows] if noise.before_longtail else noise.corrupt(labels[rows], ids[rows], num_classes, seed)
    recipe = {
        **recipe_text,
        "num_classes": num_classes,
        "class_names": list(class_names),
        "seed": seed,
        "nominal_rate": noise.nominal_rate,
        "noise_before_longtail": noise.before_longtail,
    }
    recipe = json.loads(json.dumps(recipe, allow_nan=False))  # as `load` will give it back: tuples are lists
    true = labels if clean is None else clean
    arrays = (ids[rows].astype(np.int64), true[rows].astype(np.int32), observed.astype(np.int32))
    return Manifest(*arrays, recipe)


def statistics(manifest: Manifest) -> dict[str, Any]:
    """What the training set is, JSON-ready (rates in 0..1; an empty class has rate 0)."""
    clean, observed, num_classes = manifest.clean_labels, manifest.observed_labels, manifest.num_classes
    counts = np.bincount(clean, minlength=num_classes)
    right = np.bincount(clean[clean == observed], minlength=num_classes)
    return {
        "num_examples": len(manifest.ids),
        "clean_counts": counts.tolist(),
        "observed_counts": np.bincount(observed, minlength=num_classes).tolist(),
        "realised_rate": float((clean != observed).mean()),
        "realised_rate_per_clean_class": (1 - np.where(counts > 0, right / np.maximum(counts, 1), 1)).tolist(),
        "transitions": pair_counts(clean, observed, num_classes),
    }


def truth_known(manifest: Manifest, clean: np.ndarray | None = None) -> bool:
    """Whether another authority than the observed labels says which are right.

    Without one a manifest has the same labels twice, as of a folder.

    Args:
      clean: the source's true labels (`Split.clean`), where it is at hand and has them: a manifest does not tell where
        none of its labels is wrong.
    """
    if clean is not None:
        return True
    noise, corrected = manifest.recipe.get("noise", "none()"), manifest.recipe.get("truth_known", False)
    return noise != "none()" or bool(corrected) or bool((manifest.clean_labels != manifest.observed_labels).any())


def digest(manifest: Manifest) -> str:
    """SHA-256 of the three arrays, and of nothing else."""
    return _sha256("".join(_array_hashes(manifest).values()).encode())


def save(manifest: Manifest, directory: str | os.PathLike[str]) -> None:
    """Writes manifest.npz, then manifest.json, each by `files.replacing`.

    The JSON is last: killed at any moment this leaves the files of before, a pair that `load` refuses, or a
    complete manifest. The bytes of both files depend on the manifest alone.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    arrays = {key: getattr(manifest, key).astype(dtype) for key, dtype in _DTYPES.items()}
    document = _document(manifest)
    write_arrays(directory / "manifest.npz", **arrays)
    write_json(directory / "manifest.json", document)


def load(path: str | os.PathLike[str]) -> Manifest:
    """Reads a manifest back: a directory that holds one, or its .npz or .json file.

    Raises:
      UserError: missing, half-written or altered.
    """
    path = Path(path)
    base = path if path.suffix in (".npz", ".json") else path / "manifest"
    npz_file, json_file = base.with_suffix(".npz"), base.with_suffix(".json")
    for file in (npz_file, json_file):
        if not file.is_file():
            raise UserError(f"{file} is missing: there is no complete manifest, build it again")
    try:
        document = json.loads(json_file.read_text())
        with open(npz_file, "rb") as file:
            found = dict(np.load(file, allow_pickle=False))
    except Exception as error:  # a damaged archive raises anything from OSError to zlib.error
        raise UserError(f"{base}: a file is damaged ({type(error).__name__}), build it again") from None
    if {key: array.dtype.str for key, array in found.items()} != _DTYPES:
        raise UserError(f"{npz_file} was altered: it must hold exactly {', '.join(_DTYPES)}, build it again")
    try:
        manifest = Manifest(**found, recipe=document["recipe"])
        if (written := document.get("format", 1)) != FORMAT:  # 1 did not name itself
            raise UserError(f"{json_file} has format {written!r}, and this version reads {FORMAT}")
        # Hashes first: statistics of an altered num_classes might not fit in memory.
        differing = _differing(document["sha256"], _hashes(manifest)) or _differing(document, _document(manifest))
    except UserError:
        raise
    except (KeyError, TypeError, ValueError):  # a recipe without its fields, arrays that no set could have
        raise UserError(f"{base}: the files were altered or do not belong together, build it again") from None
    if differing:
        raise UserError(f"{base}: {differing} does not agree with the rest: altered or half-written, build it again")
    return manifest


def verify(manifest: Manifest, labels: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Rows int64 [n] of the manifest's examples in a split with labels int [M] and ids int64 [M].

    Raises:
      UserError: an id that the split does not have, or another label there than the manifest's clean one, unless that
        is `corrected` by somebody (`lt-noisy apply`).
    """
    rows = rows_of(manifest.ids, ids)
    unknown = manifest.ids[rows < 0]
    if len(unknown):
        raise UserError(
            f"manifest: {len(unknown)} of {len(rows)} ids are not in the data set, the first is "
            f"{unknown[0]}; it was made from another one"
        )
    corrected = np.isin(manifest.ids, np.array(manifest.recipe.get("corrected", ()), np.int64))
    wrong = np.flatnonzero((labels[rows] != manifest.clean_labels) & ~corrected)
    if len(wrong):
        first = wrong[0]
        raise UserError(
            f"manifest: {len(wrong)} of {len(rows)} clean labels are not the data set's, the first is id "
            f"{manifest.ids[first]}: {manifest.clean_labels[first]} here, {labels[rows[first]]} there; "
            "it was made from another one"
        )
    return rows


def diff(a: Manifest, b: Manifest) -> dict[str, Any]:
    """What differs, JSON-ready; {} where nothing does.

    Keys, each only where it has something to say: ids_only_in_a, ids_only_in_b, clean_labels, observed_labels
    (ids in both whose labels differ), order (True: the ids in both come in another order), recipe ({field:
    [of a, of b]}, None where it is missing).
    """
    common, rows_a, rows_b = np.intersect1d(a.ids, b.ids, return_indices=True)
    recipe = {
        key: [a.recipe.get(key), b.recipe.get(key)]
        for key in sorted({*a.recipe, *b.recipe})
        if a.recipe.get(key) != b.recipe.get(key)
    }
    found = {
        "ids_only_in_a": np.setdiff1d(a.ids, b.ids).tolist(),
        "ids_only_in_b": np.setdiff1d(b.ids, a.ids).tolist(),
        "clean_labels": common[a.clean_labels[rows_a] != b.clean_labels[rows_b]].tolist(),
        "observed_labels": common[a.observed_labels[rows_a] != b.observed_labels[rows_b]].tolist(),
        "order": not np.array_equal(np.argsort(rows_a), np.argsort(rows_b)),
        "recipe": recipe,
    }
    return {key: value for key, value in found.items() if value}


def _document(manifest: Manifest) -> dict[str, Any]:
    """What manifest.json holds."""
    _check(manifest)
    content = {"recipe": manifest.recipe, "statistics": statistics(manifest), "sha256": _hashes(manifest)}
    return {"format": FORMAT, **content}


def _hashes(manifest: Manifest) -> dict[str, str]:
    recipe = json.dumps(manifest.recipe, sort_keys=True)
    return {**_array_hashes(manifest), "arrays": digest(manifest), "recipe": _sha256(recipe.encode())}


def _check(manifest: Manifest) -> None:
    size, num_classes = manifest.ids.size, manifest.num_classes
    for key in _DTYPES:
        if getattr(manifest, key).shape != (size,):
            raise ValueError(f"{key} is not [{size}]")
    if not size or len(np.unique(manifest.ids)) < size:
        raise ValueError("ids are empty or not unique")
    for labels in (manifest.clean_labels, manifest.observed_labels):
        if labels.min() < 0 or labels.max() >= num_classes:
            raise ValueError(f"labels are not in 0..{num_classes - 1}")


def _differing(found: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    """The name of the first differing entry, `section.field` where it lies deeper, or the empty string."""
    for key in sorted({*found, *expected}):
        mine, theirs = found.get(key), expected.get(key)
        if mine != theirs:
            if isinstance(mine, dict) and isinstance(theirs, dict):
                return f"{key}.{_differing(mine, theirs)}"
            return key
    return ""


def _array_hashes(manifest: Manifest) -> dict[str, str]:
    return {key: _sha256(getattr(manifest, key).astype(dtype).tobytes()) for key, dtype in _DTYPES.items()}


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def export(manifest: Manifest, directory: Path) -> None:
    """Writes what other codebases read: `indices.npy`, `labels.json`, `clean_labels.json`, `img_num_list.txt`.

    Entry i of both label lists is of the example with id `indices[i]`, by rising id: where the manifest has all
    examples that is DivideMix's form. `img_num_list.txt` has the number of examples of each observed class, as LDAM's
    list of that name. `import_labels(path='labels.json', ids='indices.npy')` reads them back.
    """
    directory.mkdir(parents=True, exist_ok=True)
    order = np.argsort(manifest.ids)
    with replacing(directory / "indices.npy") as file:
        np.save(file, manifest.ids[order])
    write_json(directory / "labels.json", manifest.observed_labels[order].tolist())
    write_json(directory / "clean_labels.json", manifest.clean_labels[order].tolist())
    counts = np.bincount(manifest.observed_labels, minlength=manifest.num_classes)
    with replacing(directory / "img_num_list.txt", "w") as file:
        file.write("".join(f"{count}\n" for count in counts))


def main(argv: Sequence[str]) -> int:
    """The command `python -m lt_noisy.data.manifest export FROM TO`; returns the exit status."""
    if len(argv) != 3 or argv[0] != "export":
        say("usage: python -m lt_noisy.data.manifest export RUN_OR_MANIFEST DIRECTORY", stream=sys.stderr)
        return 2
    return exit_status(lambda: _export(argv[1], argv[2]))


def _export(given: str, directory: str) -> int:
    found = load(user_path(given))
    export(found, user_path(directory))
    say(f"{directory}: indices.npy, labels.json, clean_labels.json, img_num_list.txt of {len(found.ids)} examples")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
