"""What a config can name, as `--list` and docs/specs.md tell it: complete, and sourced alike."""

import inspect
import re

import pytest
from helpers.commands import ROOT

from lt_noisy.config.command_line import listed
from lt_noisy.config.fields import fields_of
from lt_noisy.config.resolve import RunFields
from lt_noisy.config.spec import parse
from lt_noisy.errors import UserError
from lt_noisy.losses.table import LOSSES
from lt_noisy.runs import catalogue, cli
from lt_noisy.runs.listing import COMMAND, listing, page
from lt_noisy.stages import STAGES

GROUPS = catalogue.catalogue()
SECTIONS = {"run": RunFields, **{name: kind.section for name, kind in STAGES.items()}}
TABLES = {name: table for name, table, _ in catalogue._tables()}
FACTORIES = {(name, key): factory for name, table in TABLES.items() for key, factory in table.items()}


def test_the_page_is_what_the_command_in_it_writes():
    written = (ROOT / "docs" / "specs.md").read_text()
    assert written == page() and COMMAND in written


@pytest.mark.parametrize("name", SECTIONS)
def test_every_field_is_told_with_its_default_and_its_table(name):
    told = {entry.text: entry.says for entry in GROUPS[name].entries}
    for field, about in fields_of(SECTIONS[name]).items():
        says = told[f"{field}={about.default!r}"]
        if about.table is not None:
            (table,) = (name for name, table in TABLES.items() if table is about.table)
            assert says.startswith(f"one of `{table}`")
        if about.reference is not None:
            assert all(kind in says for kind in about.reference.kinds)
            assert ("none()" in says) == about.reference.optional
    assert len(told) == len(fields_of(SECTIONS[name]))


def test_tables_have_names_of_their_own():
    assert len(GROUPS) == len(SECTIONS) + 1 + len(TABLES) and len({id(table) for table in TABLES.values()}) == len(
        TABLES
    )


@pytest.mark.parametrize("name", TABLES)
def test_every_entry_of_a_table_is_told_there_or_in_the_table_that_it_takes_over(name):
    told = {parse_name(entry.text) for entry in GROUPS[name].entries}
    for other in re.findall(r"any of `(\w+)`", GROUPS[name].about):
        told |= TABLES[other].keys()
    assert told == TABLES[name].keys()


def parse_name(text):
    """The name of what a signature describes."""
    return text.partition("(")[0]


@pytest.mark.parametrize(("table", "name"), FACTORIES)
def test_every_entry_says_what_it_is_and_a_paper_only_as_the_convention_has_it(table, name):
    factory = FACTORIES[table, name]
    entry = catalogue.entry(name, factory)
    doc = inspect.getdoc(catalogue.documented(factory)) or ""
    assert entry.says.endswith((".", ")."))
    assert ("References:" in doc) == bool(entry.paper)
    cited = re.search(r"et al\.|[A-Z]\w+ & [A-Z]\w+", doc.partition("\n\n")[0])
    assert not cited or entry.paper, f"the paper goes into a section `References:` ({cited and cited[0]})"
    assert not entry.paper or re.fullmatch(r".+ \(\d{4}\)", entry.paper)


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_told_by_its_formula(name):
    assert catalogue.documented(LOSSES[name]).__name__ == name


def test_papers_of_a_docstring():
    one = 'A loss.\n\nReferences:\n  Lin et al., "Focal\n  Loss" (2017), eq. 3. Deviation (2018): none.\n'
    two = "A loss.\n\n    References:\n      He et al. (2020); Chen et al. (2021), sec. 2.\n\n    More (1999).\n"
    after = "A loss.\n\nReferences:\n  Lu (2022); t is updated first (2023).\n"
    assert catalogue.paper_of(one) == 'Lin et al., "Focal Loss" (2017)'
    assert catalogue.paper_of(two) == "He et al. (2020); Chen et al. (2021)"
    assert catalogue.paper_of(after) == "Lu (2022)"
    assert catalogue.paper_of("As He et al. (2020) say.") == ""


def test_a_default_that_is_told_can_be_written():
    for group in GROUPS.values():
        if group.name in TABLES:
            for entry in group.entries:
                if "=" in entry.text and ", ..." not in entry.text:
                    assert parse(entry.text.replace("inner, ", "")).name == parse_name(entry.text)


def test_list_without_a_name_counts_what_there_is():
    text = listing("")
    assert re.search(rf"^  losses \({len(LOSSES)}\) +For `loss` of supervised", text, re.MULTILINE)
    assert all(re.search(rf"^  {name} \(", text, re.MULTILINE) for name in GROUPS)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["--list"], ""),
        (["--list", "losses"], "losses"),
        (["--list=losses"], "losses"),
        (["--config=x.py"], None),
        ([], None),
    ],
)
def test_what_is_to_be_listed(arguments, name):
    assert listed(["main.py", *arguments]) == name


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--list", "loses"], "nothing is called 'loses', did you mean 'losses'?"),
        (["--list", "loss"], "nothing is called 'loss', did you mean 'losses', what the field loss takes?"),
        (["--list=reweight"], "did you mean 'weightings', what the field reweight takes?"),
        (["--list", "losses", "noises"], "takes one name at most, not 'losses noises'"),
        (["--list", "--config=configs/digits_lt_noise.py"], "--list only prints"),
    ],
)
def test_a_mistake_is_one_line(arguments, says, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    assert cli.main(["main.py", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --list") and says in error and len(error.splitlines()) == 1


def test_list_prints_and_needs_no_config(capsys, monkeypatch, tmp_path):
    with pytest.raises(UserError):
        listing("nothing")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    assert cli.main(["main.py", "--list", "losses"]) == 0
    printed = capsys.readouterr().out
    assert "  gce(q=0.7, truncate=0.0, start=0.0)\n      Generalised cross-entropy: l = (1 - p_y^q) / q;" in printed
    assert "Zhang & Sabuncu, " in printed and "(2018)\n" in printed


SECTION = '''
import dataclasses
from lt_noisy.config.fields import plain

@dataclasses.dataclass(frozen=True)
class Base:
    """Fields."""

    first: int = plain(1)
    # Above,
    # on two lines.
    second: int = plain(2)
    third: int = plain(3)  # behind

@dataclasses.dataclass(frozen=True)
class Section(Base):
    third: int = plain(4)
    fourth: int = plain(5)  # its own
'''


def test_what_comments_say_of_fields(tmp_path, monkeypatch):
    (tmp_path / "commented.py").write_text(SECTION)
    monkeypatch.syspath_prepend(tmp_path)
    import commented

    assert catalogue._comments(commented.Section) == {
        "first": "",
        "second": "Above, on two lines.",
        "third": "",
        "fourth": "its own",
    }
