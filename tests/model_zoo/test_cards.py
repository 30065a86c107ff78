"""What a model asks of a worker, told without a look at its weights."""

import pytest

from model_zoo import cards
from pipelines.triplets import triplets
from stages.detect import Detect
from stages.faces import Faces
from stages.parse import Parse


@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("yolo11x-seg", 0.25),
        ("yolo:/nowhere/best.pt", 0.25),
        ("buffalo_l", 0.25),
        ("insightface:/nowhere/pack", 0.25),
        ("builtin-detect", 0.0),
        ("dlib", 0.0),
        ("builtin-parse", 0.0),
    ],
)
def test_yolo_and_insightface_ask_for_a_quarter_of_a_gpu_wherever_their_weights_are(name, share):
    assert cards.gpus(name) == share


@pytest.mark.parametrize("name", ["yolo12", "nobody:/weights.pt"])
def test_the_share_of_an_unknown_model_is_an_error_that_names_the_known_ones(name):
    with pytest.raises(KeyError, match="builtin-detect"):
        cards.gpus(name)


def test_the_builtin_recipe_asks_for_no_gpu_and_production_for_what_its_models_together_take():
    assert [stage.gpus for stage in triplets("builtin") if stage.gpus] == []
    asked = {stage.name(): stage.gpus for stage in triplets("production") if stage.gpus}
    assert asked["detect"] == cards.gpus("rf-detr-seg-large") + cards.gpus("sam2.1-hiera-large") == 0.5
    assert asked["caption"] == 1
    assert set(asked) == {"score", "detect", "caption", "ground", "match"}


@pytest.mark.parametrize("stage", [Detect, Faces, Parse])
def test_a_stage_asks_for_what_its_model_does(stage):
    assert stage().gpus == 0
    assert stage(model="yolo:/nowhere/best.pt").gpus == 0.25


def test_a_package_without_an_extra_is_named_itself(monkeypatch):
    from model_zoo.catalogue import CARDS
    from model_zoo.roles import Card

    monkeypatch.setitem(CARDS, "net", Card("quality", "no_such_package:net"))
    with pytest.raises(ModuleNotFoundError, match=r"needs the package .no_such_package.: pip install no_such_package$"):
        cards.load("net")
