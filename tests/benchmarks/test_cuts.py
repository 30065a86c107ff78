import numpy as np
import pytest

from benchmarks import cuts, transitions
from benchmarks.transitions import Film
from model_zoo.shots import transnet
from model_zoo.shots.detector import Transition

FRAMES = np.zeros((200, 2, 2, 3), np.uint8)


def test_a_report_matches_one_cut_the_nearest_within_the_tolerance():
    assert cuts.matched([(50, 50), (51, 51)], [50], 2) == 1
    assert cuts.matched([(51, 51)], [50, 52], 1) == 1
    assert cuts.matched([(50, 50), (99, 99)], [50, 100], 0) == 1
    assert cuts.matched([(50, 50), (99, 99)], [50, 100], 1) == 2
    assert cuts.matched([(47, 53)], [50], 2) == 0, "a transition is no cut"


def test_reports_in_a_gradual_transition_are_neither_right_nor_wrong():
    film = Film("x", FRAMES, [40], [("wipe", 100, 120)])
    found = [Transition("cut", 40, 40), Transition("cut", 110, 110), Transition("dissolve", 95, 130)]
    assert cuts.score(film, found)[:3] == ((1, 1, 1), 1, 1)
    assert cuts.score(film, [*found, Transition("cut", 150, 150)])[:3] == ((1, 1, 1), 2, 1)


def test_a_gradual_transition_is_clean_where_no_clip_has_a_frame_of_it():
    film = Film("x", FRAMES, [], [("wipe", 100, 120)])
    assert cuts.score(film, [Transition("wipe", 100, 120)]).clean == 1
    assert cuts.score(film, [Transition("wipe", 102, 120)]).clean == 0
    assert cuts.score(film, [Transition("dissolve", 104, 116)]).clean == 1, "with the margins of a dissolve"
    assert cuts.score(film, [Transition("cut", 110, 110)]).clean == 0
    assert cuts.score(film, []).clean == 0


def test_clips_are_at_least_a_second_long_and_keep_the_margins():
    found = [(40, 40, "cut"), (60, 60, "cut"), (100, 120, "fade"), (170, 171, "wipe")]
    assert cuts.clips(found, 220) == [(0, 40), (60, 96), (124, 169), (172, 220)]


def test_f1_is_1_where_nothing_is_to_be_found_and_nothing_is():
    assert cuts.Count((0, 0, 0), 0, 0, 0, 0).f1(0) == 1
    assert cuts.Count((0, 0, 0), 1, 0, 0, 0).f1(0) == 0
    assert cuts.Count((3, 4, 4), 5, 4, 0, 0).plus(cuts.Count((1, 1, 1), 1, 2, 0, 0)).f1(1) == pytest.approx(10 / 12)


def test_transnetv2_is_read_as_its_authors_do():
    scores = np.zeros((100, 2))
    scores[29] = 0.9, 0.8  # the last frame before a cut
    scores[60:70, 1] = 0.7
    scores[65, 0] = 0.6
    assert cuts.transnet(scores) == [("cut", 30, 30), ("dissolve", 60, 70)]


def test_a_replayed_network_answers_as_the_first_did():
    def first(windows):
        values = windows[:, :, 0, 0, 0] / 255
        return values, 1 - values

    frames = np.random.default_rng(0).integers(0, 255, (130, transnet.HEIGHT, transnet.WIDTH, 3), np.uint8)
    scores = cuts.scores_of(transnet.Network(first), frames)
    assert np.array_equal(scores[:, 0], frames[:, 0, 0, 0] / 255)
    assert np.array_equal(cuts.scores_of(cuts.replay(scores), frames), scores)


def test_joined_shots_give_the_frames_of_their_transitions():
    black, grey, white = (np.full((20, 8, 8, 3), level, np.uint8) for level in (0, 100, 200))
    frames, hard, gradual = transitions.join(
        [black, grey, white], [("cut", transitions.dissolve, 0), ("dissolve", transitions.dissolve, 4)]
    )
    assert (len(frames), hard, gradual) == (56, [20], [("dissolve", 36, 40)])
    assert frames[:, 0, 0, 0].tolist() == [0] * 20 + [100] * 16 + [120, 140, 160, 180] + [200] * 16


@pytest.mark.parametrize("shape", transitions.WIPES)
def test_a_rendered_wipe_changes_each_pixel_once(shape):
    a, b = np.zeros((144, 256, 3), np.uint8), np.full((144, 256, 3), 255, np.uint8)
    blend = transitions.wipe(shape)
    new = np.stack([blend(a, b, share)[..., 0] for share in np.linspace(0, 1, 12)]) > 0
    assert (new[1:] >= new[:-1]).all()
    assert not new[0].any()
    assert new[-1].mean() > 0.99
    assert 0.02 < new[5].mean() < 0.98


@pytest.mark.slow
def test_a_film_is_the_same_every_time_and_its_truth_is_in_it():
    pytest.importorskip("skimage")
    film, again = (transitions.render("cuts", "tuning") for _ in range(2))
    assert np.array_equal(film.frames, again.frames)
    change = np.abs(np.diff(cuts.tiny(film.frames).astype(int), axis=0)).mean(axis=(1, 2, 3))
    assert sorted((np.argsort(change)[-6:] + 1).tolist()) == film.cuts
    other = transitions.render("cuts", "held-out")
    assert other.cuts != film.cuts
