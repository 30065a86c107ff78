"""The framed people: is what is rendered what it is called?"""

import numpy as np
import pytest

pytest.importorskip("skimage")
pytest.importorskip("matplotlib")
from benchmarks import framing


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
