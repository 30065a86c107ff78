"""SkyCaptioner-V1 is asked as in its training, and its authors' published answers are read as they meant them."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("jsonschema")

from chat_server import reply, serving

from model_zoo import cards
from model_zoo.caption import schema, skycaptioner
from model_zoo.caption.schema import Completion

# skycaptioner_v1/examples/test_result.csv of SkyworkAI/SkyReels-V2: a skier, a couple in a car, a spider, a footballer
ANSWERS = json.loads((Path(__file__).parent / "skycaptioner_answers.json").read_text())
PEOPLE = [[True, False, False, False], [True, True], [False], [True, False]]


def film(count: int) -> np.ndarray:
    """Frames of 40 x 80 that are as bright as their number."""
    return np.repeat(np.arange(count, dtype=np.uint8), 40 * 80 * 3).reshape(count, 40, 80, 3)


def test_the_request_is_that_of_the_training_to_the_letter():
    assert hashlib.sha256(skycaptioner.REQUEST.encode()).hexdigest() == (
        "dcbe6500a8aa00da27b0a2581d12ae8a9a54898237064965c5804152d9973fc2"
    )


@pytest.mark.parametrize(("answer", "people"), list(zip(ANSWERS, PEOPLE, strict=True)))
def test_a_published_answer_is_a_caption_whose_athletes_are_people_and_whose_cones_are_not(answer, people):
    found = skycaptioner.read(json.dumps(answer))

    assert [s["TYPES"]["type"] == "Human" for s in found["subjects"]] == people
    for said, subject in zip(answer["subjects"], found["subjects"], strict=True):
        assert {name: said[name] for name in schema.SUBJECT_TEXTS} == {
            name: subject[name] for name in schema.SUBJECT_TEXTS
        }
        assert said["TYPES"] == subject["TYPES"] or said["TYPES"]["type"] == "Sport"
    assert {name: answer[name] for name in (*schema.CHOICES, *schema.TEXTS)} == {
        name: found[name] for name in (*schema.CHOICES, *schema.TEXTS)
    }


@pytest.mark.parametrize(
    ("action", "appearance", "kind", "name"),
    [
        ("A man runs.", "In grey.", "Human", "Man"),
        ("Two young women play tennis.", "Wearing white.", "Human", "Person"),
        ("A surfer rides a wave.", "In black.", "Human", "Person"),
        ("The soccer ball rolls over the line.", "Round and white.", "Object", "Football"),
        ("", "A tall net.", "Object", "Football"),
    ],
)
def test_of_a_sport_only_who_acts_or_wears_something_is_a_person(action, appearance, kind, name):
    subject = {"TYPES": {"type": "Sport", "sub_type": "Football"}, "action": action, "appearance": appearance}
    (found,) = skycaptioner.read(json.dumps({"subjects": [subject]}))["subjects"]
    assert found["TYPES"] == {"type": kind, "sub_type": name}


@pytest.mark.parametrize("count", [1, 5, 16, 41, 120])
def test_it_sees_16_squeezed_frames_at_the_places_of_the_training_with_two_a_second(count):
    shown = skycaptioner.frames_part(film(count))
    # the authors': round(i (n - 1) / 16), which never reaches the last frame
    at = [int(np.round((count - 1) / 16 * i)) for i in range(16)]
    assert shown["frames"].shape == (16, 420, 360, 3)
    assert shown["frames"].mean((1, 2, 3)).tolist() == at
    assert shown["seconds"] == [i / 2 for i in range(16)]


def test_the_video_comes_before_the_request():
    asked = []

    def ask(messages, answer_schema):
        asked.append((messages, answer_schema))
        return Completion(json.dumps(ANSWERS[3]), True)

    found = skycaptioner.captioner(ask)(film(20), 15.0, [])

    (message,), form = asked[0]
    assert [part["type"] for part in message["content"]] == ["frames", "text"]
    assert message["content"][1]["text"] == skycaptioner.REQUEST
    assert form is schema.SCHEMA
    assert found["subjects"][0]["TYPES"] == {"type": "Human", "sub_type": "Man"}


def test_behind_a_server_it_is_sent_a_video_with_its_times():
    with serving(lambda body, number: reply(ANSWERS[1])) as chat:
        found = cards.load(chat.card("openai-skycaptioner"))(film(20), 15.0, [])
    (body,) = chat.bodies
    (message,) = body["messages"]
    assert [part["type"] for part in message["content"]] == ["video_url", "text"]
    assert body["media_io_kwargs"]["video"]["fps"] == 2.0
    assert [s["TYPES"]["sub_type"] for s in found["subjects"]] == ["Woman", "Man"]
