import dataclasses
import sys
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from a2data.media import images, video
from a2data.records import ClipVideo, Reject, Source, Video
from a2data.store.schema import from_table, to_table
from model_zoo.shots import detector, transnet
from stages.ingest import Ingest
from stages.segment.stage import Segment

HEIGHT, WIDTH = 120, 160


def scene(seed: int, count: int) -> np.ndarray:
    """(count, 120, 160, 3) uint8: a camera that pans over blotches of colour."""
    rng = np.random.default_rng(seed)
    wide = cv2.resize(rng.integers(20, 235, (8, 40, 3), np.uint8), (800, HEIGHT), interpolation=cv2.INTER_CUBIC)
    return np.stack([wide[:, n : n + WIDTH] for n in range(count)])


def blend(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    share = np.linspace(0, 1, len(a) + 2)[1:-1, None, None, None]
    return np.rint(a * (1 - share) + b * share).astype(np.uint8)


def film_of(tmp_path: Path, *scenes: np.ndarray, fps: float = 30) -> Video:
    path = tmp_path / "a.mp4"
    path.write_bytes(video.encode(np.concatenate(scenes), fps, crf=10, preset="ultrafast"))
    height, width = scenes[0].shape[1:3]
    return Video("feed", str(path), "", "", "", width, height, 0, fps, 0.0, "h264", 0)


def run(source: Video, **settings) -> list[ClipVideo | Reject]:
    stage = Segment(**{"shot_model": "", **settings})
    return list(stage.run(stage.load(), [source]))


def test_a_shot_becomes_a_clip_at_15_fps(tmp_path):
    frames = scene(1, 60)
    [film] = run(film_of(tmp_path, frames))
    assert (film.clip_id, film.video_id, film.shot, film.shot_start, film.shot_end) == (
        "feed-00000000",
        "feed",
        0,
        0,
        60,
    )
    assert (film.transition_in, film.fps, film.width, film.height) == ("start", 15.0, WIDTH, HEIGHT)
    assert film.source_frames == list(range(0, 60, 2))
    assert film.source_pts_s == pytest.approx([n / 30 for n in range(0, 60, 2)])
    assert film.crop == (0, 0, WIDTH, HEIGHT)
    assert np.abs(film.frames.astype(int) - frames[::2]).mean() < 4


def test_cuts_part_clips_to_the_frame(tmp_path):
    films = run(film_of(tmp_path, scene(1, 40), scene(2, 41), scene(3, 39)))
    assert [(f.shot, f.shot_start, f.shot_end, f.transition_in) for f in films] == [
        (0, 0, 40, "start"),
        (1, 40, 81, "cut"),
        (2, 81, 120, "cut"),
    ]
    assert [f.source_frames for f in films] == [
        list(range(0, 40, 2)),
        list(range(40, 81, 2)),
        list(range(82, 120, 2)),
    ]


def test_no_clip_touches_a_dissolve(tmp_path):
    a, b = scene(1, 1).repeat(90, axis=0), scene(2, 1).repeat(90, axis=0)
    films = run(film_of(tmp_path, a[:60], blend(a[60:], b[:30]), b[30:]))
    assert [f.transition_in for f in films] == ["start", "dissolve"]
    assert max(films[0].source_frames) < 60
    assert min(films[1].source_frames) >= 90


def test_no_clip_touches_a_wipe_and_one_frame_next_to_it(tmp_path):
    a, b = scene(1, 90), scene(2, 90)
    columns = np.arange(WIDTH)[:, None]
    wipe = [np.where(columns < (n + 1) * WIDTH / 21, b[n], a[60 + n]) for n in range(20)]
    films = run(film_of(tmp_path, a[:60], np.stack(wipe), b[20:]))
    assert [(f.transition_in, f.shot_start, f.shot_end) for f in films] == [("start", 0, 60), ("wipe", 80, 150)]
    assert [(min(f.source_frames), max(f.source_frames)) for f in films] == [(0, 58), (82, 148)]


def test_a_long_shot_gives_clips_one_after_another_and_drops_a_short_rest(tmp_path):
    frames = scene(1, 300)
    films = run(film_of(tmp_path, frames), max_frames=40)
    assert [len(f.source_frames) for f in films] == [40, 40, 40, 30]
    assert [n for f in films for n in f.source_frames] == list(range(0, 300, 2))
    assert {(f.shot, f.shot_start, f.shot_end) for f in films} == {(0, 0, 300)}
    films = run(film_of(tmp_path, frames), max_frames=40, min_clip_s=2.1)
    assert [len(f.source_frames) for f in films] == [40, 40, 40]


def test_a_short_shot_is_rejected_by_name(tmp_path):
    rows = run(film_of(tmp_path, scene(1, 40), scene(2, 20), scene(3, 40)))
    assert [type(row) for row in rows] == [ClipVideo, Reject, ClipVideo]
    assert (rows[1].key, rows[1].reason) == ("feed-00000040", "shot too short")
    assert [row.shot for row in rows if isinstance(row, ClipVideo)] == [0, 2]


@pytest.mark.parametrize("shade", [0, 255])
def test_a_video_that_is_black_or_white_throughout_is_rejected_by_name(tmp_path, shade):
    [reject] = run(film_of(tmp_path, np.full((45, HEIGHT, WIDTH, 3), shade, np.uint8)))
    assert (reject.key, reject.reason) == ("feed", "no shot")
    assert reject.detail == "black or white throughout: all 45 frames are blank"


def test_a_video_that_is_one_dissolve_is_rejected_by_name(tmp_path, monkeypatch):
    """As the network sees it: it scores every frame as part of a transition."""
    network = transnet.Network(lambda windows: (np.zeros(windows.shape[:2]), np.ones(windows.shape[:2])))
    source = film_of(tmp_path, blend(scene(1, 60), scene(2, 60)))
    [reject] = Segment(shot_model="").run(network, [source])
    assert (reject.key, reject.reason) == ("feed", "no shot")
    assert (
        reject.detail == "only transitions: 0 of 60 frames are black or white, the others in a fade, dissolve or wipe"
    )


def test_a_video_of_one_short_shot_in_black_is_rejected_once(tmp_path):
    black = np.zeros((30, HEIGHT, WIDTH, 3), np.uint8)
    [reject] = run(film_of(tmp_path, black, scene(1, 15), black))
    assert (reject.key, reject.reason) == ("feed-00000030", "shot too short")


def test_measurements_are_those_of_the_clips_frames(tmp_path):
    [film] = run(film_of(tmp_path, scene(1, 40)))
    greys = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in film.frames]
    assert film.luma == pytest.approx([g.mean() / 255 for g in greys], abs=0.01)
    motion = [0.0] + [np.abs(a.astype(int) - b).mean() / 255 for a, b in zip(greys[1:], greys, strict=False)]
    assert film.motion == pytest.approx(motion, rel=0.1, abs=0.002)
    assert len(film.sharpness) == len(film.frames)
    thumbs = images.thumbs(film.thumbnails)
    assert thumbs.shape == (20, 18, 24)
    assert np.abs(thumbs[7].astype(int) - images.thumb(greys[7])).max() <= 6


def test_letterbox_bars_are_cut_off_and_remembered(tmp_path):
    frames = scene(1, 40)
    frames[:, :20] = frames[:, 100:] = 0
    source = dataclasses.replace(film_of(tmp_path, frames), width=320, height=240)  # as if pixels were 2 x 2
    [film] = run(source)
    assert film.height / film.width == pytest.approx(80 / 160, abs=0.05)
    assert film.crop[0::2] == (0, 320)
    assert 40 <= film.crop[1] <= 46
    assert 194 <= film.crop[3] <= 200
    assert film.bars == pytest.approx(1 / 3, abs=0.05)
    assert film.frames[:, 0].mean() > 40
    [whole] = run(source, crop_letterbox=False)
    assert (whole.bars, whole.crop) == (0, (0, 0, 320, 240))


def test_clips_are_not_larger_than_requested(tmp_path):
    [film] = run(film_of(tmp_path, scene(1, 40)), max_short_side_px=90)
    assert film.frames.shape[1:] == (90, 120, 3)


def test_a_slow_video_shows_frames_twice(tmp_path):
    [film] = run(film_of(tmp_path, scene(1, 30), fps=10))
    assert film.source_frames[:6] == [0, 0, 1, 2, 2, 3]


def test_the_same_video_gives_the_same_rows_and_they_fit_their_table(tmp_path):
    source = film_of(tmp_path, scene(1, 40), scene(2, 40))
    films = run(source)
    assert films == run(source)
    again = from_table(ClipVideo, to_table(ClipVideo, films))
    assert [f.video for f in again] == [f.video for f in films]


def test_decord_gives_the_clips_that_pyav_gives(tmp_path):
    pytest.importorskip("decord")
    source = film_of(tmp_path, scene(1, 40), scene(2, 40))
    ours, theirs = run(source), run(source, decoder="decord")
    assert [f.source_frames for f in theirs] == [f.source_frames for f in ours]
    for a, b in zip(ours, theirs, strict=True):
        assert np.abs(a.frames.astype(int) - b.frames).mean() < 3


@pytest.mark.parametrize(
    ("decoder", "error", "words"),
    [
        ("decord", ModuleNotFoundError, r"pip install 'a2data\[decord\]'"),
        ("opencv", ValueError, "unknown decoder 'opencv'"),
    ],
)
def test_a_decoder_that_cannot_be_had_stops_the_stage_before_the_first_video(decoder, error, words, monkeypatch):
    monkeypatch.setitem(sys.modules, "decord", None)
    with pytest.raises(error, match=words):
        Segment(decoder=decoder, shot_model="").load()


class Counting:
    """A container that counts what it decodes."""

    def __init__(self, container, counts):
        self.container, self.counts = container, counts

    def __getattr__(self, name):
        return getattr(self.container, name)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.container.close()

    def decode(self, *streams):
        for frame in self.container.decode(*streams):
            self.counts[frame.pts] += 1
            yield frame


def test_each_frame_of_the_source_is_decoded_exactly_once(tmp_path, monkeypatch):
    source = film_of(tmp_path, scene(1, 50), scene(2, 60), scene(3, 10))
    opened, counts, real = [], Counter(), video.av.open

    def counting(file, *args, **kwargs):
        if file != source.path:
            return real(file, *args, **kwargs)
        opened.append(file)
        return Counting(real(file, *args, **kwargs), counts)

    monkeypatch.setattr(video.av, "open", counting)
    assert len(run(source)) == 3
    assert len(opened) == 2  # the second time for its sound
    assert len(counts) == 120
    assert set(counts.values()) == {1}


def test_clips_are_given_out_while_the_video_is_still_being_read(tmp_path, monkeypatch):
    source = film_of(tmp_path, scene(1, 50), scene(2, 200))
    read, seen = video.read, []
    monkeypatch.setattr(video, "read", lambda *a: (seen.append(f.index) or f for f in read(*a)))
    stage = Segment(shot_model="")
    assert next(iter(stage.run(None, [source]))).shot_end == 50
    assert len(seen) < 180


def test_only_frames_that_may_be_needed_are_kept(tmp_path, monkeypatch):
    """However long the black is, and the shot: frames in a transition are dropped at once, clips wait on disk."""
    from stages.segment import stage as segment

    black = np.zeros((400, HEIGHT, WIDTH, 3), np.uint8)
    source = film_of(tmp_path, scene(1, 400), black, scene(2, 60))
    most, advance = [], segment.ShotBuffer.advance

    def watched(self, *args):
        advance(self, *args)
        most.append(len(self.ticks))

    monkeypatch.setattr(segment.ShotBuffer, "advance", watched)
    films = [row for row in run(source) if isinstance(row, ClipVideo)]
    assert sum(len(f.source_frames) for f in films) >= 220
    assert max(most) <= 81 + detector.MAX_RAMP / 2 + 15


def corpus_video(path: Path) -> Video:
    [found] = Ingest(min_duration_s=0).run(None, [Source("real", str(path), "", "", "", path.stat().st_size, "")])
    return found


def test_real_cuts_are_found_to_the_frame_without_the_network(corpus):
    rows = run(corpus_video(corpus / "video" / "derived_asl_hardcuts.mp4"))
    assert [row.shot_start for row in rows] == [0, 60, 120, 180, 225, 275, 330, 385, 445, 505, 550]


def test_real_fades_and_dissolves_are_in_no_clip(corpus):
    rows = run(corpus_video(corpus / "video" / "psd_testvideo.mp4"))
    films = [row for row in rows if isinstance(row, ClipVideo)]
    assert next((f.shot_start, f.transition_in) for f in films) == (30, "cut")
    assert films[0].shot_end == 180
    shown = {n for f in films for n in f.source_frames}
    for start, end in ((211, 240), (331, 360), (394, 424), (529, 558), (661, 694)):
        assert shown.isdisjoint(range(start, end))
    assert [f.transition_in for f in films] == ["cut", "fade", "fade", "dissolve"]
