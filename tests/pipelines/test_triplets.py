"""The profiles: what they are made of, and what their licences allow."""

import re
import tomllib
from pathlib import Path

import pytest

from a2data.store.lookup import ELEMENT_TABLES
from model_zoo import cards
from pipelines.cli import models
from pipelines.cli.main import main
from pipelines.run.recipe import element_tables
from pipelines.triplets import PROFILES, triplets

ROOT = Path(__file__).parents[2]
PROFILES_PAGE = (ROOT / "docs" / "profiles.md").read_text()


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_has_the_same_stages_in_the_same_order(profile):
    assert [stage.name() for stage in triplets(profile)] == [stage.name() for stage in triplets()]


def test_elements_of_every_table_of_the_recipe_are_named_and_paired():
    names = element_tables(triplets())
    by_name = {stage.name(): stage for stage in triplets()}
    assert names == list(ELEMENT_TABLES)
    for reader in ("match", "retrieve", "pack"):
        assert [name for name in by_name[reader].reads if name in names] == names
    for reader in ("retrieve", "pack"):
        assert [name for name in by_name[reader].lookup_tables if name in names] == names


@pytest.mark.parametrize("profile", PROFILES)
def test_every_model_of_a_profile_has_a_card(profile):
    named = models.model_names(profile)
    assert [cards.base_card(name).name for name in named] == named


@pytest.mark.parametrize(("profile", "code"), [("builtin", 0), ("small", 0), ("production", 0), ("research", 1)])
def test_every_profile_is_for_any_use_except_research(profile, code, capsys):
    assert main(["models", "licences", "--profile", profile, "--policy", "commercial"]) == code
    said = capsys.readouterr()
    assert f"commercial use: {'forbidden' if code else 'allowed'}" in said.out
    assert (" is for research only: use " in said.err) is bool(code)


@pytest.mark.parametrize("profile", ["builtin", "small", "production"])
def test_nothing_in_them_is_on_conditions(profile):
    assert {card.use for card in models.select(profile)} == {"permissive"}


def test_each_model_of_research_has_its_substitute_in_production():
    offered = {card.name for card in models.select("production")}
    refused = [card for card in models.select("research") if card.use != "permissive"]
    assert {"yolo26x-seg", "buffalo_l", "sapiens-seg-1b"} <= {card.name for card in refused}
    assert {card.fallback for card in refused} <= offered


@pytest.mark.parametrize("profile", PROFILES)
def test_no_profile_puts_weights_that_forbid_biometrics_beside_faces(profile):
    chosen = models.select(profile)
    assert any(card.role == "faces" for card in chosen)
    assert not any(card.use == "biometric-restricted" for card in chosen)


def test_the_page_of_profiles_has_a_row_for_each():
    assert re.findall(r"^\| `(\w+)` \|.*\|.*\|.*\|.*\|.*\|", PROFILES_PAGE, re.MULTILINE)[-4:] == list(PROFILES)


def extras() -> dict[str, set[str]]:
    """Each extra of the project with the extras that it includes, itself among them."""
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    included: dict[str, set[str]] = {}
    for name, packages in stated.items():
        named = [word for package in packages for word in re.findall(r"^a2data\[(.*)\]$", package)]
        included[name] = {name}.union(*(included.get(other, {other}) for words in named for other in words.split(",")))
    return included


@pytest.mark.parametrize("profile", PROFILES)
def test_the_extra_of_a_profile_has_what_its_models_need(profile):
    assert {card.extra for card in models.select(profile)} - {""} <= extras()[profile]


def test_the_page_of_installation_lists_every_extra():
    page = (ROOT / "docs" / "installation.md").read_text()
    listed = {name for row in re.findall(r"^\| (`.*?) \|", page, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert set(extras()) - {"all", "dev", "docs", "readers"} <= listed
