from dataclasses import replace

import mediapipe_networks
import numpy as np
import pytest

from a2data.records import Kept, Sound, Span
from stages.active_speaker import ActiveSpeaker, motion, openings, spans, speakers, speech_frames

FPS, COUNT = 15.0, 45
VOICE = np.arange(COUNT) < 30  # two of three seconds
BOX = (10.0, 10.0, 30.0, 30.0)


def heard(*stretches):
    return Sound("clip", 3.0, -20.0, -6.0, 0.0, 0.5, list(stretches), "")


@pytest.fixture
def shown(make_film, make_element):
    """A clip of two seconds whose frame n is as light as n, and two faces; the first belongs to a person."""
    film = make_film(np.tile(np.arange(30, dtype=np.uint8)[:, None, None, None] * 8, (1, 32, 64, 3)))
    film = replace(film, source_frames=list(range(30)))
    seen = {0: BOX, 29: BOX}
    other = {0: (40.0, 10.0, 60.0, 30.0), 29: (40.0, 10.0, 60.0, 30.0)}
    mask = np.ones((32, 64), bool)
    faces = [make_element(mask, seen, "face/0", "face", parent_id="clip/human/0")]
    return film, [*faces, make_element(mask, other, "face/1", "face")]


def run(shown, sound, model):
    film, faces = shown
    return list(ActiveSpeaker().run(model, [Kept("clip", "video")], [film], [sound], faces))


def mouth_of_the_first_moves(frame, head):
    number = round(int(frame[16, 2, 0]) / 8)
    return 0.1 * (number % 2) if head[0] < 32 and number < 16 else 0.1


def test_the_face_whose_mouth_moves_in_speech_speaks(shown):
    first, second = run(shown, heard(Span(0.0, 1.0)), mouth_of_the_first_moves)
    assert (first.element_id, first.parent_id, second.element_id) == ("clip/face/0", "clip/human/0", "clip/face/1")
    assert first.speech_spans == [Span(0.0, 1.0)]
    assert (first.speech, second.speech, second.speech_spans) == (1.0, 0.0, [])
    assert first.mouth_motion == pytest.approx(0.05, abs=0.003)
    assert second.mouth_motion == pytest.approx(0)


def test_mouths_are_not_looked_at_without_speech_or_faces(shown):
    assert run(shown, heard(), lambda *given: 1 / 0) == []
    assert run((shown[0], []), heard(Span(0.0, 1.0)), lambda *given: 1 / 0) == []


def test_a_mouth_that_moves_as_much_in_pauses_does_not_speak():
    chewing, talking = np.full((1, COUNT), 0.05), np.where(VOICE, 0.05, 0.01)[None]
    assert not speakers(chewing, VOICE, 0.012, 1.5, FPS).any()
    assert (speakers(talking, VOICE, 0.012, 1.5, FPS)[0] == VOICE).all()


def test_without_pauses_motion_alone_decides():
    voice = np.ones(COUNT, bool)
    assert speakers(np.full((1, COUNT), 0.05), voice, 0.012, 1.5, FPS).all()
    assert not speakers(np.full((1, COUNT), 0.01), voice, 0.012, 1.5, FPS).any()


def test_at_each_time_only_the_mouth_that_moves_most_speaks():
    motions = np.where(np.arange(COUNT) < 15, [[0.06], [0.03]], [[0.02], [0.05]])
    motions[:, ~VOICE] = 0.0
    found = speakers(motions, VOICE, 0.012, 1.5, FPS)
    assert [spans(row, FPS) for row in found] == [[Span(0.0, 1.0)], [Span(1.0, 2.0)]]


def test_a_mouth_that_is_not_seen_does_not_speak():
    found = speakers(np.array([[np.nan] * COUNT, [0.05] * 30 + [np.nan] * 15]), VOICE, 0.012, 1.5, FPS)
    assert not found[0].any()
    assert (found[1] == VOICE).all()


def test_motion_is_the_deviation_over_half_a_second():
    opening = np.where(np.arange(COUNT) % 2, 0.1, 0.0)
    assert motion(opening, FPS)[10] == pytest.approx(np.std(opening[6:15]))
    opening[:] = np.nan
    opening[20:22] = 0.1
    assert np.isnan(motion(opening, FPS)).all()


def test_a_head_is_looked_for_between_its_sightings_only(shown):
    _, (face, _) = shown
    face = replace(face, seen_frames=[2, 4], seen_boxes=[(0.0, 0.0, 10.0, 10.0), (4.0, 2.0, 14.0, 12.0)])
    asked = openings(lambda frame, head: head[0], np.zeros((8, 32, 64, 3), np.uint8), face)
    np.testing.assert_array_equal(asked, [np.nan, np.nan, 0, 2, 4, np.nan, np.nan, np.nan])


def test_a_frame_is_spoken_if_its_middle_is():
    assert np.flatnonzero(speech_frames([Span(0.1, 0.2), Span(0.5, 0.6)], 10, 10.0)).tolist() == [1, 5]


def test_the_card_measures_a_mouth_that_opens():
    from skimage.data import astronaut

    from benchmarks.speech import HEAD, opened
    from model_zoo.mediapipe import mesh

    model = mediapipe_networks.network("mediapipe-mouth")
    find, look = (mediapipe_networks.network(f"mediapipe-face-{name}") for name in ("detection", "mesh"))
    points = mesh.of_head(find, look, astronaut(), HEAD).points
    found = [model(opened(astronaut(), points, gap), HEAD) for gap in (0, 6, 12)]
    assert found == sorted(found)
    assert found[2] - found[0] > 0.05
    assert np.isnan(model(np.zeros_like(astronaut()), HEAD))
