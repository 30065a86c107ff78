"""A long video is processed in pieces, and its clips are those of one pass."""

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest

from a2data.job import run_job
from a2data.media import key_frames, video
from a2data.records import ClipVideo, Reject, Video
from a2data.store import partial
from a2data.store.tables import Store
from a2data.task_map import map_serial
from model_zoo.shots import transnet
from stages.segment import pieces
from stages.segment.stage import Segment

HEIGHT, WIDTH, FPS = 64, 96, 30
FRAMES = 760
PIECE = 300  # borders are at 300 and 600
STAGE = Segment(shot_model="", piece_s=PIECE / FPS, max_frames=25, max_short_side_px=64)


def scene(seed: int, count: int) -> np.ndarray:
    """(count, 64, 96, 3) uint8: a camera that pans back and forth over blotches of colour."""
    rng = np.random.default_rng(seed)
    wide = cv2.resize(rng.integers(20, 235, (8, 40, 3), np.uint8), (480, HEIGHT), interpolation=cv2.INTER_CUBIC)
    places = np.abs((np.arange(count) + 7 * seed) % 700 - 350)
    return np.stack([wide[:, n : n + WIDTH] for n in places])


def film(path: Path, lengths: list[int], blend_at: int = 0) -> Video:
    """A film of shots of these lengths, with a key frame every 90 frames; blend_at: the shot that dissolves into the next."""
    shots = [scene(seed, length) for seed, length in enumerate(lengths)]
    if blend_at:
        share = np.linspace(0, 1, 14)[1:-1, None, None, None]
        ahead = scene(blend_at + 1, 1)
        shots[blend_at][-12:] = np.rint(shots[blend_at][-12:] * (1 - share) + ahead * share).astype(np.uint8)
    data = video.encode(np.concatenate(shots), FPS, crf=16, preset="ultrafast")
    path.write_bytes(data)
    return Video("feed", str(path), "", "", "", WIDTH, HEIGHT, 0, FPS, sum(lengths) / FPS, "h264", 0)


def whole(stage: Segment, source: Video) -> list[ClipVideo | Reject]:
    return list(stage.clips(stage.load(), source))


def in_pieces(stage: Segment, source: Video) -> list[ClipVideo | Reject] | None:
    made = stage.clips_by_pieces(stage.load(), source, lambda *_: None, map_serial)
    return None if made is None else list(made)


def lengths_with_cuts_at(*cuts: int) -> list[int]:
    return list(np.diff([0, *cuts, FRAMES]))


CASES = {
    "before": ((70, 200, 299, 450, 599), 0),
    "at": ((70, 200, 300, 450, 600), 0),
    "behind": ((70, 200, 301, 305, 590, 607), 0),
    "dissolve": ((100, 308, 450, 690), 1),  # it ends eight frames behind a border
    "second dissolve": ((100, 296, 450, 606), 3),
    "long shot": ((100, 690), 0),  # across all borders
    "one shot": ((), 0),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_clips_are_those_of_one_pass_wherever_the_cuts_are(tmp_path, case):
    cuts, blend_at = CASES[case]
    source = film(tmp_path / "a.mp4", lengths_with_cuts_at(*cuts), blend_at)
    expected = whole(STAGE, source)
    assert len({clip.shot_start for clip in expected if isinstance(clip, ClipVideo)}) >= len(cuts) - 1

    assert in_pieces(STAGE, source) == expected


def test_clips_are_those_of_one_pass(tmp_path, monkeypatch):
    """A shot of four frames at a border, and detectors that judge so late that two pieces read to the end of the video."""
    silent = transnet.Network(lambda windows: (np.zeros(windows.shape[:2]), np.zeros(windows.shape[:2])))
    monkeypatch.setattr(Segment, "load", lambda _: silent)
    source = film(tmp_path / "a.mp4", lengths_with_cuts_at(70, 200, 301, 305, 590, 690))
    expected = whole(STAGE, source)
    assert len({clip.shot_start for clip in expected if isinstance(clip, ClipVideo)}) == 6
    assert in_pieces(STAGE, source) == expected


@pytest.mark.slow
def test_the_network_sees_the_same_in_pieces(tmp_path):
    source = film(tmp_path / "a.mp4", lengths_with_cuts_at(100, 308, 450, 690), 1)
    stage = dataclasses.replace(STAGE, shot_model="transnetv2")
    assert in_pieces(stage, source) == whole(stage, source)


@pytest.mark.slow
def test_a_film_of_twenty_minutes_with_cuts_near_the_borders(tmp_path):
    stage, frames = dataclasses.replace(STAGE, piece_s=300.0), 20 * 60 * FPS
    cuts = sorted({border + near for border in range(9000, frames, 9000) for near in (-200, -7, 1, 90)})
    cuts = sorted({*cuts, *range(1000, frames, 1700)})
    source = film(tmp_path / "a.mp4", list(np.diff([0, *cuts, frames])))
    assert in_pieces(stage, source) == whole(stage, source)


def test_the_borders_are_multiples_of_the_stride_and_a_short_rest_joins_the_last_piece(tmp_path):
    index = key_frames.FrameIndex([n / FPS for n in range(1500)], [video.KeyFrame(0, 0, 0), video.KeyFrame(400, 9, 9)])
    source = Video("feed", "", "", "", "", WIDTH, HEIGHT, 0, FPS, 50, "h264", 0)
    planned = pieces.plan(index, source, 500, transnet.STRIDE)
    assert [(p.first, p.begin, p.end, p.decode_from.frame) for p in planned] == [
        (0, 0, 450, 0),
        (150, 450, 900, 0),
        (600, 900, 1501, 400),
    ]


def test_a_video_whose_pieces_disagree_is_processed_as_a_whole(tmp_path, monkeypatch):
    source = film(tmp_path / "a.mp4", lengths_with_cuts_at(200, 299, 500))

    def spread(work, things, tasks):
        for number, made in enumerate(map_serial(work, things, tasks)):
            changed = {**made.facts, "marks": {}} if number == 1 else made.facts
            yield partial.PartialResult(changed, made.rows)

    whole = Reject("feed", "as a whole")
    monkeypatch.setattr(Segment, "clips", lambda *_: [whole])
    assert list(STAGE.run(None, [source], task_map=spread)) == [whole]


def test_a_video_whose_packets_do_not_say_their_times_is_not_divided(tmp_path):
    source = film(tmp_path / "a.mp4", lengths_with_cuts_at(200))
    with video.av.open(source.path) as given, video.av.open(str(tmp_path / "a.ts"), "w") as copy:
        stream = copy.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                copy.mux(packet)
    assert key_frames.frame_index(source.path, 0).times_s == pytest.approx([n / FPS for n in range(FRAMES)])
    assert key_frames.frame_index(str(tmp_path / "a.ts"), 0) is None


def test_decoding_from_a_key_frame_gives_the_same_frames(tmp_path):
    source = film(tmp_path / "a.mp4", lengths_with_cuts_at(200, 449))
    index = key_frames.frame_index(source.path, 0)
    assert len(index.keys) > 3
    expected = list(video.read(source.path))
    for key in index.keys:
        found = list(video.read(source.path, start=key))
        assert [(f.index, f.pts_s) for f in found] == [(f.index, f.pts_s) for f in expected[key.frame :]]
        assert np.array_equal(found[0].picture.to_ndarray(), expected[key.frame].picture.to_ndarray())


@pytest.fixture
def store(tmp_path) -> Store:
    store = Store(tmp_path / "work")
    store.write("ingest", 0, Video, [film(tmp_path / "a.mp4", lengths_with_cuts_at(200, 301, 500))])
    return store


def test_a_killed_worker_costs_a_piece(store):
    done, killed = [], False

    def spread(work, things, tasks):
        for task in tasks:
            if killed and len(done) == 2:
                raise KeyboardInterrupt
            done.append(task)
            yield work(*(things[place] for place in task))

    killed = True
    with pytest.raises(KeyboardInterrupt):
        run_job([STAGE], [None], store, (0,), task_map=spread)
    assert store.footer("segment", 0) is None
    assert sum(name.endswith(partial.SUFFIX) for name in store.names("segment")) == 2
    killed = False
    done.clear()
    run_job([STAGE], [None], store, (0,), task_map=spread)

    assert len(done) == 1 + 2  # the piece that was left, and the shots across two borders
    assert store.names("segment") == ["00000.parquet"]
    together = store.footer("segment", 0).digest
    run_job([dataclasses.replace(STAGE, piece_s=1000)], [None], store, (0,))
    assert store.footer("segment", 0).digest == together
