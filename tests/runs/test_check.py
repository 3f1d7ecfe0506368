"""The data doctor's command: what it prints, its files, its exit status."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from helpers import layouts
from helpers.commands import ROOT
from PIL import Image

from lt_noisy.data import doctor
from lt_noisy.runs import check, cli, histogram

FOLDER = "folder(path='{tmp}', size=8)"


def checked(capsys, *argv):
    """Exit status, standard output and standard error of `check`."""
    status = check.check(argv)
    said = capsys.readouterr()
    return status, said.out, said.err


def test_bars_of_a_few_classes():
    assert histogram.bars(["a", "long name", "none", "one"], np.array([50, 200, 0, 1])) == [
        "long name  200  ########################################",
        "a           50  ##########",
        "one          1  #",
        "none         0",
    ]
    assert histogram.bars(["a\nb", "c" * 30], np.array([0, 0])) == [
        "a\\nb                      0",
        "ccccccccccccccccccccc...  0",
    ]
    assert histogram.bars([], np.array([], int)) == []


def test_bars_of_many_classes_are_the_largest_and_the_smallest():
    names = [str(c) for c in range(45)]
    lines = histogram.bars(names, np.arange(45) * 1000 + 1000)
    assert len(lines) == 41 and lines[20] == "... 5 classes between these are not shown ..."
    assert [line.split()[0] for line in lines if "..." not in line] == names[:24:-1] + names[19::-1]
    assert lines[0].startswith("44  45,000  ##") and lines[-1] == "0    1,000  #"
    assert len(histogram.bars(names[:40], np.arange(40))) == 40


def test_the_report_of_a_sound_folder(tmp_path, capsys):
    for label, (name, count) in enumerate({"cat": 30, "dog": 3, "owl": 2}.items()):
        for number in range(count):
            layouts.picture(tmp_path / "train" / name / f"{number}.jpg", label, number * 5)
        layouts.picture(tmp_path / "test" / name / "0.jpg", label, 999)
    status, out, err = checked(capsys, FOLDER.format(tmp=tmp_path))
    assert (status, err) == (0, "")
    assert out == (
        f"folder(path='{tmp_path}', size=8, test_percent=20, broken='refuse', dedupe=False, resize=0)\n"
        "  35 training and 3 test images, 3 classes\n"
        "  2 to 30 training images a class, imbalance ratio 15\n"
        "  classes: 0 many (above 100 images), 1 medium (20 to 100), 2 few (below 20)\n"
        "  width x height: 16 x 16 to 20 x 16, the median 16 x 16; 0 % of the images are grey\n"
        "\n"
        "training images of each class\n"
        "cat  30  ########################################\n"
        "dog   3  ####\n"
        "owl   2  ###\n"
        "\n"
        "0 errors, 0 notes\n"
    )


def test_the_report_of_faults_is_errors_first_and_cut_where_it_is_long(tmp_path, capsys):
    layouts.folder(tmp_path)
    for number in range(6):
        (tmp_path / "class 0" / f"br\noken{number}.png").write_bytes(b"")
    (tmp_path / "class 1" / "lonely.txt").write_text("hello")
    shutil.copy(tmp_path / "class 1" / "0.jpg", tmp_path / "class 2" / "other.jpg")
    file = tmp_path / "report.json"
    status, out, _ = checked(capsys, FOLDER.format(tmp=tmp_path), f"--json={file}")
    lines = out.splitlines()
    assert status == 1 and lines[-1] == "2 errors, 1 note"
    start = next(at for at, line in enumerate(lines) if line.startswith("error: "))
    assert lines[start + 1] == "    class 0/br\\noken0.png: it is no image, or of a kind that is not read"
    assert lines[start + 6] == "    ... 1 more (--json=FILE lists them all)"
    assert lines[start + 7] == "error: images in several classes: 2, of which 1 differ"
    split = "test" if "(test" in lines[start + 8] else "train"  # it hangs on the content
    assert lines[start + 8] == f"    class 1/0.jpg ({split}, class 1) = class 2/other.jpg ({split}, class 2)"
    assert lines[start + 9].startswith("note: ") and "skipped 1 file (.txt)" in lines[start + 9]
    written = json.loads(file.read_text())
    assert written["errors"] == 2 and len(written["findings"][0]["entries"]) == 6
    assert written["findings"][0]["entries"][5]["files"] == ["class 0/br\noken5.png"]


def test_nothing_that_can_be_placed(tmp_path, capsys):
    (tmp_path / "a.csv").write_text("image,label\na.jpg,\n")
    status, out, _ = checked(capsys, f"table(path='{tmp_path}/a.csv')")
    assert status == 1 and "0 training and 0 test images, 0 classes" in out and out.endswith("3 errors, 0 notes\n")


def test_published_numbers_are_said(tmp_path, capsys):
    layouts.animal10n(tmp_path)
    status, out, _ = checked(capsys, layouts.SPECS["animal10n"][1].format(tmp=tmp_path))
    assert status == 0 and "  published: 50,000 train, 5,000 test images\n" in out
    assert "note: not the published set: 20 in place of 50,000 train images, 20 in place of 5,000 test images" in out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "check takes the spec of a data set: check "),
        (["folder(path='a", "b')"], "check takes the spec of a data set, not 2 arguments; quote it: "),
        (
            ["digits()", "--jsn=x"],
            "check: unrecognized arguments: --jsn=x, did you mean '--json'?; see lt-noisy check --help",
        ),
        (["digits()", "--json"], "check: argument --json: expected one argument; see"),
        (
            ["digits()", "--json=/nowhere/at/all"],
            "check: argument --json: '/nowhere/at/all' is no file in a directory that exists",
        ),
        (["digits()", "--png=/"], "check: argument --png: '/' is no file in a directory that exists"),
        (["digit()"], "check: unknown name 'digit', did you mean 'digits'?"),
        (["digits(canvas=x)"], "check: digits(canvas=...) takes int, not x"),
        (["folder(path='/nowhere/at/all')"], "/nowhere/at/all is not a folder"),
    ],
)
def test_what_cannot_be_looked_at_is_one_line(capsys, argv, message):
    status, out, err = checked(capsys, *argv)
    assert (status, out) == (2, "") and err.startswith(f"error: {message}") and err.count("\n") == 1


def test_a_disk_that_refuses_is_one_line(tmp_path, capsys, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device", str(tmp_path / "r.json"))

    monkeypatch.setattr(check, "write_json", full)
    status, out, err = checked(capsys, "digits()", "--json", str(tmp_path / "r.json"))
    assert (status, out) == (2, "") and "r.json: No space left" in err and err.count("\n") == 1


def test_a_picture_takes_matplotlib_and_says_so_before_work(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(doctor, "examine", lambda *_: pytest.fail("it has looked"))
    status, _, err = checked(capsys, "digits()", f"--png={tmp_path / 'a.png'}")
    assert (status, err) == (2, "error: --png takes matplotlib: pip install 'lt_noisy[plot]'\n")


@pytest.mark.parametrize("classes", [3, 41])
def test_the_picture_of_a_histogram(tmp_path, classes):
    pytest.importorskip("matplotlib")
    names = ["$5 \\frac{", "\udcff\n猫", "x" * 300, *map(str, range(3, classes))]
    counts = np.arange(classes) * 10
    for test in (counts // 2, counts):
        histogram.save_png(tmp_path / f"{test[-1]}.png", "folder($", names, counts, test)
    first, second = (np.asarray(Image.open(file).convert("RGB")) for file in sorted(tmp_path.glob("*.png")))
    assert first.shape == second.shape and (first != second).any()  # the test images are drawn


def test_the_command_itself(tmp_path, env):
    layouts.folder(tmp_path / "photos")
    script = "import sys; from lt_noisy.runs.cli import start; sys.exit(start())"  # as pip installs it
    command = [sys.executable, "-c", script, "check", FOLDER.format(tmp=tmp_path / "photos")]
    done = subprocess.run(command, env={**env, "PYTHONPATH": str(ROOT)}, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.endswith("\n0 errors, 0 notes\n")


def test_the_program_hands_over_and_helps(tmp_path, capsys):
    layouts.folder(tmp_path)
    (tmp_path / "class 0" / "1.jpg").write_bytes(b"")
    assert cli.main(["main.py", "check", FOLDER.format(tmp=tmp_path)]) == 1
    assert cli.main(["main.py", "check", "folder(path='/nowhere')"]) == 2
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        cli.main(["main.py", "check", "--help"])
    assert left.value.code == 0 and "--png" in capsys.readouterr().out
