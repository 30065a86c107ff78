"""Settings: from text, from flags, and back from a work folder."""

import argparse
from dataclasses import dataclass, fields
from typing import Any

import pytest

from a2data.stage import Stage
from a2data.store.tables import Store
from pipelines.cli.flags import add_flags, field_help
from pipelines.run.recipe import Recipe
from pipelines.run.settings import parse
from pipelines.triplets import PROFILES, triplets


@dataclass(frozen=True)
class Sharpen(Stage):
    """Has a field of each type, and one whose comment stands on the next line."""

    name_of_it: str = "x # y"  # a name
    count: int = 3  # how many, 1 to 9
    share: float = 0.5  # of the whole, 0 to 1
    strict: bool = True  # fail on 100 %


def flags(*words: str) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    add_flags(parser, Sharpen())
    return vars(parser.parse_args(words))


def test_a_flag_has_the_type_of_its_field():
    given = flags("--name-of-it", "a b", "--count", "4", "--share", "0.25", "--no-strict")

    assert given == {"name_of_it": "a b", "count": 4, "share": 0.25, "strict": False}


def test_a_flag_that_is_not_given_says_nothing():
    assert set(flags().values()) == {None}


def test_help_shows_comment_and_default_of_each_field(capsys):
    with pytest.raises(SystemExit):
        flags("--help")
    told = " ".join(capsys.readouterr().out.split())

    assert "--count INT how many, 1 to 9 (default: 3)" in told
    assert "--share FLOAT of the whole, 0 to 1 (default: 0.5)" in told
    assert "fail on 100 % (default: True)" in told


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_every_field_of_every_stage_is_explained(profile):
    silent = [f"{s.name()}.{f.name}" for s in triplets(profile) for f in fields(s) if not field_help(s).get(f.name)]

    assert silent == []


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [("yes", bool, True), ("0", bool, False), ("-3", int, -3), ("inf", float, float("inf")), ("a=b", str, "a=b")],
)
def test_text_becomes_a_value(text, kind, value):
    assert parse(text, kind, "here") == value


@pytest.mark.parametrize(("text", "kind"), [("maybe", bool), ("3.5", int), ("much", float), ("nan", float)])
def test_text_that_is_not_a_value_is_named(text, kind):
    with pytest.raises(ValueError, match=f"here: .*'{text}'"):
        parse(text, kind, "here")


def test_a_recipe_comes_back_from_its_work_folder(tmp_path):
    store, recipe = Store(tmp_path), Recipe(profile="small", videos_per_shard=3)
    recipe.set(triplets(), ["detect.confidence=0.5", "select.max_text=inf"])
    recipe.save(store)

    assert Recipe.of(store) == recipe
    by_name = {stage.name(): stage for stage in recipe.apply(triplets(), store)}
    assert (by_name["detect"].confidence, by_name["select"].max_text) == (0.5, float("inf"))
    assert by_name["faces"] == {stage.name(): stage for stage in triplets()}["faces"]


def test_a_work_folder_that_is_moved_takes_its_shards_along(tmp_path):
    recipe = Recipe()

    for place in ("here", "there"):
        pack = recipe.apply(triplets(), Store(tmp_path / place))[-1]
        assert pack.out == str(tmp_path / place / "shards")
    assert Recipe(out="/else").folder(Store(tmp_path)).root == "/else"


def test_pack_is_told_which_models_made_what(tmp_path):
    told = Recipe().apply(triplets(), Store(tmp_path))[-1].made_by.split("; ")

    assert {line.split()[0] for line in told} >= {"segment", "detect", "faces", "caption"}
    assert all("@" in line.split()[1] for line in told)


@pytest.mark.parametrize("text", ["{", '{"nosuch": 1}', "[1]"])
def test_a_damaged_recipe_is_named(tmp_path, text):
    (tmp_path / "run.json").write_text(text)

    with pytest.raises(ValueError, match=r"run\.json is not a recipe of this version"):
        Recipe.of(Store(tmp_path))


def test_a_setting_of_another_version_is_named(tmp_path):
    with pytest.raises(ValueError, match="detect does not have the setting gone"):
        Recipe(settings={"detect": {"gone": 1}}).apply(triplets(), Store(tmp_path))
