"""Clips that are decoded while the one before them is processed."""

import json
import threading
from dataclasses import dataclass

import numpy as np
import pytest

from a2data import job, records
from a2data.job import run_job
from a2data.journal import progress_path
from a2data.media import video
from a2data.records import ClipVideo, Score
from a2data.stage import Stage
from a2data.store.tables import Store

CLIPS = [f"film-{n:08d}" for n in range(6)]
BROKEN = CLIPS[3]


def clip(clip_id: str, data: bytes) -> ClipVideo:
    return ClipVideo(
        clip_id, "film", 0, 0, 4, "start", 15.0, 32, 32, [0], [0.0], (0, 0, 32, 32), 0.0, [], [], [], b"", video=data
    )


@dataclass(frozen=True)
class Brightness(Stage):
    """The mean of each clip; calls `seen` with the clip that it processes."""

    reads = {"segment": ClipVideo}
    writes = Score

    def run(self, seen, films):
        (film,) = films
        seen(film.clip_id)
        yield Score(film.clip_id, "mean", float(film.frames.mean()))


@pytest.fixture
def store(tmp_path) -> Store:
    store = Store(tmp_path)
    rng = np.random.default_rng(0)
    with store.create("segment", ClipVideo, 0) as part:
        for name in CLIPS:
            data = video.encode(rng.integers(0, 255, (4, 32, 32, 3), np.uint8), 15)
            part.add([clip(name, b"no video" if name == BROKEN else data)])
        part.commit()
    return store


def made(store: Store, skip: dict[str, str] | None = None, seen=lambda _: None) -> tuple[str, dict[str, str]]:
    run_job([Brightness()], [seen], store, (0,), skip)
    footer = store.footer("brightness", 0)
    return footer.digest, footer.failed


def test_a_part_is_the_same_whether_or_not_clips_are_decoded_ahead(store, monkeypatch):
    digest, failed = made(store)
    assert list(failed) == [BROKEN]
    monkeypatch.setattr(job, "DECODE_AHEAD", 0)
    assert made(store) == (digest, failed)


def test_the_next_clips_are_decoded_while_one_is_processed(store, monkeypatch):
    decoded, original = threading.Semaphore(0), video.decode

    def decode(data: bytes) -> np.ndarray:
        frames = original(data)
        decoded.release()
        return frames

    monkeypatch.setattr(records.codec, "decode", decode)
    ahead = []

    def first_waits_for_three(clip_id: str) -> None:
        if clip_id == CLIPS[0]:  # its own frames and those of the two after it
            ahead.extend(decoded.acquire(timeout=20) for _ in range(1 + job.DECODE_AHEAD))
            ahead.append(decoded.acquire(timeout=0.2))  # bounded

    made(store, seen=first_waits_for_three)

    assert ahead == [True] * (1 + job.DECODE_AHEAD) + [False]


def test_the_note_names_the_clips_that_are_being_decoded(store):
    notes = []
    made(store, seen=lambda _: notes.append(json.loads(store.get(*progress_path([Brightness()], 0)))["units"]))

    assert notes == [CLIPS[n : n + 1 + job.DECODE_AHEAD] for n in range(6)]


def test_a_clip_that_may_have_killed_a_worker_is_decoded_alone_and_by_its_stage(store, monkeypatch):
    original, by = video.decode, []
    monkeypatch.setattr(records.codec, "decode", lambda data: by.append(threading.current_thread()) or original(data))
    notes = {}

    def seen(clip_id: str) -> None:
        notes[clip_id] = json.loads(store.get(*progress_path([Brightness()], 0)))["units"]
        if clip_id == CLIPS[2]:
            by.clear()

    main = threading.current_thread()
    _, failed = made(store, {CLIPS[2]: "", f"brightness/{CLIPS[4]}": "made no progress"}, seen)

    assert by[0] is main
    assert notes[CLIPS[2]] == [CLIPS[2]]
    assert notes[CLIPS[1]] == [CLIPS[1]]
    assert notes[CLIPS[0]] == CLIPS[:2]
    assert failed[CLIPS[4]] == "made no progress"
