"""The data doctor's command: `lt-noisy check "folder(path='photos', size=64)" [--json=FILE] [--png=FILE]`.

Exit status 0 where nothing is wrong, 1 where something is (`lt_noisy.data.doctor` says what counts), 2 for what cannot
be looked at.
"""

from collections.abc import Sequence

from lt_noisy.config.arguments import Parser, new_file
from lt_noisy.data import doctor
from lt_noisy.data.sources.findings import Entry, Finding
from lt_noisy.errors import UserError, printable
from lt_noisy.evaluation.classification import class_groups
from lt_noisy.files import exit_status, show, write_json
from lt_noisy.runs import histogram

_SHOWN = 5  # entries of a finding in the terminal


def check(argv: Sequence[str]) -> int:
    """Looks at the data set that the arguments (those after `check`) name; returns the exit status."""
    return exit_status(lambda: _check(argv))


def _check(argv: Sequence[str]) -> int:
    parser = Parser("check", description="Every fault of a data set at once, its classes and its duplicates.")
    parser.add_argument("spec", nargs="*", help="of a data set, quoted: \"folder(path='photos', size=64)\"")
    parser.add_argument("--json", type=new_file, help="where the report goes as JSON")
    parser.add_argument("--png", type=new_file, help="where a picture of the classes goes; needs matplotlib")
    given = parser.parse_args(argv)
    if len(given.spec) != 1:
        many = f", not {len(given.spec)} arguments; quote it" if given.spec else ""
        raise UserError(f"check takes the spec of a data set{many}: check \"folder(path='photos', size=64)\"")
    if given.png is not None:
        histogram.require_matplotlib()
    report = doctor.examine(given.spec[0], "check")
    if given.json is not None:
        write_json(given.json, doctor.document(report))
    if given.png is not None:
        histogram.save_png(given.png, report.spec, report.class_names, report.train, report.test, report.kind)
    show("\n".join(map(printable, lines(report))))
    return 1 if report.errors else 0


def lines(report: doctor.Report) -> list[str]:
    """The report for a terminal."""
    bars = histogram.bars(report.class_names, report.train)
    findings = [line for finding in report.findings for line in _finding_lines(finding)]
    total = f"{_number(report.errors, 'error')}, {_number(len(report.findings) - report.errors, 'note')}"
    return [report.spec, *_summary(report), "", f"training {report.kind} of each class", *bars, "", *findings, total]


def _summary(report: doctor.Report) -> list[str]:
    train, test = report.train, report.test
    classes = _number(len(train), "class", "classes")
    rows = [f"  {train.sum():,} training and {test.sum():,} test {report.kind}, {classes}"]
    if report.published:
        known = [f"{count:,} {split}" for split, count in report.published.items()]
        rows.append(f"  published: {', '.join(known)} images")
    if not len(train):
        return rows
    least, most = int(train.min()), int(train.max())
    ratio = f"imbalance ratio {most / least:.4g}" if least else "a class without any"
    groups = class_groups(train)
    many, medium, few = (len(groups[name]) for name in ("many", "medium", "few"))
    rows.append(f"  {least:,} to {most:,} training {report.kind} a class, {ratio}")
    rows.append(f"  classes: {many} many (above 100 {report.kind}), {medium} medium (20 to 100), {few} few (below 20)")
    if report.sizes:
        smallest, median, largest = (f"{width} x {height}" for width, height in report.sizes)
        sizes = smallest if smallest == largest else f"{smallest} to {largest}, the median {median}"
        rows.append(f"  width x height: {sizes}; {100 * report.grey:.3g} % of the images are grey")
    return rows


def _finding_lines(finding: Finding) -> list[str]:
    """What is found, and the first few places, one a line."""
    shown = [_entry_line(entry) for entry in finding.entries[:_SHOWN]]
    more = len(finding.entries) - _SHOWN
    if more > 0:
        shown.append(f"... {more:,} more (--json=FILE lists them all)")
    if len(shown) == 1 and shown[0] in finding.text:
        shown = []
    return [f"{'error' if finding.is_error else 'note'}: {finding.text}", *(f"    {line}" for line in shown if line)]


def _entry_line(entry: Entry) -> str:
    """The files of an entry, each with its split and class where there are several; empty where it has none."""
    files = list(entry.get("files", ()))
    if "splits" in entry:
        places = zip(files, entry["splits"], entry["classes"], strict=True)
        files = [f"{file} ({split}, {name})" for file, split, name in places]
    line = " = ".join([*files[:_SHOWN], *(["..."] if len(files) > _SHOWN else [])])
    return line + "".join(f": {entry[key]}" for key in ("why",) if key in entry)


def _number(count: int, one: str, several: str = "") -> str:
    return f"{count:,} {one if count == 1 else several or f'{one}s'}"
