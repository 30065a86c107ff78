"""The framed people: is what is rendered what it is called?"""

import numpy as np
import pytest

pytest.importorskip("skimage")
pytest.importorskip("matplotlib")
from benchmarks import framing
from model_zoo import roles


@pytest.mark.parametrize("name", framing.NAMES)
def test_a_person_is_cut_off_where_the_framing_says(name):
    frame, (_, y0, _, y1) = framing.render(name, np.random.default_rng(1), framing.TUNED_ON)
    assert frame.shape == (framing.HEIGHT, framing.WIDTH, 3)
    whole = framing.FRAMED[name][1] is None
    assert (y1 < framing.HEIGHT) == whole
    if whole:
        assert (y1 - y0 < 0.55 * framing.HEIGHT) == (name == "long_shot")


def test_the_expert_is_asked_as_the_caption_stage_asks_it():
    frame, box = framing.render("full_shot", np.random.default_rng(2), framing.TUNED_ON)
    assert framing.called(frame, box, []) == "full_shot"


def face(x0: float, y0: float, score: float = 0.9) -> roles.Face:
    return roles.Face((x0, y0, x0 + 40, y0 + 40), score, np.zeros((5, 2), np.float32), np.zeros(128, np.float32))


def test_only_faces_within_the_persons_box_are_handed_over_the_one_at_its_top_first():
    low, high, beside, doubtful = face(130, 200), face(130, 60), face(400, 60), face(130, 70, 0.3)
    assert framing.own([low, beside, doubtful, high], (100.0, 50.0, 200.0, 360.0)) == [high, low]
