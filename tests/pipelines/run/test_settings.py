"""Settings: from text, from flags, and back from a work folder."""

import argparse
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal

import pytest

from a2data.stage import Stage
from a2data.store.tables import Store
from pipelines.cli.flags import Parser, add_settings, given_values
from pipelines.encode import Encoding
from pipelines.run.recipe import Recipe
from pipelines.run.settings import field_docs, parse
from pipelines.sample.acceleration import Acceleration
from pipelines.sample.job import NOT_SETTINGS, Job
from pipelines.train.settings import Settings
from pipelines.triplets import PROFILES, triplets


@dataclass(frozen=True)
class Sharpen(Stage):
    """Has a field of each type."""

    name_of_it: str = "x # y"
    """a name"""
    count: int = 3
    """how many, 1 to 9"""
    share: float = 0.5
    """of the whole,
    0 to 1"""
    strict: bool = True
    """fail on 100 %"""
    kernel: Literal["", "box", "disc"] = ""
    """shape of the kernel (default: none)"""
    undocumented: int = 0


def flags(*words: str) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    add_settings(parser, Sharpen(), exclude=["undocumented"])
    return given_values(parser.parse_args(words), Sharpen)


def test_a_flag_has_the_type_of_its_field():
    values = flags("--name-of-it", "a b", "--count", "4", "--share", "0.25", "--no-strict", "--kernel", "disc")

    assert values == {"name_of_it": "a b", "count": 4, "share": 0.25, "strict": False, "kernel": "disc"}


def test_a_flag_that_is_not_given_changes_nothing():
    assert flags() == {}
    assert flags("--count", "0", "--no-strict") == {"count": 0, "strict": False}


def test_a_field_that_is_left_out_has_no_flag_and_no_value(capsys):
    with pytest.raises(SystemExit):
        flags("--undocumented", "1")

    assert "unrecognized arguments: --undocumented" in capsys.readouterr().err
    assert given_values(argparse.Namespace(count=4, share=1.0), Sharpen, exclude=["count"]) == {"share": 1.0}


@pytest.mark.parametrize(
    ("flag", "value"), [("--count", "3.5"), ("--share", "nan"), ("--kernel", "round"), ("--count", "many")]
)
def test_an_invalid_value_is_named_with_its_flag_and_exits_with_2(capsys, flag, value):
    with pytest.raises(SystemExit) as left:
        flags(flag, value)

    assert left.value.code == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert f"argument {flag}: " in message
    assert repr(value) in message


def test_help_shows_docstring_and_default_of_each_field(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        flags("--help")
    printed = capsys.readouterr().out
    words = " ".join(printed.split())

    assert "--count INT how many, 1 to 9 (default: 3)" in words
    assert "--share FLOAT of the whole, 0 to 1 (default: 0.5)" in words
    assert "--kernel {box,disc} shape of the kernel (default: none)" in words
    assert "fail on 100 % (default: True)" in words
    assert max(map(len, printed.splitlines())) <= 80


def test_the_docstring_under_a_field_is_found_and_no_other_text():
    assert field_docs(Sharpen) == {
        "name_of_it": "a name",
        "count": "how many, 1 to 9",
        "share": "of the whole, 0 to 1",
        "strict": "fail on 100 %",
        "kernel": "shape of the kernel (default: none)",
        "undocumented": "",
    }


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_every_field_of_every_stage_is_explained(profile):
    silent = [f"{s.name()}.{f.name}" for s in triplets(profile) for f in fields(s) if not field_docs(type(s))[f.name]]

    assert silent == []


@pytest.mark.parametrize("kind", [Encoding, Settings, Job, Acceleration])
def test_every_setting_is_explained(kind):
    assert is_dataclass(kind)
    assert [f.name for f in fields(kind) if not field_docs(kind)[f.name] and f.name not in NOT_SETTINGS] == []


def test_a_parser_is_built_once_and_only_when_it_is_used():
    built = []

    def build(sub: Parser) -> None:
        built.append(sub.prog)
        sub.add_argument("--count", type=int)

    top = argparse.ArgumentParser("top")
    commands = top.add_subparsers(parser_class=Parser)
    for name in ("one", "two"):
        commands.add_parser(name, build=build)

    assert built == []
    assert [top.parse_args(["two", "--count", n]).count for n in "34"] == [3, 4]
    assert built == ["top two"]
    assert "--count COUNT" in commands.choices["one"].format_help()
    assert built == ["top two", "top one"]


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("yes", bool, True),
        ("0", bool, False),
        ("-3", int, -3),
        ("inf", float, float("inf")),
        ("a=b", str, "a=b"),
        ("box", Literal["", "box"], "box"),
    ],
)
def test_text_becomes_a_value(text, kind, value):
    assert parse(text, kind, "here") == value


@pytest.mark.parametrize(
    ("text", "kind"), [("maybe", bool), ("3.5", int), ("much", float), ("nan", float), ("disc", Literal["", "box"])]
)
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
