"""Captions from a server: a real one on loopback, which errs as servers do."""

import base64
import json
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import cv2
import numpy as np
import pytest

pytest.importorskip("httpx")
pytest.importorskip("tenacity")
pytest.importorskip("jsonschema")

from chat_server import pictures, refuse, reply, serving, words

from model_zoo import cards
from model_zoo.caption import endpoint, schema

FRAMES = np.full((40, 360, 640, 3), (200, 60, 20), np.uint8)
GOOD = {
    "subjects": [
        {
            "TYPES": {"type": "Human", "sub_type": "Woman"},
            "appearance": "wearing a yellow hoodie",
            "action": "waves",
            "expression": "happy",
            "position": "on the left",
            "is_main_subject": True,
        }
    ],
    "shot_type": "medium_shot",
    "shot_angle": "eye_level",
    "shot_position": "front_view",
    "camera_motion": "The camera pans left.",
    "environment": "A kitchen",
    "lighting": "soft daylight",
}
SCENE = {
    "subjects": [
        {
            "phrase": "a woman in a yellow hoodie",
            **dict.fromkeys(schema.SUBJECT_FIELDS, ""),
            "action": "waves",
        }
    ],
    "environment_phrase": "a kitchen",
    "lighting": "",
    "camera_motion": "the camera whirls about",
    **dict.fromkeys(schema.CHOICES, "other"),
}


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(endpoint, "FIRST_WAIT_S", 0.005)
    monkeypatch.delenv("A2DATA_API_KEY", raising=False)


def caption(chat, **options) -> dict:
    return cards.load(chat.card(**options))(FRAMES, 15.0, [])


def in_turn(*answers):
    """Answers by the number of the request; the last one for all that follow."""
    return lambda body, number: answers[min(number, len(answers) - 1)]


def test_a_valid_answer_is_the_caption():
    with serving(in_turn(reply(GOOD))) as chat:
        assert caption(chat) == GOOD
    (body,) = chat.bodies
    assert (body["model"], body["temperature"], body["seed"]) == ("tiny/model", 0, 0)
    assert body["response_format"]["json_schema"]["schema"] == schema.SCHEMA
    for field in (*schema.CHOICES, *schema.TEXTS, *schema.SUBJECT_FIELDS):
        assert f'"{field}"' in words(body)


@pytest.mark.parametrize("shape", [(360, 640), (640, 360), (1080, 1920), (90, 120), (200, 900)])
def test_frames_are_shown_whole_and_undistorted(shape):
    height, width = shape
    frames = np.zeros((5, height, width, 3), np.uint8)
    frames[:, height // 4 : height // 2, width // 2 : 3 * width // 4] = (250, 40, 40)
    with serving(in_turn(reply(GOOD))) as chat:
        cards.load(chat.card())(frames, 15.0, [])
    (body,) = chat.bodies
    for picture in pictures(body):
        h, w = picture.shape[:2]
        assert h * w <= schema.AREA_PX * 1.01
        assert abs(w / h - width / height) / (width / height) < 0.01
        assert h <= height  # never enlarged
        ys, xs = np.nonzero((picture[..., 0] > 125) & (picture[..., 1] < 125))
        found = np.array([ys.min() / h, (ys.max() + 1) / h, xs.min() / w, (xs.max() + 1) / w])
        assert np.abs(found - (0.25, 0.5, 0.5, 0.75)).max() < 1.5 / min(h, w)


@pytest.mark.parametrize(("count", "asked", "shown"), [(40, 16, 16), (5, 16, 5), (1, 16, 1), (81, 4, 4)])
def test_so_many_frames_evenly_from_first_to_last(count, asked, shown):
    frames = np.repeat(np.arange(count, dtype=np.uint8)[:, None, None, None] * 3, 64, axis=1).repeat(64, 2).repeat(3, 3)
    with serving(in_turn(reply(GOOD))) as chat:
        cards.load(chat.card(frames=asked))(frames, 10.0, [])
    (body,) = chat.bodies
    at = [round(float(p.mean()) / 3) for p in pictures(body)]
    assert len(at) == shown
    assert (at[0], at[-1]) == (0, count - 1)
    assert max(np.diff(at), default=0) - min(np.diff(at), default=0) <= 1
    assert [w for w in words(body).splitlines() if w.startswith("at ")] == [f"at {n / 10} s:" for n in at]


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (reply("I see a woman."), "not JSON"),
        (reply({**GOOD, "shot_type": "dutch_roll"}), "shot_type"),
        (reply({**GOOD, "subjects": [{"appearance": ["a", "b"]}]}), r"subjects\.0\.appearance"),
        (reply({**GOOD, "subjects": "a woman"}), "subjects"),
        (reply([]), "subjects"),
        (reply('{"subjects": [], "lighting": NaN}'), "not JSON"),
        (reply('{"subjects": [' + "[" * 100000), "not JSON"),
        (reply(""), "not JSON"),
        (reply(json.dumps(GOOD)[:60], "length"), "cut off"),
        (reply(GOOD, "length"), "cut off"),  # whole by luck: who knows
    ],
)
def test_a_bad_answer_is_asked_for_once_more_and_no_further(bad, why):
    with serving(in_turn(bad, reply(GOOD))) as chat:
        assert caption(chat) == GOOD
        assert len(chat.bodies) == 2
        assert "cannot be used" in words(chat.bodies[1])
    with serving(in_turn(bad)) as chat:
        with pytest.raises(ValueError, match=f"no usable answer.*{why}"):
            caption(chat)
        assert len(chat.bodies) == 2


def test_servers_that_are_busy_or_fall_over_are_asked_again():
    with serving(in_turn(refuse(500), refuse(503), None, refuse(429), reply(GOOD))) as chat:
        assert caption(chat) == GOOD
    assert len(chat.bodies) == 5


@pytest.mark.parametrize("after", ["0.3", "date"])
def test_the_time_that_a_server_asks_for_is_given(after):
    said = after if after != "date" else format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
    with serving(in_turn(refuse(429, Retry_After=said), reply(GOOD))) as chat:
        began = time.perf_counter()
        assert caption(chat) == GOOD
        assert time.perf_counter() - began >= (0.3 if after == "0.3" else 0.7)  # a date has whole seconds


def test_the_patience_has_an_end_and_says_so():
    for answer, why in ((refuse(500), "500 Internal"), (refuse(429), "429 Too Many"), (None, "Error")):
        with serving(in_turn(answer)) as chat:
            with pytest.raises(RuntimeError, match=rf"did not answer in 3 attempts: .*{why}"):
                caption(chat, attempts=3)
            assert len(chat.bodies) == 3


def test_a_server_that_takes_too_long_is_given_up():
    release = threading.Event()

    def slow(body, number):
        release.wait(5)
        return reply(GOOD)

    with serving(slow) as chat:
        with pytest.raises(RuntimeError, match=r"did not answer in 2 attempts: .*Timeout"):
            caption(chat, attempts=2, timeout=0.2)
        release.set()


@pytest.mark.parametrize("code", [400, 401, 403, 404, 422])
def test_what_will_not_pass_is_an_error_at_once(code):
    with serving(in_turn(refuse(code))) as chat:
        with pytest.raises(RuntimeError, match=f"refused the request for tiny/model: {code}"):
            caption(chat)
        assert len(chat.bodies) == 1


def test_a_key_that_is_wrong_shows_when_the_model_is_loaded():
    with serving(in_turn(reply(GOOD)), models=401) as chat, pytest.raises(RuntimeError, match="A2DATA_API_KEY"):
        cards.load(chat.card())


def test_a_server_that_is_not_there_shows_when_the_model_is_loaded():
    with pytest.raises(RuntimeError, match="did not answer in 2 attempts: ConnectError"):
        cards.load("openai:http://127.0.0.1:9/v1#m&attempts=2")


@pytest.mark.parametrize("models", [400, 404, 405, 422, 500, 501, 503])
def test_a_server_whose_list_of_models_fails_is_taken(models):
    with serving(in_turn(reply(GOOD)), models=models) as chat:
        assert caption(chat) == GOOD


def test_frames_can_be_sent_as_one_video_of_jpegs_with_their_times():
    frames = np.repeat(np.arange(40, dtype=np.uint8) * 5, 64 * 48 * 3).reshape(40, 48, 64, 3)
    with serving(in_turn(reply(GOOD))) as chat:
        assert cards.load(chat.card(media="video", frames=4))(frames, 13.0, []) == GOOD
    (body,) = chat.bodies
    (video,) = [p["video_url"]["url"] for p in body["messages"][0]["content"] if p["type"] == "video_url"]
    kind, *jpegs = video.split(",")
    assert kind == "data:video/jpeg;base64"
    shown = [cv2.imdecode(np.frombuffer(base64.b64decode(j), np.uint8), cv2.IMREAD_COLOR).mean() for j in jpegs]
    assert shown == pytest.approx([0, 65, 130, 195], abs=2)
    # frames 0, 13, 26 and 39 of 13 a second are one second apart
    told = {"fps": 1.0, "frames_indices": [0, 1, 2, 3], "total_num_frames": 4, "duration": 4.0}
    assert body["media_io_kwargs"] == {"video": told | {"do_sample_frames": False}}
    assert body["mm_processor_kwargs"] == {"do_sample_frames": False}
    assert "at 1.0 s" not in words(body)


def test_a_server_that_enforces_no_schema_is_asked_without_and_its_answers_are_checked():
    with serving(in_turn(reply({"subjects": "a woman"}), reply(GOOD))) as chat:
        assert caption(chat, response_format="none") == GOOD
    assert len(chat.bodies) == 2
    assert not any("response_format" in body for body in chat.bodies)


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        (b"At most 1 image(s) may be provided in one prompt.", r"--limit-mm-per-prompt '{\"image\": 16}'.*&frames=N"),
        (b"Unsupported fields in the request: {'response_format'}", "add &response_format=none to the address"),
    ],
)
def test_a_refusal_that_an_option_mends_names_it(said, hint):
    with serving(in_turn((400, {}, said))) as chat, pytest.raises(RuntimeError, match=hint):
        caption(chat)


def test_the_key_comes_from_the_environment(monkeypatch):
    with serving(in_turn(reply(GOOD))) as chat:
        caption(chat)
        monkeypatch.setenv("A2DATA_API_KEY", "secret")
        caption(chat)
    assert [h.get("Authorization") for h in chat.headers] == [None, "Bearer secret"]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("openai", "give its address and model"),
        ("openai:http://x/v1", "give its address and model"),
        ("openai:http://x/v1#m&frame=3", "no option 'frame'"),
        ("openai:http://x/v1#m&frames=none", "frames must be a number"),
        ("openai:http://x/v1#m&media=gif", "media must be images or video, got 'gif'"),
        ("openai-expert:http://x/v1#m&fields=mood&attempts=1", "did not answer|supports the fields"),
    ],
)
def test_an_address_that_cannot_be_is_a_sentence(name, why):
    with pytest.raises((ValueError, RuntimeError), match=why):
        cards.load(name)


def test_an_expert_answers_for_its_fields_and_each_subject():
    base = {"subjects": [{"TYPES": {"sub_type": "Woman"}}, {"TYPES": {"sub_type": "Dog"}}]}
    said = {"shot_angle": "low_angle", "subjects": [{"expression": "happy"}, {"expression": ""}]}
    with serving(in_turn(reply(said))) as chat:
        expert = cards.load(chat.card("openai-expert", fields="shot_angle+expression", confidence=0.8))
        answers = expert(FRAMES, 15.0, [], base)
    assert answers == [("shot_angle", "low_angle", 0.8), ("subjects.0.expression", "happy", 0.8)]
    assert "1. Woman\n2. Dog" in words(chat.bodies[0])


def test_an_expert_that_answers_for_too_few_is_refused():
    base = {"subjects": [{"TYPES": {"sub_type": "Woman"}}, {"TYPES": {"sub_type": "Dog"}}]}
    with serving(in_turn(reply({"subjects": [{"expression": "happy"}]}))) as chat:
        expert = cards.load(chat.card("openai-expert", fields="expression"))
        with pytest.raises(ValueError, match=r"no usable answer.*subjects"):
            expert(FRAMES, 15.0, [], base)
        assert expert(FRAMES, 15.0, [], {"subjects": []}) == []  # without subjects


def test_an_expert_for_what_the_schema_does_not_have_is_refused():
    with serving(in_turn(reply(GOOD))) as chat, pytest.raises(ValueError, match="got mood"):
        cards.load(chat.card("openai-expert", fields="mood"))


PROMPT = "In a shot, a woman in a yellow hoodie waves in a kitchen."


def test_a_fusion_says_every_phrase_once_and_knows_nothing_of_the_camera():
    with serving(in_turn(reply(f'"{PROMPT}"\n'))) as chat:
        assert cards.load(chat.card("openai-fusion"))(SCENE) == PROMPT
    assert "whirls" not in words(chat.bodies[0])
    assert "a woman in a yellow hoodie" in words(chat.bodies[0])
    assert "response_format" not in chat.bodies[0]


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("A woman in a yellow hoodie waves in a kitchen.", "'a woman in a yellow hoodie' stands in it 0 times"),
        (PROMPT + " It is a kitchen.", "'a kitchen' stands in it 2 times"),
        ("In a shot, a woman in a yellow hoodie waves.", "'a kitchen' stands in it 0 times"),
        ("", "empty"),
        ("-", "empty"),
        (PROMPT + " very" * 300, "words"),
    ],
)
def test_a_fusion_that_loses_or_repeats_a_phrase_is_asked_once_more_with_what_was_wrong(bad, why):
    with serving(in_turn(reply(bad), reply(PROMPT))) as chat:
        assert cards.load(chat.card("openai-fusion"))(SCENE) == PROMPT
        assert why in words(chat.bodies[1])
    with serving(in_turn(reply(bad))) as chat:
        with pytest.raises(ValueError, match=f"no usable answer.*{why}"):
            cards.load(chat.card("openai-fusion"))(SCENE)
        assert len(chat.bodies) == 2
