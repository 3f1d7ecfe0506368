"""Label files of other codebases, in and out."""

import collections
import json
import pickle

import numpy as np
import pytest

from lt_noisy.config.spec import bind
from lt_noisy.data import manifest as manifests
from lt_noisy.data.given import MANIFESTS
from lt_noisy.data.label_files import read_numbers
from lt_noisy.errors import UserError

IDS = np.array([5, 0, 3, 1, 4, 2])  # of a data set in an order of its own
CLEAN = np.array([0, 1, 2, 0, 1, 2], np.int32)
NOISY = np.array([2, 2, 1, 0, 1, 0])  # by id


def given(text):
    return bind(text, MANIFESTS, "manifest")(IDS, CLEAN, ("a", "b", "c"))


FORMS = {
    "plain.npy": lambda path: np.save(path, NOISY),
    "floats.npy": lambda path: np.save(path, NOISY.astype(float)),
    "column.npy": lambda path: np.save(path, NOISY[:, None]),
    "archive.npz": lambda path: np.savez(path, worse=NOISY, other=NOISY * 0),
    "official.npy": lambda path: np.save(path, {"worse": NOISY, "other": NOISY * 0}, allow_pickle=True),
    "list.json": lambda path: path.write_text(json.dumps(NOISY.tolist())),
    "object.json": lambda path: path.write_text(json.dumps({"worse": NOISY.tolist()})),
    "lines.csv": lambda path: np.savetxt(path, NOISY, fmt="%d"),
    "lines.txt": lambda path: np.savetxt(path, NOISY),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_a_label_file(tmp_path, name):
    FORMS[name](tmp_path / name)
    key = "worse" if name in ("archive.npz", "official.npy", "object.json") else ""
    found = read_numbers(str(tmp_path / name), key)
    assert found.tolist() == NOISY.tolist() and found.dtype == np.int64
    made = given(f"import_labels(path='{tmp_path / name}', key='{key}')")
    assert made.ids.tolist() == sorted(IDS) and made.observed_labels.tolist() == NOISY.tolist()
    assert made.clean_labels.tolist() == [1, 0, 2, 2, 1, 0]
    with pytest.raises(UserError, match="'none'"):
        read_numbers(str(tmp_path / name), "none")


class Touches:
    """What a file may not do when it is read."""

    def __reduce__(self):
        return collections.OrderedDict, ()


def test_files_that_hold_something_else_are_one_line(tmp_path):
    np.save(tmp_path / "code.npy", {"worse": Touches()}, allow_pickle=True)
    (tmp_path / "cut.npy").write_bytes(pickle.dumps([1])[:3])
    (tmp_path / "words.txt").write_text("cat\ndog\n")
    (tmp_path / "broken.json").write_text("[1, 2")
    (tmp_path / "nested.json").write_text("[[1, 2], [3, 4]]")
    np.save(tmp_path / "gap.npy", np.array([1.0, np.nan]))
    np.save(tmp_path / "wide.npy", np.array([1, 2**64 - 1], np.uint64))
    np.save(tmp_path / "huge.npy", np.array([1, 1e30]))
    cases = {
        "code.npy": r"holds collections\.OrderedDict, which is no array",
        "cut.npy": "cannot be read as labels",
        "words.txt": "could not convert string to float: 'cat'",
        "broken.json": "cannot be read as labels",
        "nested.json": r"must be integer \[N\]",
        "gap.npy": "entry 1 is nan, no whole number",
        "wide.npy": "entry 1 is 18446744073709551615, which is out of range",
        "huge.npy": "entry 1 is 1e\\+30, which is out of range",
        "absent.json": "does not exist",
    }
    for name, message in cases.items():
        with pytest.raises(UserError, match=message) as error:
            read_numbers(str(tmp_path / name), "worse" if name == "code.npy" else "")
        assert "\n" not in str(error.value)


def test_a_choice_of_examples_and_an_order_map(tmp_path):
    np.save(tmp_path / "labels.npy", NOISY)
    (tmp_path / "chosen.txt").write_text("4\n1\n5\n")
    np.save(tmp_path / "order.npy", IDS)
    text = f"import_labels(path='{tmp_path}/labels.npy', ids='{tmp_path}/chosen.txt')"
    some = given(text)
    assert some.ids.tolist() == [4, 1, 5] and some.observed_labels.tolist() == [1, 2, 0]
    assert some.clean_labels.tolist() == [1, 0, 0]
    ordered = given(f"import_labels(path='{tmp_path}/labels.npy', ids='{tmp_path}/order.npy')")
    assert ordered.ids.tolist() == IDS.tolist() and ordered.observed_labels.tolist() == NOISY.tolist()
    for chosen, message in (
        ("", r"chosen\.txt is empty"),
        ("4\n9\n", "no example with id 9"),
        ("4\n1\n4\n", "names an example twice"),
    ):
        (tmp_path / "chosen.txt").write_text(chosen)
        with pytest.raises(UserError, match=message):
            given(text)
    np.save(tmp_path / "labels.npy", NOISY[:3])
    with pytest.raises(UserError, match=r"labels for ids 0\.\.2, the data has id 5"):
        given(f"import_labels(path='{tmp_path}/labels.npy')")
    np.save(tmp_path / "labels.npy", NOISY + 1)
    with pytest.raises(UserError, match=r"gives id 0 label 3, the data has 0\.\.2"):
        given(f"import_labels(path='{tmp_path}/labels.npy')")


def test_ids_of_63_bits_are_read_from_lines_as_they_are(tmp_path):
    ids = [2**62 + 1, 2**63 - 1, 7]
    (tmp_path / "ids.txt").write_text("".join(f"{number}\n" for number in ids))
    assert read_numbers(str(tmp_path / "ids.txt"), "").tolist() == ids


def test_an_id_below_0_does_not_count_from_the_end(tmp_path):
    np.save(tmp_path / "labels.npy", NOISY)
    text = f"import_labels(path='{tmp_path}/labels.npy')"
    with pytest.raises(UserError, match=r"labels for ids 0\.\.5, the data has id -1"):
        bind(text, MANIFESTS, "manifest")(IDS - 1, CLEAN, ("a", "b", "c"))
    np.save(tmp_path / "order.npy", IDS - 1)
    made = bind(text.replace(")", f", ids='{tmp_path}/order.npy')"), MANIFESTS, "manifest")
    assert made(IDS - 1, CLEAN, ("a", "b", "c")).observed_labels.tolist() == NOISY.tolist()


def test_the_recipe_tells_other_labels_apart(tmp_path):
    np.savez(tmp_path / "labels.npz", worse=NOISY, order=IDS)
    first = given(f"import_labels(path='{tmp_path}/labels.npz', key=worse)")
    other = f"import_labels(path='{tmp_path}/labels.npz', key=worse, ids='{tmp_path}/labels.npz', ids_key=order)"
    recipes = [made.recipe for made in (first, given(other))]
    assert [(recipe["key"], recipe["ids"], recipe["ids_key"]) for recipe in recipes] == [
        ("worse", "", ""),
        ("worse", f"{tmp_path}/labels.npz", "order"),
    ]


def test_a_manifest_goes_out_and_comes_back(tmp_path, capsys):
    np.save(tmp_path / "labels.npy", NOISY)
    (tmp_path / "chosen.txt").write_text("4\n1\n5\n3\n")
    some = given(f"import_labels(path='{tmp_path}/labels.npy', ids='{tmp_path}/chosen.txt')")
    manifests.save(some, tmp_path / "run")
    out = tmp_path / "out"
    assert manifests.main(["export", str(tmp_path / "run"), str(out)]) == 0
    assert "of 4 examples" in capsys.readouterr().out
    assert np.load(out / "indices.npy").tolist() == [1, 3, 4, 5]
    assert json.loads((out / "labels.json").read_text()) == [2, 0, 1, 0]
    assert json.loads((out / "clean_labels.json").read_text()) == [0, 2, 1, 0]
    assert (out / "img_num_list.txt").read_text() == "2\n1\n1\n"
    back = given(f"import_labels(path='{out}/labels.json', ids='{out}/indices.npy')")
    order = np.argsort(some.ids)
    for name in ("ids", "clean_labels", "observed_labels"):
        np.testing.assert_array_equal(getattr(back, name), getattr(some, name)[order])
    assert manifests.main(["export", str(tmp_path / "none"), str(out)]) == 2
    assert manifests.main(["exprot"]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert errors[0].startswith("error: ") and errors[1].startswith("usage: ")
