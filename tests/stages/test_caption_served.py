"""Captions from a server, through the stage and the runner: each clip has its own answer, in the order of the clips."""

import json
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("httpx")
pytest.importorskip("tenacity")
pytest.importorskip("jsonschema")

from chat_server import Chat, pictures, refuse, reply, serving, words

from a2data import records
from a2data.job import run_job
from a2data.media import video
from a2data.records import ClipVideo, Element, Kept
from a2data.store.tables import Store
from model_zoo.caption import endpoint
from pipelines.run.schedule import groups
from pipelines.triplets import triplets
from stages.caption.stage import Caption

CLIPS, AT_ONCE = 12, 4
COLOURS = [(n * 20, 255 - n * 20, 60) for n in range(CLIPS)]  # the marker of each clip: what its picture shows


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(endpoint, "FIRST_WAIT_S", 0.005)
    monkeypatch.delenv("A2DATA_API_KEY", raising=False)


def film(number: int) -> ClipVideo:
    pixels = np.full((3, 48, 64, 3), COLOURS[number], np.uint8)
    nothing = {"luma": [0.5] * 3, "sharpness": [1.0] * 3, "motion": [0.0] * 3, "thumbnails": b""}
    return ClipVideo(
        **{"clip_id": f"v-{number:08d}", "video_id": "v", "shot": number, "shot_start": 0, "shot_end": 3},
        **{"transition_in": "cut", "fps": 15.0, "width": 64, "height": 48, "source_frames": [0, 1, 2]},
        **{"source_pts_s": [0.0] * 3, "crop": (0.0, 0.0, 64.0, 48.0), "bars": 0.0, **nothing},
        video=video.encode(pixels, 15.0),
    )


@pytest.fixture(scope="module")
def films() -> list[ClipVideo]:
    return [film(n) for n in range(CLIPS)]


@pytest.fixture
def store(tmp_path, films) -> Store:
    store = Store(tmp_path)
    store.write("select", 0, Kept, [Kept(f.clip_id, "v") for f in films])
    store.write("segment", 0, ClipVideo, films)
    for name in ("detect", "faces", "parse"):
        store.write(name, 0, Element, [])
    return store


def which(body: dict) -> int:
    """The number of the clip whose picture a request holds."""
    colour = pictures(body)[0].mean((0, 1))
    return int(np.abs(np.array(COLOURS) - colour).sum(1).argmin())


def scene(number: int) -> dict:
    cup = {"TYPES": {"type": "Object", "sub_type": "Cup"}, "appearance": "", "action": "", "expression": ""}
    cup |= {"position": "", "is_main_subject": True}
    rest = {"shot_type": "close_up", "shot_angle": "other", "shot_position": "other", "camera_motion": ""}
    return {"subjects": [cup], **rest, "environment": f"A room with the number {number}", "lighting": ""}


def stage(chat: Chat, **settings) -> Caption:
    return replace(Caption(captioner=chat.card(attempts=2), experts="", max_concurrency=AT_ONCE), **settings)


def made(store: Store, stage: Caption) -> dict[str, records.Caption]:
    run_job([stage], [stage.load()], store, (0,))
    return {row.clip_id: row for row in store.read("caption", 0, records.Caption)}


def test_each_answer_is_bound_to_its_clip_though_the_server_answers_in_reverse(store):
    together = threading.Barrier(AT_ONCE, timeout=20)  # answers wait for this many requests

    def answer(body, number):
        clip = which(body)
        together.wait()
        time.sleep(0.02 * (AT_ONCE - clip % AT_ONCE))  # of those in flight, the last one first
        return reply(scene(clip))

    with serving(answer) as chat:
        rows = made(store, stage(chat))
        assert chat.max_in_flight == AT_ONCE  # reached, and never exceeded
    assert list(rows) == sorted(rows)
    assert [row.environment for row in rows.values()] == [f"A room with the number {n}" for n in range(CLIPS)]


def test_the_bytes_are_the_same_with_any_number_in_flight(store):
    with serving(lambda body, number: reply(scene(which(body)))) as chat:
        footers = []
        for at_once in (1, 3, 12):
            asked = stage(chat, max_concurrency=at_once)
            made(store, asked)
            footers.append(store.footer("caption", 0))
    assert len({(f.key, f.digest) for f in footers}) == 1
    assert "max_concurrency" not in footers[0].settings


def test_a_clip_without_a_usable_answer_is_named_and_never_captioned(store):
    bad = {2: reply("no"), 5: refuse(500), 7: reply(json.dumps(scene(7)), "length"), 9: refuse(400)}

    with serving(lambda body, number: bad.get(which(body)) or reply(scene(which(body)))) as chat:
        rows = made(store, stage(chat))
    failed = store.footer("caption", 0).failed
    assert sorted(failed) == [f"v-{n:08d}" for n in bad]
    assert sorted(rows) == [f"v-{n:08d}" for n in range(CLIPS) if n not in bad]
    for n, why in ((2, "not JSON"), (5, "did not answer in 2 attempts"), (7, "cut off"), (9, "refused the request")):
        assert why in failed[f"v-{n:08d}"]


def test_a_fusion_that_fails_costs_the_clip_unless_the_setting_names_another(store):
    def answer(body, number):
        return reply(scene(which(body)) if pictures(body) else "Nothing of the kind.")

    with serving(answer) as chat:
        alone = stage(chat, fusion=chat.card("openai-fusion"))
        assert made(store, alone) == {}
        assert "stands in it 0 times" in store.footer("caption", 0).failed["v-00000000"]
        rows = made(store, replace(alone, fusion_fallback="template"))
    assert len(rows) == CLIPS
    notes = [a for a in rows["v-00000000"].answers if a.field == "prompt"]
    assert [n.expert for n in notes] == ["template"]
    assert "in place of openai-fusion" in notes[0].value


def test_a_fusion_writes_the_prompt_and_the_camera_is_appended(store):
    def answer(body, number):
        if pictures(body):
            return reply({**scene(which(body)), "camera_motion": "The camera circles a cup."})
        phrase = words(body).partition('"phrase": "a room')[2].partition('"')[0]
        return reply(f"In a close-up, a cup stands in a room{phrase}.")

    with serving(answer) as chat:
        rows = made(store, stage(chat, fusion=chat.card("openai-fusion")))
    assert rows["v-00000003"].prompt == (
        "In a close-up, a cup stands in a room with the number 3. The camera circles the cup."
    )


def test_a_stage_that_asks_a_server_has_a_group_of_its_own_and_32_in_flight():
    asked = Caption(captioner="openai:http://host:8000/v1#m")
    assert (asked.concurrency, asked.gpus, Caption().concurrency, Caption().gpus) == (32, 0, 1, 0)
    assert (Caption(captioner="qwen3-vl-8b").concurrency, Caption(captioner="qwen3-vl-8b").gpus) == (1, 1)
    assert replace(asked, max_concurrency=1000).concurrency == 128  # as many names fit into the worker's note
    stages = [asked if isinstance(s, Caption) else s for s in triplets()]
    assert (asked,) in groups(stages)


def wordy() -> dict:
    """A caption as a language model writes it: sentences, subjects in each other's texts, extra and missing fields."""
    woman = {"TYPES": {"type": "Human", "sub_type": "Woman"}, "is_main_subject": True, "mood": "?"}
    woman |= {
        "appearance": "The woman has long dark hair, pale skin and freckles on nose and cheeks. She wears a yellow hoodie."
    }
    woman |= {"action": "The woman hands a cup to a man. She smiles.", "position": "Left side of the frame"}
    man = {"TYPES": {"type": "Human", "sub_type": "Man"}, "appearance": "", "action": "Looks at a café table"}
    cup = {"type": "Object", "sub_type": "Cup", "appearance": None, "position": "in the hand of a man"}
    place = "A café table beside a woman in a yellow hoodie"
    return {"subjects": [woman, man, cup], "environment": place, "lighting": "soft, on a cup", "score": 3} | {
        "camera_motion": "The camera follows a woman in a yellow hoodie",
        "shot_type": "Medium Shot",
        "shot_angle": None,
    }


def test_every_phrase_of_a_wordy_caption_stands_in_its_prompt_once(store):
    with serving(lambda body, number: reply("```json\n" + json.dumps(wordy(), ensure_ascii=False) + "\n```")) as chat:
        rows = made(store, stage(chat))
    assert store.footer("caption", 0).failed == {}
    row = rows["v-00000000"]
    assert [s.phrase for s in row.subjects] == ["a woman in a yellow hoodie", "a man", "a cup"]
    assert row.prompt[row.environment_start : row.environment_end] == "a café table beside the woman in a yellow hoodie"
    assert row.prompt.startswith("In a medium shot, a woman in a yellow hoodie hands the cup to the man, then smiles")
    assert row.shot_type == "medium_shot"
