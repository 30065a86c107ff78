"""Checkpoint folders: the sampling settings that an export was trained with."""

import json

import pytest

pytest.importorskip("diffusers")
import tiny_a2

from pipelines.sample.checkpoint import Checkpoint


@pytest.fixture(scope="module")
def a2(tmp_path_factory):
    return tiny_a2.write(tmp_path_factory.mktemp("checkpoint") / "a2")


@pytest.fixture
def folder(a2):
    """The checkpoint, without the sampling.json of another test."""
    (a2 / "sampling.json").unlink(missing_ok=True)
    return a2


def test_a_folder_without_sampling_settings_has_no_defaults(folder):
    assert Checkpoint.open(folder).defaults == {}


def test_the_settings_of_a_training_are_the_defaults(folder):
    said = {"height": 32, "width": 48, "frames": 9, "fps": 24, "guidance_scale": 1}
    (folder / "sampling.json").write_text(json.dumps(said))
    found = Checkpoint.open(folder).defaults
    assert found == said
    assert isinstance(found["fps"], float)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("no json", "Expecting value"),
        ("[]", "list"),
        ('{"out": "/etc/passwd"}', "out"),
        ('{"height": 9}', "height = 9, allowed 16"),
        ('{"height": 32.5}', "height = 32.5"),
        ('{"frames": true}', "frames = True"),
        ('{"fps": NaN}', "fps = nan"),
    ],
)
def test_unusable_sampling_settings_are_reported_with_the_path(folder, text, named):
    (folder / "sampling.json").write_text(text)
    with pytest.raises(ValueError, match=r"sampling\.json does not list sampling settings") as error:
        _ = Checkpoint.open(folder).defaults
    assert named in str(error.value)


def test_settings_do_not_change_the_digest(folder):
    before = Checkpoint.open(folder).digest
    (folder / "sampling.json").write_text('{"height": 32}')
    assert Checkpoint.open(folder).digest == before
