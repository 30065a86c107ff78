"""Settings files: what `a2data config dump` prints is read back by --config, value for value."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.cli.main import main
from pipelines.run.recipe import RUNNER_OWNED, Recipe
from pipelines.run.settings_file import _toml, dump, read
from pipelines.triplets import PROFILES, triplets


def settings(stages) -> dict:
    owned = {f"{stage}.{name}" for stage, name in RUNNER_OWNED}
    values = {f"{s.name()}.{name}": value for s in stages for name, value in vars(s).items()}
    return {name: value for name, value in values.items() if name not in owned}


@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_dumped_settings_of_a_profile_are_read_back_over_any_other(profile, tmp_path):
    recipe = Recipe(profile)
    recipe.set(triplets(profile), ["select.max_text=inf", "segment.fps=23.976023976023978"])
    stages = recipe.configured(triplets(profile))
    path = tmp_path / "run.toml"
    path.write_text(dump(stages, profile), encoding="utf-8")

    file, again = read(str(path)), Recipe("research")
    assert file.profile == profile
    again.update(triplets("research"), file.settings, file.path)
    assert settings(again.configured(triplets("research"))) == settings(stages)


VALUES = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.integers(-(2**63), 2**63 - 1),
    st.booleans(),
    st.floats(allow_nan=False),
)


@given(VALUES)
def test_every_value_is_read_back_from_toml(value):
    assert repr(tomllib.loads(f"x = {_toml(value)}")["x"]) == repr(value)


def test_the_command_prints_settings_with_their_docstrings(tmp_path, capsys):
    assert main(["config", "dump", "--profile", "small", "--set", "detect.confidence=0.75"]) == 0
    text = capsys.readouterr().out
    assert text.startswith('profile = "small"\n')
    assert "# frames per second of the clips\nfps = 15.0\n" in text
    assert "\nconfidence = 0.75\n" in text
    (tmp_path / "run.toml").write_text(text)

    more = ["--config", str(tmp_path / "run.toml")]
    assert main(["config", "dump", *more]) == 0
    assert capsys.readouterr().out == text
    assert main(["config", "dump", *more, "--set", "detect.confidence=0.5", "--profile", "builtin"]) == 0
    again = capsys.readouterr().out
    assert "\nconfidence = 0.5\n" in again
    assert again.startswith('profile = "builtin"\n')


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("detect = 1", "run.toml: detect = 1: write settings in the table of their stage"),
        ("[detect", "run.toml is not a TOML file: "),
        ('profile = "large"', "run.toml: profile = 'large': the profiles are builtin, production, research, small"),
        ("[nosuch]\nx = 1", r"run.toml: x = 1 in \[nosuch\]: unknown stage 'nosuch'"),
        ("[detect]\nnosuch = 1", "detect does not have the setting 'nosuch'; it has model, "),
        ('[detect]\nconfidence = "0.5"', "expected float, got str"),
        ("[segment]\nmax_frames = 81.0", "expected int, got float"),
        ("[segment]\ncrop_letterbox = 1", "expected bool, got int"),
        ("[detect]\nconfidence = nan", "expected a number, got 'nan'"),
        ('[pack]\nout = "x"', "this field cannot be set here; set the folder of the shards with `a2data run --out`"),
    ],
)
def test_an_invalid_file_is_refused_with_its_path_and_field(text, message, tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        Recipe().update(triplets(), read(str(path)).settings, str(path))
