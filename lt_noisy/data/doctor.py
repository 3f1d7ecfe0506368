"""The data doctor: all that is wrong or strange with a data set, in one go; nothing is trained, nothing decoded twice.

Of picture files it looks at each (`pictures.look`), of arrays at the pixels. What counts as an error:

- a file that cannot be read (a note where `broken=skip` leaves it out);
- what lists and folders say wrong: lines of another form, labels without a class, files without a label, ids that come
  twice, links in a circle, fewer than two classes; of vectors numbers that are not finite;
- a class without training images, no test image at all;
- equal images in several classes: all but one of these labels are wrong (a note where `dedupe` leaves them out);
- training images that are test images too: test accuracy would be too high (likewise).

All else is a note: equal images in a class, classes without test images, numbers that are not the published ones,
pictures smaller than `size`, files that are not read. Of vectors the same is said as of images, but for sizes.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from lt_noisy.config.spec import parse, read
from lt_noisy.data.examined import Examined, classes_of, of_arrays, of_files
from lt_noisy.data.published import published_counts
from lt_noisy.data.sources import SOURCES
from lt_noisy.data.sources.base import FromArrays, listed
from lt_noisy.data.sources.content import copies
from lt_noisy.data.sources.findings import Finding
from lt_noisy.data.sources.listing import FromFiles, deduplicated, no_test, small_classes

_CONFLICT, _CROSSED, _AGAIN = "label conflict", "training image in the test set", "duplicate in a class"


class Report(NamedTuple):
    """What the doctor says.

    Attributes:
      spec: canonical.
      class_names: C names.
      kind: what the data are, `images` or `vectors`; what is said of the former here holds for the latter.
      train: int [C], images of each class that a run would train on.
      test: int [C], those that it would test on.
      sizes: (width, height) of the smallest, the median and the largest image, by area; none of vectors.
      grey: share of the images, in 0..1.
      published: {`train`, `test`: images}, as far as it is known.
      findings: errors first.
    """

    spec: str
    class_names: tuple[str, ...]
    kind: str
    train: np.ndarray
    test: np.ndarray
    sizes: tuple[tuple[int, int], ...]
    grey: float
    published: dict[str, int]
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> int:
        """How many findings are errors."""
        return sum(finding.is_error for finding in self.findings)


def examine(spec: str, where: str) -> Report:
    """Looks at the whole data set of a spec.

    Args:
      spec: as `config.dataset` takes it.
      where: what the spec is called in error messages.

    Raises:
      UserError: a spec that cannot be bound, or data of which nothing can be told: no such file, none that has the
        expected form.
    """
    bound = read(spec, SOURCES, where)
    load = bound.value
    if isinstance(load, FromFiles):
        seen = of_files(load)
    else:
        source, findings = load.read() if isinstance(load, FromArrays) else (load(), ())
        seen = of_arrays(bound.text, source, findings)
    return _report(bound.text, seen)


def document(report: Report) -> dict[str, Any]:
    """A report, JSON-ready."""
    rows = zip(report.class_names, report.train.tolist(), report.test.tolist(), strict=True)
    return {
        "dataset": report.spec,
        "kind": report.kind,
        "errors": report.errors,
        "images": {"train": int(report.train.sum()), "test": int(report.test.sum())},
        "published": report.published,
        "classes": [{"name": name, "train": train, "test": test} for name, train, test in rows],
        "sizes": dict(zip(("smallest", "median", "largest"), map(list, report.sizes), strict=False)),
        "grey_share": report.grey,
        "findings": [
            {
                "severity": "error" if finding.is_error else "note",
                "kind": finding.kind,
                "text": finding.text,
                "entries": [dict(entry) for entry in finding.entries],
            }
            for finding in report.findings
        ],
    }


def _report(spec: str, seen: Examined) -> Report:
    rows = np.arange(len(seen.labels))
    kept = deduplicated(seen.contents, seen.labels, seen.is_test, rows) if seen.dedupe else rows
    training, tested = kept[~seen.is_test[kept]], kept[seen.is_test[kept]]
    train, test = (np.bincount(seen.labels[own], minlength=len(seen.class_names)) for own in (training, tested))
    published = published_counts(parse(spec))
    kinds = {finding.kind for finding in seen.findings if finding is not None}
    found = [
        *seen.findings,
        small_classes(seen.where, seen.class_names, seen.labels[training], 1, classes_of(seen.findings)),
        no_test(seen.where, test) if "no test image" not in kinds else None,
        *_equal_images(seen),
        _without_test(seen.class_names, train, test),
        _unlike_published(published, train, test),
        _too_small(seen),
    ]
    findings = sorted((finding for finding in found if finding is not None), key=lambda finding: not finding.is_error)
    by_area = seen.sizes[np.argsort(seen.sizes.prod(1), kind="stable")].tolist()
    sizes = tuple((by_area[at][0], by_area[at][1]) for at in (0, len(by_area) // 2, -1)) if by_area else ()
    return Report(
        spec=spec,
        class_names=tuple(seen.class_names),
        kind=seen.kind,
        train=train,
        test=test,
        sizes=sizes,
        grey=float(seen.grey.mean()) if len(seen.grey) else 0.0,
        published=published,
        findings=tuple(findings),
    )


def _equal_images(seen: Examined) -> list[Finding]:
    """Images that are there several times: across classes, across splits, within a class and split."""
    across: list[np.ndarray] = []
    crossed: list[np.ndarray] = []
    within: list[np.ndarray] = []
    for group in copies(seen.contents, np.arange(len(seen.labels))):
        labels, is_test = seen.labels[group], seen.is_test[group]
        if len(set(labels.tolist())) > 1:
            across.append(group)
        if is_test.any() and not is_test.all():
            crossed.append(group)
        for place in sorted(set(zip(labels.tolist(), is_test.tolist(), strict=True))):
            own = group[(labels == place[0]) & (is_test == place[1])]
            if len(own) > 1:
                within.append(own)
    left_out = "; dedupe=True leaves them out" if seen.dedupe else ""
    torn, again = sum(map(len, across)), sum(len(group) - 1 for group in within)
    train = sum(int((~seen.is_test[group]).sum()) for group in crossed)
    made = (
        (_CONFLICT, across, f"{seen.kind} in several classes: {torn:,}, of which {len(across):,} differ{left_out}"),
        (_CROSSED, crossed, f"training {seen.kind} that are test {seen.kind} too: {train:,}{left_out}"),
        (_AGAIN, within, f"{seen.kind} that are in their class and split already: {again:,}{left_out}"),
    )
    return [
        Finding(kind, kind != _AGAIN and not seen.dedupe, text, _entries(seen, groups))
        for kind, groups, text in made
        if groups
    ]


def _entries(seen: Examined, groups: Sequence[np.ndarray]) -> tuple[dict[str, Any], ...]:
    """The files, classes and splits of each group of equal images."""
    return tuple(
        {
            "files": [seen.names[row] for row in group],
            "classes": [seen.class_names[label] for label in seen.labels[group]],
            "splits": ["test" if side else "train" for side in seen.is_test[group]],
        }
        for group in groups
    )


def _without_test(class_names: Sequence[str], train: np.ndarray, test: np.ndarray) -> Finding | None:
    """Classes that are learnt and never tested; where none is tested that is an error of its own."""
    classes = [class_names[c] for c in np.flatnonzero((test == 0) & (train > 0)).tolist()] if test.any() else []
    if not classes:
        return None
    text = f"classes without a test image: {len(classes)} of {len(class_names)} ({listed(classes)})"
    return Finding("class without test images", False, text, tuple({"class": name, "files": []} for name in classes))


def _unlike_published(published: dict[str, int], train: np.ndarray, test: np.ndarray) -> Finding | None:
    here = {"train": int(train.sum()), "test": int(test.sum())}
    unlike = {split: count for split, count in published.items() if here[split] != count}
    if not unlike:
        return None
    parts = [f"{here[split]:,} in place of {count:,} {split} images" for split, count in unlike.items()]
    entries = tuple({"split": split, "images": here[split], "published": count} for split, count in unlike.items())
    return Finding("not the published number", False, f"not the published set: {', '.join(parts)}", entries)


def _too_small(seen: Examined) -> Finding | None:
    """Pictures that are enlarged to be read."""
    small = np.flatnonzero((seen.sizes < seen.size).any(1)).tolist()
    if not small:
        return None
    text = f"pictures smaller than size={seen.size}, which are enlarged: {len(small):,} of {len(seen.names):,}"
    entries = tuple({"files": [seen.names[row]], "size": seen.sizes[row].tolist()} for row in small)
    return Finding("small picture", False, text, entries)
