"""The sound of a film in the clips that are cut from it."""

from pathlib import Path

import numpy as np
import pytest
import sounding_film
from sounding_film import RATE_HZ, Sound, clicks, moving, tone

from a2data.media import sound, video
from a2data.media.mp4 import frame_count
from a2data.records import ClipVideo, Video
from stages.segment.stage import Segment


def run(path: Path, **settings) -> list[ClipVideo]:
    source = Video("feed", str(path), "", "", "", sounding_film.WIDTH, sounding_film.HEIGHT, 0, 30.0, 0.0, "h264", 0)
    return list(Segment(**{"shot_model": "", **settings}).run(None, [source]))


def film(tmp_path: Path, *sounds: Sound, times_s: list[float] | None = None) -> Path:
    times_s = times_s or [n / 30 for n in range(150)]
    return sounding_film.write(tmp_path / "a.mkv", moving(len(times_s)), times_s, *sounds)


def heard(clip: ClipVideo) -> np.ndarray | None:
    return sound.of_clip(clip.video, RATE_HZ, 0.0, len(clip.source_frames) / clip.fps).samples


def test_clips_have_the_sound_of_their_time_one_after_another_without_a_gap(tmp_path):
    clips = run(film(tmp_path, Sound(tone(5, 100.0))), max_frames=25)
    assert [len(clip.source_frames) for clip in clips] == [25, 25, 25]
    for number, clip in enumerate(clips):
        t = number * 25 / 15 + np.arange(25 * RATE_HZ // 15) / RATE_HZ
        assert (
            np.corrcoef(heard(clip)[0], np.sin(2 * np.pi * 100 * t))[0, 1] > 0.97
        )  # 0.3 ms: times are in milliseconds
    assert {clip.sound_problem for clip in clips} == {""}


def test_sound_is_as_long_as_the_picture_to_one_aac_frame(tmp_path):
    for clip in run(film(tmp_path, Sound(tone(5))), max_frames=25):
        with video.open_bytes(clip.video) as container:
            (pictures,), (track,) = container.streams.video, container.streams.audio
            lengths = [float(stream.duration * stream.time_base) for stream in (pictures, track)]
        assert lengths[1] == pytest.approx(lengths[0], abs=1024 / RATE_HZ)
        assert frame_count(memoryview(clip.video), 25) == len(clip.frames) == 25


def test_picture_and_sound_stay_together_where_the_frame_rate_varies(tmp_path):
    # frames of 1/30 s, then of 0.3 s; at the click of 3.0 s a new one is due
    times_s = [n / 30 for n in range(60)] + [2.0 + 0.3 * n for n in range(8)]
    clips = run(film(tmp_path, Sound(clicks(5, [3.2])), times_s=times_s), max_frames=20)
    (loud,) = [clip for clip in clips if np.abs(heard(clip)).max() > 0.3]
    start = np.argmax(np.abs(heard(loud)[0]) > 0.3) / RATE_HZ
    # frame 64 is shown at 3.2 s and for a tick of the clip later at most
    first = loud.source_frames.index(64) / 15
    assert 0 <= first - start <= 1 / 15 + 0.002


def test_a_film_without_sound_and_a_setting_give_clips_without_sound(tmp_path):
    (tmp_path / "silent").mkdir()
    silent, loud = film(tmp_path / "silent"), film(tmp_path, Sound(tone(5)))
    mute = run(loud, sound_hz=0)
    assert [clip.video for clip in run(silent)] == [clip.video for clip in mute]
    assert heard(mute[0]) is None


def test_equal_films_give_equal_bytes(tmp_path):
    path = film(tmp_path, Sound(tone(5), codec="aac"))
    assert [clip.video for clip in run(path)] == [clip.video for clip in run(path)]


def test_a_clip_whose_sound_is_damaged_is_kept_and_says_so(tmp_path):
    path = film(tmp_path, Sound(tone(5), codec="aac"))
    data = bytearray(path.read_bytes())
    with video.open_source(str(path)) as (container, _):
        packets = [p for p in container.demux(container.streams.audio[0]) if p.pts and 2.5 < p.pts * p.time_base < 2.8]
        places = [bytes(packet) for packet in packets]
    for content in places:
        at = data.index(content)
        data[at : at + len(content)] = b"\xff" * len(content)
    path.write_bytes(data)
    clips = run(path, max_frames=25)
    assert [bool(clip.sound_problem) for clip in clips] == [False, True, False]
    assert f"{len(places)} packets of its sound cannot be decoded" in clips[1].sound_problem
    assert heard(clips[1]).shape == (2, 80_000)
