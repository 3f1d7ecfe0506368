"""README and docs/results.md say what the records hold, and the README what CI runs."""

import re

import pytest
import results_page
from helpers.commands import ROOT

README = (ROOT / "README.md").read_text()


def test_the_readme_begins_with_the_two_commands_and_ci_with_the_second():
    first, second = re.findall(r"```sh\n(.*?)\n```", README, re.DOTALL)[:2]
    assert "\n" not in first and first.endswith("main.py --config=configs/digits_lt_noise.py")
    ci = (ROOT / ".ci" / "run").read_text().splitlines()
    assert next(line for line in ci if line.startswith("python3")) == second


def test_the_readme_is_short_and_its_links_lead_somewhere():
    assert README.count("\n") <= 130
    targets = [target for target in re.findall(r"\]\(([^)#]+)", README) if "://" not in target]
    assert len(targets) > 10
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_its_table_and_the_pages_are_what_the_records_hold():
    assert results_page.readme(README) == README
    for name in results_page.PAGES:
        assert results_page.page(name) == (ROOT / "docs" / f"{name}.md").read_text()


def test_a_figure_of_no_record_is_an_error():
    with pytest.raises(ValueError, match="cells have the labels"):
        results_page.mean("digits_grid", "balanced accuracy", loss="CE")  # of several inits and settings
    with pytest.raises(ValueError, match="other seeds"):
        results_page.gains("digits_settings", {"choice": "mae()", "seed": 100}, {"choice": "mixup, alpha 1"})
    with pytest.raises(ValueError, match="has no"):
        results_page.readme("no table here")
